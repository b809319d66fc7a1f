"""Orthogonal matrices that spread every coordinate over all others: Hadamard's, of any order that has one made here.

A matrix of order n is the Kronecker product of small ones: Sylvester's [[1, 1], [1, -1]], and Paley's of order q + 1 or
2·(q + 1) for a prime q. 2304 = 12·12·16 and 1152 = 12·12·8 are such orders. Where a factor of n has none, a random
orthogonal matrix (seeded) stands in its place.

Axes: n the order, F factors. Source: Paley 1933; rotations for quantization: QuaRot, arXiv 2404.00456.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rotation:
    """x → x·R with R = diag(signs)·(F₁ ⊗ F₂ ⊗ …), orthogonal [n, n]; never made whole."""

    signs: torch.Tensor
    factors: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, order: int, seed: int) -> Rotation:
        """The rotation of an order; the same seed gives the same."""
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (order,), generator=generator).double() * 2 - 1
        return cls(signs, _factors(order, generator))

    def turn_rows(self, x: torch.Tensor) -> torch.Tensor:
        """x·R for x [.., n], in float64."""
        sizes = tuple(len(factor) for factor in self.factors)
        turned = (x.double() * self.signs).unflatten(-1, sizes)
        for axis, factor in enumerate(self.factors, start=-len(sizes)):
            turned = torch.tensordot(turned.movedim(axis, -1), factor, dims=1).movedim(-1, axis)
        return turned.flatten(-len(sizes))

    def turn_columns(self, x: torch.Tensor) -> torch.Tensor:
        """Rᵀ·x for x [n, ..], in float64."""
        return self.turn_rows(x.movedim(0, -1)).movedim(-1, 0)


def hadamard(order: int) -> torch.Tensor | None:
    """A Hadamard matrix [n, n] of ±1 in float64, not split further: order 1, 2 or one of Paley's; None for others."""
    if order == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if order == 2:
        return torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    if _is_prime(order - 1) and (order - 1) % 4 == 3:
        return _paley_first(order - 1)
    half = order // 2 - 1
    if order % 4 == 0 and _is_prime(half) and half % 4 == 1:
        return _paley_second(half)
    return None


def _factors(order: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Orthogonal matrices whose orders multiply to `order`."""
    sizes = _split(order)
    if sizes is not None:
        matrices = [hadamard(size) for size in sizes]
        return tuple(matrix / math.sqrt(len(matrix)) for matrix in matrices if matrix is not None)
    odd = order // (order & -order)
    square = torch.randn(odd, odd, generator=generator, dtype=torch.float64)
    rest = _split(order // odd)
    assert rest is not None
    matrices = [hadamard(size) for size in rest]
    return (
        torch.linalg.qr(square).Q,
        *(matrix / math.sqrt(len(matrix)) for matrix in matrices if matrix is not None),
    )


def _split(order: int) -> tuple[int, ...] | None:
    """Orders of Hadamard matrices that multiply to `order`: as many twos as can be, or None."""
    if order & (order - 1) == 0:
        return (2,) * (order.bit_length() - 1) or (1,)
    for size in range(12, order + 1, 4):
        if order % size or size & (size - 1) == 0 or hadamard(size) is None:
            continue
        rest = _split(order // size)
        if rest is not None:
            return (size, *(part for part in rest if part > 1))
    return None


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def _jacobsthal(prime: int) -> torch.Tensor:
    """Q[i, j] = 1 where i − j is a square modulo the prime, −1 where not, 0 on the diagonal."""
    squares = {value * value % prime for value in range(1, prime)}
    character = torch.tensor([0.0] + [1.0 if value in squares else -1.0 for value in range(1, prime)])
    index = torch.arange(prime)
    return character.double()[(index[:, None] - index[None]) % prime]


def _paley_first(prime: int) -> torch.Tensor:
    """Order q + 1 for a prime q = 3 mod 4: I + S with the bordered, skew S."""
    skew = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, _jacobsthal(prime)
    return skew + torch.eye(prime + 1, dtype=torch.float64)


def _paley_second(prime: int) -> torch.Tensor:
    """Order 2·(q + 1) for a prime q = 1 mod 4: the bordered, symmetric S in blocks of two."""
    plain = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    plain[0, 1:], plain[1:, 0], plain[1:, 1:] = 1, 1, _jacobsthal(prime)
    around = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    middle = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    return torch.kron(plain, around) + torch.kron(torch.eye(prime + 1, dtype=torch.float64), middle)
