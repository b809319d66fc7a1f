"""What a bench runs, and how it is bounded by what the model can take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stages.artifacts.errors import UsageError

EVERYTHING = ("load", "encode", "text")


@dataclass(frozen=True)
class Workload:
    """What is run.

    Attributes:
        chunks: tokens a prefill call takes, one test each.
        batches: tiles an encode call takes, one test each.
        prompts: tokens read before decoding, one test each.
        generate: tokens decoded; none for no decoding at all.
        warmup: turns that don't count.
        runs: turns that count.
        threads: CPU threads; None takes every core.
        seed: of the prompt's random tokens.
        pipelines: patch embedding beside the ViT blocks or before them, one encode test each.
        parts: what is measured; vision or language alone is all that is loaded where the other's part is left out, and
            loading is measured only of both.
    """

    chunks: tuple[int, ...]
    batches: tuple[int, ...]
    prompts: tuple[int, ...]
    generate: int
    warmup: int
    runs: int
    threads: int | None = None
    seed: int = 0
    pipelines: tuple[bool, ...] = (True,)
    parts: tuple[str, ...] = EVERYTHING


@dataclass(frozen=True)
class Fitted:
    """A workload as the model can take it, and what had to change, in words."""

    workload: Workload
    notices: tuple[str, ...]


def fit(asked: Workload, max_context: int, fixed_batch: int | None) -> Fitted:
    """Bounds a workload by the model's context and its fixed tiles per batch.

    Raises:
        UsageError: the model cannot even hold the tokens to generate and one before them.
    """
    notices = []
    room = max_context - asked.generate
    if room < 1:
        raise UsageError(
            f"--generate {asked.generate} leaves no room for a prompt.",
            f"The model holds {max_context} tokens.",
            f"Generate at most {max_context - 1}.",
        )
    longest = max(asked.prompts)
    if room < longest:
        notices.append(
            f"The model holds {max_context} tokens: prefill is measured with {room} instead of {longest}, "
            f"which leaves {asked.generate} to decode."
        )
    batches = asked.batches if fixed_batch is None else (fixed_batch,)
    if batches != asked.batches:
        notices.append(f"The model was exported for {fixed_batch} tiles per batch: no other number can be measured.")
    fitted = replace(
        asked,
        chunks=tuple(dict.fromkeys(asked.chunks)),
        batches=tuple(dict.fromkeys(batches)),
        prompts=tuple(dict.fromkeys(min(prompt, room) for prompt in asked.prompts)),
    )
    return Fitted(fitted, tuple(notices))
