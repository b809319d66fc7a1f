"""One of several processes that train the micro model: `torchrun … worker.py OUT CHECKPOINT CORPUS RECIPE`.

It runs the stage as the command does, and writes down what only this process can see.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from stages.artifacts.events import result_of
from stages.artifacts.recipes import validate
from stages.workshop.training.machine import Machine
from stages.workshop.training.recipe import FinetuneRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, run_stage
from stages.workshop.training.trainer import StageTrainer


def main(out: Path, checkpoint: Path, corpus: Path, recipe: str) -> None:
    seen: dict[str, Any] = {"rank": int(os.environ["RANK"])}
    original = StageTrainer.training_step

    def watch(
        self: StageTrainer, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kw: Any
    ) -> torch.Tensor:
        parameters = dict(self.model.named_parameters())
        seen["sharded"] = sorted(name for name, found in parameters.items() if isinstance(found, DTensor))
        seen["parameters"] = sorted(parameters)
        seen["local"] = sum(_local(found).numel() for found in parameters.values())
        seen["wrapped"] = type(model).__name__
        seen["pictures"] = [*seen.get("pictures", []), "tiles" in inputs]
        loss = original(self, model, inputs, *args, **kw)
        assert self.optimizer is not None
        state = self.optimizer.state
        seen["moments"] = sum(_local(held["exp_avg"]).numel() for held in state.values() if "exp_avg" in held)
        return loss

    StageTrainer.training_step = watch  # type: ignore[method-assign]
    inputs = StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, Machine("cpu", 1), heldout=corpus)
    result_of(run_stage(validate(FinetuneRecipe, json.loads(recipe), "micro"), inputs, out))
    out.with_name(f"{out.name}-{seen['rank']}.json").write_text(json.dumps(seen))


def _local(found: torch.Tensor) -> torch.Tensor:
    return found.to_local() if isinstance(found, DTensor) else found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
