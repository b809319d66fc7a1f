"""The chips whose NPU we compile for: `chips.json`, with its sources, and what they cannot hold."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from stages.artifacts.errors import BluelmError, UsageError

GIGA = 1e9


class Chip(BaseModel):
    """One chip: Qualcomm's number of it, its part number, architecture of its HTP, fast memory of that in MB."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    soc_model: int
    part: str
    arch: int
    vtcm_mb: int


class Chips(BaseModel):
    """The whole of `chips.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: dict[str, str]
    oldest_arch: int
    context_bytes: int
    chips: dict[str, Chip]


@cache
def known_chips() -> Chips:
    """The table that comes with bluelm."""
    return Chips.model_validate_json(Path(__file__).with_name("chips.json").read_bytes())


def chip_of(name: str) -> Chip:
    """A chip by name or part number (`snapdragon-8-gen-3`, `SM8650`).

    Raises:
        UsageError: unknown, or too old.
    """
    table = known_chips()
    parts = {chip.part.lower(): known for known, chip in table.chips.items()}
    key = parts.get(name.lower(), name.lower())
    usable = [known for known, chip in table.chips.items() if chip.arch >= table.oldest_arch]
    if key not in table.chips:
        near = difflib.get_close_matches(key, table.chips, n=1)
        raise UsageError(
            f"--soc {name}: there is no chip of that name in the table.",
            "A context binary is compiled for one chip's NPU and runs on no other.",
            f"{f'Did you mean {near[0]}? ' if near else ''}Chips: {', '.join(usable)}.",
        )
    chip = table.chips[key]
    if chip.arch < table.oldest_arch:
        raise UsageError(
            f"--soc {name}: its NPU is HTP v{chip.arch}.",
            f"Prefill and decode share their weights, which needs v{table.oldest_arch}: two copies do not fit.",
            f"Chips: {', '.join(usable)}.",
        )
    return chip


def context_problems(name: str, sizes: dict[str, int]) -> list[BluelmError]:
    """What is too large for a chip.

    Args:
        name: the chip.
        sizes: bytes of weights, cache and activations of each context binary, by what is in it.
    """
    limit = known_chips().context_bytes
    return [
        UsageError(
            f"--soc {name}: {part} takes about {size / GIGA:.1f} GB.",
            f"The NPU addresses {limit / GIGA:.1f} GB at once, so the chip could not load it.",
            "Choose a smaller --max-context, or quantize the model to fewer bits.",
        )
        for part, size in sizes.items()
        if size > limit
    ]
