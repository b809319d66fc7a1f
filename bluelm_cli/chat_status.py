"""What a conversation says of itself: the line under the prompt, the figures after an answer, `/stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bluelm_cli.chat_text import shown

if TYPE_CHECKING:
    from stages.device.runtime.conversation import Conversation, Named, Turn

_BAR = 8


def status_line(talking: Conversation) -> str:
    """The line under the prompt: what loads, how far each waiting picture is, how full the context is."""
    engine = talking.engine
    parts = [_picture(named) for named in talking.named]
    if not all(part.done() for part in engine.loading):
        parts.insert(0, "loading the model")
    elif any(part.exception() is not None for part in engine.loading):
        return "the model cannot be loaded"
    else:
        context = engine.language.context
        parts.append(f"{context.length:,} of {context.limit:,} tokens")
    return " · ".join([engine.config.name, *parts])


def answer_figures(turn: Turn) -> str:
    """An answer in figures, in one line."""
    answer = turn.answer
    rate = f", {answer.decode_tok_s:.1f} tok/s" if answer.decode_tok_s is not None else ""
    return (
        f"[{answer.prompt_tokens} prompt tokens ({answer.image_tokens} image, {answer.reused_tokens} reused); "
        f"first token {answer.first_token_s:.2f} s (waited {turn.waited_s:.2f} s for pictures){rate}]"
    )


def conversation_figures(talking: Conversation) -> list[str]:
    """`/stats`: tokens, the time to the first token, what encoding while typing saved, caches, memory."""
    from stages.device.runtime.memory import peak_rss_mb, rss_mb

    engine, turns, counts = talking.engine, talking.turns, talking.engine.album.counts
    lines = []
    if turns:
        last, first = turns[-1], sorted(turn.answer.first_token_s for turn in turns)
        generated = sum(turn.answer.generated_tokens for turn in turns)
        prompts = sum(turn.answer.prompt_tokens for turn in turns)
        reused = sum(turn.answer.reused_tokens for turn in turns)
        lines += [
            answer_figures(last),
            f"{len(turns)} answers, {generated:,} tokens generated",
            f"prompts: {prompts:,} tokens, {reused:,} of them reused from the KV cache",
            f"time to first token: {first[0]:.2f} to {first[-1]:.2f} s, last {last.answer.first_token_s:.2f} s",
        ]
    else:
        lines.append("Nothing was answered yet.")
    hidden, waited = sum(turn.hidden_s for turn in turns), sum(turn.waited_s for turn in turns)
    lines += [
        f"encoding while typing saved {hidden:.2f} s of waiting ({waited:.2f} s were waited)",
        f"pictures: {counts.encoded} encoded, {counts.in_memory} found in memory, {counts.stored} found on disk",
    ]
    if all(part.done() and part.exception() is None for part in engine.loading):
        vision = "in memory" if engine.encoder.loaded else "freed"
        lines.append(f"loading {engine.load_s:.2f} s; vision graphs {vision}")
    lines.append(f"memory {rss_mb():,.0f} MB, peak {peak_rss_mb():,.0f} MB")
    return lines


def _picture(named: Named) -> str:
    name, progress = shown(named.path.name), named.progress
    if named.features.done():
        return f"{name} {'✗' if named.features.exception() is not None else '✓'}"
    if not progress.total:
        return f"{name} …"
    filled = _BAR * progress.done // progress.total
    return f"{name} {'▰' * filled}{'▱' * (_BAR - filled)} {progress.done}/{progress.total}"
