"""One run of the trainer: from the newest complete state, or from the start, to the last step."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from stages.artifacts.errors import BluelmError, UsageError
from stages.artifacts.events import Notice
from stages.workshop.model.checkpoint import quiet
from stages.workshop.training import sharding
from stages.workshop.training.curve import LossCurve
from stages.workshop.training.divergence import DivergedError
from stages.workshop.training.history import History
from stages.workshop.training.interruption import InterruptedByOthers, terminable
from stages.workshop.training.machine import Machine, samples_per_device
from stages.workshop.training.monitor import Monitor, open_board
from stages.workshop.training.parameters import GroupPlan
from stages.workshop.training.processes import is_main
from stages.workshop.training.recipe import LearningRecipe
from stages.workshop.training.states import TrainingState, drop_states, newest_state
from stages.workshop.training.stream import Emit, Told, stream
from stages.workshop.training.trainer import StageTrainer


@dataclass(frozen=True, kw_only=True)
class Session(ABC):
    """What a run works with; kinds of it say what is learned from.

    Attributes:
        model: float32 weights, trained in place.
        groups: what is trained, and how fast.
        recipe: everything else.
        machine: where it runs.
        states: folder of the states to resume from.
        folder: where `training.csv` is written; None writes none.
    """

    model: PreTrainedModel
    groups: Sequence[GroupPlan]
    recipe: LearningRecipe
    machine: Machine
    states: Path
    folder: Path | None = None

    @abstractmethod
    def trainer(self, monitor: Monitor, stop: threading.Event) -> StageTrainer:
        """What trains."""

    @abstractmethod
    def report(self, trainer: StageTrainer) -> None:
        """Writes down what became of the data, when all is trained."""

    def attention(self) -> AbstractContextManager[Any]:
        """Within, the model attends as this kind of run wants it."""
        return nullcontext()


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        history: all its steps, those before a resume included.
        seconds: of each step of this run, from the end of the one before it.
        weights: whole weights of a sharded model, in the main process; None where the model itself has them.
    """

    history: History
    seconds: tuple[float, ...]
    weights: dict[str, torch.Tensor] | None

    @property
    def curve(self) -> LossCurve:
        """The loss curve."""
        return self.history.curve

    def figures(self, recipe: LearningRecipe) -> dict[str, float | None]:
        """What the run was like, in the words of `run.json`; of this run alone, but for padding and the loss."""
        seconds = max(sum(self.seconds), 1e-9)
        rows = [row for row in self.history.rows if row.get("seconds")]
        spent = sum(row["seconds"] or 0.0 for row in rows) or 1.0
        over = {
            name: sum((row[name] or 0.0) * (row["seconds"] or 0.0) for row in rows) / spent
            for name in ("tokens_per_s", "learned_tokens_per_s")
        }
        slots = sum(
            (row["tokens_per_s"] or 0.0) * (row["seconds"] or 0.0) / (1 - (row["padding"] or 0.0)) for row in rows
        )
        return {
            "seconds_training": round(seconds, 3),
            "samples_per_s": round(len(self.seconds) * recipe.global_batch / seconds, 2),
            **{name: round(value, 1) for name, value in over.items()},
            "padding": round(1 - over["tokens_per_s"] * spent / slots, 4) if slots else None,
            "eval_loss": self.history.eval_loss,
        }


def train(session: Session) -> Generator[Told, None, Outcome]:
    """Trains a model in place; afterwards it is on the CPU again (unless it is sharded), its configuration as before.

    Raises:
        KeyboardInterrupt: interrupted or terminated; a state was written.
        UsageError: memory ran out, or TensorBoard is asked for and missing.
        DivergedError: the loss became no number, or jumped; the weights are those before that step.
    """
    model, recipe = session.model, session.recipe
    state = newest_state(session.states)
    if is_main():
        drop_states(session.states, recipe.execution.keep_states)
    if state is not None:
        yield Notice(f"Going on after step {state.step} of {recipe.steps}.")
    use_cache = model.config.use_cache if "use_cache" in model.config.__dict__ else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name in group.names for group in session.groups))
    try:
        with quiet(), terminable(session.machine):
            outcome = yield from stream(lambda emit, stop: _work(session, state, emit, stop))
    except BluelmError:
        _put_back(model, use_cache)
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise _out_of_memory(recipe, session.machine) from error
        raise
    _put_back(model, use_cache)
    return outcome


def _work(session: Session, state: TrainingState | None, emit: Emit, stop: threading.Event) -> Outcome:
    """The run itself, in a thread of its own."""
    recipe, machine = session.recipe, session.machine
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    monitor = _monitor(session, state, emit)
    try:
        if recipe.execution.sharding == "fsdp2":
            sharding.shard(session.model, machine.name, bfloat16=recipe.dtype == "bfloat16")
        with session.attention():
            trainer = session.trainer(monitor, stop)
            trainer.train(resume_from_checkpoint=str(state.path) if state else None)
        if trainer.state.global_step < recipe.steps:
            raise InterruptedByOthers
        session.report(trainer)
        weights = sharding.full_weights(session.model) if sharding.is_sharded(session.model) else None
    except DivergedError as error:
        error.weights = sharding.full_weights(session.model) if sharding.is_sharded(session.model) else None
        raise
    finally:
        monitor.close()
    return Outcome(monitor.history, tuple(monitor.seconds), weights)


def _monitor(session: Session, state: TrainingState | None, emit: Emit) -> Monitor:
    """Watches in all processes; only the main one writes and speaks."""
    history = state.history if state else History(LossCurve(session.recipe.log_every))
    if not is_main():
        return Monitor(history)
    peaks = sorted({group.learning_rate for group in session.groups}, reverse=True)
    board = open_board(session.recipe.execution.tensorboard)
    return Monitor(history, emit, session.folder, peaks, board)


def _put_back(model: PreTrainedModel, use_cache: bool | None) -> None:
    """What training changed beside the weights, as it was: the library switches the cache off in the configuration."""
    model.requires_grad_(True)
    model.eval()
    if not sharding.is_sharded(model):
        model.to("cpu")
    if use_cache is None:
        model.config.__dict__.pop("use_cache", None)
    else:
        model.config.use_cache = use_cache


def _out_of_memory(recipe: LearningRecipe, machine: Machine) -> UsageError:
    samples = samples_per_device(recipe, machine)
    return UsageError(
        f"Memory ran out with {samples} samples per device and pass ({machine.name}).",
        "Activations of all samples of a pass are held until its backward pass; --dry-run shows the estimate.",
        f"Raise accumulation (now {recipe.accumulation}: --set accumulation={2 * recipe.accumulation}), or recompute "
        "activations (--set execution.activation_checkpointing=true).",
    )
