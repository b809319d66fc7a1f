"""In which order samples are seen: a pure function of seed and sizes, so that a resumed run goes on where it stopped.

The run is one stream of shuffled passes over the data, cut into batches; a batch may span two passes, so every step has
exactly the samples that the recipe says. A batch is what one process computes in one pass of a step.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from stages.workshop.training.packing import deal
from stages.workshop.training.position import check_processes

# Batches that are sorted by length together: enough to pad little, few enough to stay shuffled.
_WINDOW = 32

Item = TypeVar("Item")


@dataclass(frozen=True)
class Steps:
    """How a run is cut into batches.

    Attributes:
        steps: of the whole run.
        accumulation: batches of a step on each process.
        samples: samples per batch; of packed batches on average.
        rank: this process.
        processes: how many share each step.
    """

    steps: int
    accumulation: int
    samples: int
    rank: int = 0
    processes: int = 1

    @property
    def batches(self) -> int:
        """Batches of a step on all processes."""
        return self.accumulation * self.processes

    @property
    def step_samples(self) -> int:
        """Samples of a step on all processes."""
        return self.batches * self.samples


class Order(Sampler[list[Item]], Generic[Item]):
    """What this process computes, batch by batch, from the first step that is left to the last (a `DataPosition`)."""

    def __init__(self, plan: Steps) -> None:
        self.plan = plan
        self.first_step = 0
        self._trained = 0

    def __len__(self) -> int:
        """Batches of this process in the whole run."""
        return self.plan.steps * self.plan.accumulation

    @abstractmethod
    def __iter__(self) -> Iterator[list[Item]]: ...

    @property
    def step(self) -> int:
        """Steps that were trained on, those before a resume included."""
        return self.first_step + self._trained // self.plan.accumulation

    def advance(self, batch: dict[str, Any]) -> None:
        """A batch was trained on; loaders have read more than that."""
        self._trained += 1

    def state_dict(self) -> dict[str, Any]:
        """The position after the last step that was trained on, as JSON."""
        return {"step": self.step, "processes": self.plan.processes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on after such a step."""
        self.first_step, self._trained = int(state["step"]), 0


class BatchOrder(Order[int]):
    """Indices of the samples of every batch, drawn from all samples.

    Args:
        lengths: tokens of each sample.
        plan: how the run is cut.
        seed: seed of the shuffles.
        by_length: put samples of similar length together.
        packed: deal the samples of a step to its batches so that all have about the same number of tokens.
    """

    def __init__(
        self, lengths: Sequence[int], plan: Steps, seed: int, *, by_length: bool = False, packed: bool = False
    ) -> None:
        super().__init__(plan)
        self.lengths = np.asarray(lengths)
        self.seed = seed
        self.by_length = by_length
        self.packed = packed
        self._pass: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __iter__(self) -> Iterator[list[int]]:
        plan = self.plan
        batches = self._packed() if self.packed else self._plain()
        for number, batch in batches:
            if number % plan.processes == plan.rank:
                yield batch

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on after such a step, in as many processes as there are now: they do not change a step's samples.

        Raises:
            UsageError: they do, where samples of similar length are put together.
        """
        if self.by_length:
            check_processes(state, self.plan.processes)
        super().load_state_dict(state)

    def _plain(self) -> Iterator[tuple[int, list[int]]]:
        """Number and indices of every batch of all processes that is left."""
        rng = np.random.default_rng([self.seed, 1])
        size, total = self.plan.samples, self.plan.steps * self.plan.batches
        first = self.first_step * self.plan.batches
        for start in range(0, total, _WINDOW):
            count = min(_WINDOW, total - start)
            turned = rng.permutation(count) if self.by_length else np.arange(count)
            if start + count <= first:
                continue
            indices = self._take(start * size, count * size)
            if self.by_length:
                indices = indices[np.argsort(self.lengths[indices], kind="stable")]
            window = indices.reshape(count, size)[turned].tolist()  # [batches of the window, samples]
            skipped = max(0, first - start)
            yield from enumerate(window[skipped:], start + skipped)

    def _packed(self) -> Iterator[tuple[int, list[int]]]:
        """The same for packed batches."""
        plan = self.plan
        for step in range(self.first_step, plan.steps):
            indices = self._take(step * plan.step_samples, plan.step_samples)
            dealt = deal(self.lengths[indices].tolist(), plan.batches)
            for number, row in enumerate(dealt, step * plan.batches):
                yield number, indices[row].tolist()

    def _take(self, start: int, count: int) -> NDArray[np.int64]:
        """So many indices of the endless stream of passes, from the place `start`."""
        found, samples = [], len(self.lengths)
        while count:
            number, offset = divmod(start, samples)
            if self._pass[0] != number:
                self._pass = number, np.random.default_rng([self.seed, 0, number]).permutation(samples)
            piece = self._pass[1][offset : offset + count]
            found.append(piece)
            start, count = start + len(piece), count - len(piece)
        return np.concatenate(found)
