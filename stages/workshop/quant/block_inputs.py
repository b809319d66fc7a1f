"""What goes into the Linears of a block while a prompt passes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from stages.workshop.quant.calibration import evenly_spaced


class SharedInputs:
    """Watches Linears; those that read the same tensor (queries, keys and values) are seen once.

    Attributes:
        leader: for every Linear that was reached the one that stands for its inputs.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._modules = {name: model.get_submodule(name) for name in names}
        self.leader: dict[str, str] = {}

    @contextmanager
    def watch(self, see: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
        """Calls `see(leader, inputs [.., K])` for all distinct inputs of one forward pass."""
        # Held for as long as the pass lasts, so that no other tensor takes over an identity.
        seen: dict[int, tuple[str, torch.Tensor]] = {}

        def look(name: str, inputs: torch.Tensor) -> None:
            first = seen.setdefault(id(inputs), (name, inputs))[0]
            self.leader[name] = first
            if first == name:
                see(name, inputs)

        handles = []
        for name, module in self._modules.items():

            def hook(_: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                look(name, inputs[0])

            handles.append(module.register_forward_pre_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Rows:
    """Some inputs of each Linear, as rows."""

    def __init__(self, shared: SharedInputs, per_prompt: int) -> None:
        self._shared, self._per_prompt = shared, per_prompt
        self._held: dict[str, list[torch.Tensor]] = {}

    def see(self, name: str, inputs: torch.Tensor) -> None:
        self._held.setdefault(name, []).append(evenly_spaced(inputs, self._per_prompt))

    def of(self, name: str) -> torch.Tensor | None:
        """float32 [R, K], or None where no input came."""
        held = self._held.get(self._shared.leader.get(name, ""))
        return torch.cat(held) if held else None


class Largest:
    """The largest magnitude of every input column."""

    def __init__(self, shared: SharedInputs) -> None:
        self._shared = shared
        self._held: dict[str, torch.Tensor] = {}

    def see(self, name: str, inputs: torch.Tensor) -> None:
        largest = inputs.reshape(-1, inputs.shape[-1]).float().abs().amax(dim=0)
        self._held[name] = torch.maximum(self._held.get(name, largest), largest)

    def of(self, name: str) -> torch.Tensor | None:
        """float32 [K]."""
        return self._held.get(self._shared.leader.get(name, ""))


class Moments:
    """Σ x·xᵀ over all inputs."""

    def __init__(self, shared: SharedInputs) -> None:
        self._shared = shared
        self._held: dict[str, torch.Tensor] = {}

    def see(self, name: str, inputs: torch.Tensor) -> None:
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        if name not in self._held:
            self._held[name] = torch.zeros(rows.shape[1], rows.shape[1], device=rows.device)
        self._held[name].addmm_(rows.T, rows)

    def of(self, name: str) -> torch.Tensor | None:
        """float32 [K, K]."""
        return self._held.get(self._shared.leader.get(name, ""))
