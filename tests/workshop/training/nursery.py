"""Runs a stage in children that die: `nursery.py FOLDER CHECKPOINT CORPUS KILLS`, recipes by name on stdin.

Every child is forked with all imports done, and kills itself with SIGKILL: after a random number of steps, or in the
middle of writing a state (after some of its files, or half of one). The last child runs to the end. What happened is
told on stdout.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from stages.artifacts.events import Progress, result_of
from stages.artifacts.recipes import validate
from stages.workshop.training import states, trainer
from stages.workshop.training.machine import Machine
from stages.workshop.training.recipe import FinetuneRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import STATES, StageInputs, run_stage
from stages.workshop.training.states import complete_states

PLACES = ("step", "first file", "half a file", "before the marker", "half the marker", "before the old one goes")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place: str) -> None:
    """Makes the next state that is written the last thing this process does."""
    save, mark = torch.save, trainer.mark_complete

    def half(held: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        save(held, path, *args, **kwargs)
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: len(content) // 2])
        die()

    def first(held: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        save(held, path, *args, **kwargs)
        die()

    def torn(path: Path, content: str) -> None:
        path.write_text(content[:40])
        die()

    def unmarked(*args: Any) -> None:
        die()

    def marked(*args: Any) -> None:
        mark(*args)
        die()

    if place == "first file":
        torch.save = first
    elif place == "half a file":
        torch.save = half
    elif place == "before the marker":
        trainer.mark_complete = unmarked
    elif place == "half the marker":
        states.write_atomically = torn
    else:
        trainer.mark_complete = marked


def child(recipe: FinetuneRecipe, inputs: StageInputs, out: Path, place: str | None, steps: int) -> None:
    """Trains until it dies; without a place it trains to the end."""
    if place is None:
        result_of(run_stage(recipe, inputs, out))
        return
    taken = 0
    for event in run_stage(recipe, inputs, out):
        if isinstance(event, Progress) and event.unit == "steps":
            taken += 1
            if taken == steps:
                die() if place == "step" else arm(place)


def raise_children(recipe: FinetuneRecipe, inputs: StageInputs, out: Path, kills: int) -> dict[str, Any]:
    """Trains in children until the last one ends; returns how many were killed, and what each left."""
    dice, killed, half_written, resumed = random.Random(kills), 0, 0, []
    found = out.with_name(f".{out.name}.partial") / STATES
    for number in range(kills + 1):
        place = None if number == kills else dice.choice(PLACES) if number else "before the marker"
        steps = dice.randint(1, 4)
        pid = os.fork()
        if pid == 0:
            child(recipe, inputs, out, place, steps)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"child {number}, {place}: {status}"
        whole = complete_states(found)
        half_written += len(list(found.glob("checkpoint-*"))) > len(whole)
        resumed.append(whole[0].step if whole else 0)
    return {"killed": killed, "half_written": half_written, "resumed": resumed}


def main(folder: Path, checkpoint: Path, corpus: Path, kills: int) -> None:
    inputs = StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, Machine("cpu", 1))
    stories = {
        name: raise_children(validate(FinetuneRecipe, content, name), inputs, folder / name, kills)
        for name, content in json.loads(sys.stdin.read()).items()
    }
    sys.stdout.write(json.dumps(stories))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
