"""One run of the trainer: from the newest complete state, or from the start, to the last step."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from stages.artifacts.errors import BluelmError, UsageError
from stages.artifacts.events import Notice, Progress
from stages.workshop.model.checkpoint import quiet
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.training.batches import Collator, SampleSet
from stages.workshop.training.curve import LossCurve
from stages.workshop.training.data import Prepared
from stages.workshop.training.machine import Machine, arguments, samples_per_device
from stages.workshop.training.order import BatchOrder
from stages.workshop.training.parameters import GroupPlan
from stages.workshop.training.processes import is_main
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.states import TrainingState, drop_others, newest_state
from stages.workshop.training.stream import Emit, Told, stream
from stages.workshop.training.trainer import StageTrainer


@dataclass(frozen=True)
class Outcome:
    """A finished run: the whole loss curve, and how many steps this run did itself in how many seconds."""

    curve: LossCurve
    steps: int
    seconds: float


def train(
    model: BlueLMVForConditionalGeneration,
    processor: BlueLMVProcessor,
    prepared: Prepared,
    groups: Sequence[GroupPlan],
    recipe: TrainRecipe,
    machine: Machine,
    states: Path,
) -> Generator[Told, None, Outcome]:
    """Trains a model in place.

    Args:
        model: float32 weights; afterwards on the CPU again, its configuration as before.
        processor: its tokenizer and picture settings.
        prepared: samples and tiles.
        groups: what is trained, and how fast.
        recipe: everything else.
        machine: where it runs.
        states: folder of the states to resume from.

    Raises:
        KeyboardInterrupt: interrupted; a state was written.
        UsageError: memory ran out.
        ModelError: the loss became no number.
    """
    state = newest_state(states)
    if is_main():
        drop_others(states, keep=state.path if state else None)
    if state is not None:
        yield Notice(f"Going on after step {state.step} of {recipe.steps}.")

    def work(emit: Emit, stop: threading.Event) -> Outcome:
        if machine.threads is not None:
            torch.set_num_threads(machine.threads)
        trainer = _trainer(model, processor, prepared, groups, recipe, machine, states, state, emit, stop)
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(state.path) if state else None)
        steps = trainer.state.global_step - (state.step if state else 0)
        return Outcome(trainer.curve, steps, time.perf_counter() - started)

    use_cache = model.config.use_cache if "use_cache" in model.config.__dict__ else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name in group.names for group in groups))
    try:
        with quiet():
            outcome = yield from stream(work)
    except BluelmError:
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise _out_of_memory(recipe, machine) from error
        raise
    outcome.curve.close(recipe.steps)
    model.requires_grad_(True)
    model.to("cpu").eval()
    _restore_use_cache(model, use_cache)
    return outcome


def _trainer(
    model: BlueLMVForConditionalGeneration,
    processor: BlueLMVProcessor,
    prepared: Prepared,
    groups: Sequence[GroupPlan],
    recipe: TrainRecipe,
    machine: Machine,
    states: Path,
    state: TrainingState | None,
    emit: Emit,
    stop: threading.Event,
) -> StageTrainer:
    batches = recipe.steps * recipe.accumulation * machine.processes
    lengths = [sample.length for sample in prepared.samples]

    def report(step: int, steps: int, loss: float | None) -> None:
        emit(Progress("training" if loss is None else f"training, loss {loss:.4f}", step, steps, "steps"))

    return StageTrainer(
        model=model,
        args=arguments(recipe, machine, states),
        data=SampleSet(prepared.samples, prepared.tiles),
        collator=Collator(processor.tokenizer.pad_token_id or 0),
        order=BatchOrder(lengths, samples_per_device(recipe, machine), batches, recipe.seed, recipe.group_by_length),
        groups=groups,
        optimizer_recipe=recipe.optimizer,
        pixels=(processor.image_processor.image_mean, processor.image_processor.image_std),
        curve=LossCurve(**asdict(state.curve)) if state else LossCurve(recipe.log_every),
        report=report,
        stop=stop,
        save_every=recipe.execution.save_every,
    )


def _restore_use_cache(model: BlueLMVForConditionalGeneration, before: bool | None) -> None:
    """The library switches the cache off in the configuration, which would go into the checkpoint."""
    if before is None:
        model.config.__dict__.pop("use_cache", None)
    else:
        model.config.use_cache = before


def _out_of_memory(recipe: TrainRecipe, machine: Machine) -> UsageError:
    samples = samples_per_device(recipe, machine)
    return UsageError(
        f"Memory ran out with {samples} samples per device and pass ({machine.name}).",
        "Activations of all samples of a pass are held until its backward pass; --dry-run shows the estimate.",
        f"Raise accumulation (now {recipe.accumulation}: --set accumulation={2 * recipe.accumulation}), or recompute "
        "activations (--set execution.activation_checkpointing=true).",
    )
