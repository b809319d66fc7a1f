"""The loss curve: the mean loss of every `every` steps. A state holds it, so a resumed run draws the same one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from stages.artifacts.atomic_file import write_atomically

CURVE_FILE = "training.json"


@dataclass
class LossCurve:
    """Points so far and the open window.

    Attributes:
        every: steps per point.
        steps: step of each point, its window's last.
        losses: mean loss of each window.
        open_sum: sum of the losses after the last point.
        open_count: how many they are.
    """

    every: int
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    open_sum: float = 0.0
    open_count: int = 0

    def add(self, step: int, loss: float) -> float | None:
        """Takes a step's loss; returns the window's mean where the step closes it."""
        self.open_sum += loss
        self.open_count += 1
        return self.close(step) if step % self.every == 0 else None

    def close(self, step: int) -> float | None:
        """Closes the window at this step, however full; None where it is empty."""
        if not self.open_count:
            return None
        mean = self.open_sum / self.open_count
        self.steps.append(step)
        self.losses.append(mean)
        self.open_sum, self.open_count = 0.0, 0
        return mean

    @property
    def first(self) -> float | None:
        """Mean loss of the first window."""
        return self.losses[0] if self.losses else None

    @property
    def last(self) -> float | None:
        """Mean loss of the last window."""
        return self.losses[-1] if self.losses else None

    def write(self, folder: Path) -> None:
        """Writes `training.json` in one step."""
        content = {"every": self.every, "steps": self.steps, "losses": self.losses}
        write_atomically(folder / CURVE_FILE, json.dumps(content) + "\n", durable=False)


def read_curve(folder: Path) -> LossCurve | None:
    """The curve of a finished training, or None where there is none."""
    path = folder / CURVE_FILE
    return LossCurve(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
