"""pretrain-tower: a small vision tower learns to read; stage 1 starts from one, as the paper's does (Sec. 4).

bluelm pretrain-tower --recipe base/tower.yaml --fonts build/fonts --out build/tower
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.events import Events
from stages.workshop.training.machine import Machine
from stages.workshop.training.stage import TrainResult
from stages.workshop.training.tower_recipe import TowerRecipe

PretrainTowerConfig = TowerRecipe


@dataclass(frozen=True)
class TowerPlan:
    """What would be trained: parameters of the tower and its head, the optimizer's groups, pages to be drawn."""

    recipe: TowerRecipe
    parameters: int
    groups: tuple[dict[str, Any], ...]
    faces: int

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "parameters": self.parameters,
            "groups": list(self.groups),
            "steps": self.recipe.steps,
            "pages": self.recipe.steps * self.recipe.global_batch,
            "faces": self.faces,
            "recipe": self.recipe.model_dump(mode="json"),
        }


def plan(config: PretrainTowerConfig, start: Path | None = None) -> TowerPlan:
    """What would be trained; trains nothing.

    Raises:
        BluelmError: fonts that are not there, a pattern that matches nothing, a `start` that does not fit.
    """
    from stages.workshop.training.tower_stage import check_start, plan_tower

    check_start(config, start)
    groups = plan_tower(config)
    config.look(config.heldout_fonts)
    told = tuple(
        {
            "learning_rate": found.learning_rate,
            "weight_decay": found.weight_decay,
            "method": found.method,
            "tensors": len(found.names),
            "parameters": found.count,
        }
        for found in groups
    )
    faces = sum(len(family) for family in config.look(config.train_fonts).families)
    return TowerPlan(config, sum(found.count for found in groups), told, faces)


def run(
    config: PretrainTowerConfig, machine: Machine, out: Path, force: bool = False, start: Path | None = None
) -> Events[TrainResult]:
    """Trains a tower, from random weights or from `start`, and writes it as a SigLIP folder.

    Raises:
        BluelmError: see `run_tower`.
    """
    from stages.workshop.training.tower_stage import run_tower

    yield from run_tower(config, machine, out, force, start)
