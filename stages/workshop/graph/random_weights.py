"""Random weights of any shape, for benches: what a model costs does not depend on what it has learned."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from stages.device.contract import int8_channels
from stages.device.contract.int4_blocks import CHANNEL_BITS, Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.checkpoint_weights import EMBEDDING, HEAD
from stages.workshop.graph.linear import Floats, Linear
from stages.workshop.quant.activation_policy import DEFAULT, FIXED_POLICIES, ActivationRule, rule_of
from stages.workshop.quant.policy import FLOAT, Rule, Scheme

# The paper's precisions (Sec. 3.4): ViT and projector INT8, language model with embedding and head INT4. Blocks of 128
# are what 2.2 GB leave room for.
PAPER_RULES = (
    Rule(modules="vision_tower.*", weights="int8"),
    Rule(modules="multi_modal_projector.*", weights="int8"),
    Rule(modules="language_model.*", weights="int4", group_size=128),
)
# Steps of two-level scales: as far apart as those of trained weights.
STEPS = (8, 12)


def schemes_of(rules: Sequence[Rule]) -> Callable[[str], Scheme]:
    """The scheme of a module's name: that of the first rule that matches it, float where none does."""
    return lambda name: next((rule.scheme for rule in rules if rule.matches(name)), FLOAT)


class RandomWeights:
    """Invents each weight when it is asked for: integers at once where the scheme says so, without rounding floats.

    The same name, shape and seed give the same numbers. They are small enough that activations stay finite.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = PAPER_RULES,
        seed: int = 0,
        *,
        activations: Sequence[ActivationRule] = FIXED_POLICIES["mix"],
        tied: bool = False,
    ) -> None:
        """Sets the rules.

        Args:
            rules: which module gets which weights.
            seed: of all numbers.
            activations: what the inputs of quantized weights are rounded to.
            tied: the head has the embedding's numbers.
        """
        self._scheme_of = schemes_of(rules)
        self._activations = activations
        self._seed = seed
        self._tied = tied

    def linear(self, name: str, rows: int, columns: int, *, bias: bool) -> Linear:
        """A Linear whose outputs are about as large as its inputs."""
        rule = rule_of(self._activations, name)
        activations = DEFAULT if rule is None else rule.activations
        rng, scheme = self._generator(EMBEDDING if self._tied and name == HEAD else name), self._scheme_of(name)
        offset = np.zeros(rows, np.float32) if bias else None
        if scheme.bits is None:
            weight = rng.standard_normal((rows, columns), dtype=np.float32)
            return Linear(weight / np.float32(columns**0.5), offset, activations)
        # Whole words are ten times as fast as small integers, and there are billions of weights.
        words = rng.integers(0, 2**64, -(-rows * columns // 8), dtype=np.uint64)
        values = words.view(np.int8)[: rows * columns].reshape(rows, columns)
        values = values >> 4 if scheme.bits == 4 else np.maximum(values, -int8_channels.VALUE_MAX)
        # Uniform integers of n bits have a spread of 2^n / sqrt(12).
        scale = 12**0.5 / 2**scheme.bits / columns**0.5
        if scheme.group_size is None:
            scales = (scale * rng.uniform(0.8, 1.2, rows)).astype(np.float32)
            return Linear(Int8Channels(values, scales), offset, activations)
        channel = _few_bits(scale / (sum(STEPS) / 2) * rng.uniform(0.9, 1.1, rows))
        steps = rng.integers(STEPS[0], STEPS[1], (rows, scheme.scale_count(1, columns)), endpoint=True)
        scales = channel[:, None] * steps.astype(np.float32)
        return Linear(Int4Blocks(values, scales, scheme.group_size), offset, activations)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Ones for the scales of norms, zeros for biases, small numbers for everything else."""
        if name.endswith(".bias"):
            return np.zeros(shape, np.float32)
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        columns = np.prod(shape[1:])
        values: Floats = self._generator(name).standard_normal(shape, dtype=np.float32) / np.float32(columns**0.5)
        return values

    def _generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(name.encode())])


def _few_bits(values: np.ndarray) -> Floats:
    """Values with as few significant bits as the contract's channel scales have."""
    mantissa, exponent = np.frexp(values)
    rounded: Floats = np.ldexp(np.rint(np.ldexp(mantissa, CHANNEL_BITS)), exponent - CHANNEL_BITS).astype(np.float32)
    return rounded
