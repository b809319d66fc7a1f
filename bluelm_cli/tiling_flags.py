"""What is wrong with the flags that say how to tile, found before anything runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from stages.artifacts.errors import BluelmError, UsageError

if TYPE_CHECKING:
    from stages.device.imaging.geometry import Grid
    from stages.device.imaging.spec import AnyRule

ALL_RULES = "all"


def flag_problems(flags: Mapping[str, Any], max_grid: str | None, rules: str | None = None) -> list[BluelmError]:
    """What is wrong with the flags of a tiling command (None: not given), said in the flags' names."""
    from stages.device.imaging.presets import IMAGING_PRESETS
    from stages.device.imaging.spec import CountedName, RuleName

    cutting, counted = list(get_args(RuleName)), list(get_args(CountedName))
    found = [
        _only_counted(flags["rule"], cutting)
        if flags["rule"] in counted
        else _unknown("--rule", flags["rule"], cutting),
        *(_unknown("--rules", name, [*cutting, *counted, ALL_RULES]) for name in _names(rules)),
        _unknown("--preset", flags["preset"], list(IMAGING_PRESETS)),
        _outside("--alpha", flags["alpha"]),
        _few("--max-tiles", flags["max_tiles"]),
        _no_grid(max_grid),
        _both(flags["max_tiles"], max_grid),
    ]
    return [problem for problem in found if problem is not None]


def compared_rules(compare: bool, rules: str | None) -> tuple[AnyRule, ...]:
    """The rules that `--rules A,B` names, each once; with `--compare` alone those that cut tiles; else none."""
    from stages.device.imaging.spec import CountedName, RuleName

    everything: dict[str, AnyRule] = {name: name for name in (*get_args(RuleName), *get_args(CountedName))}
    names = _names(rules)
    if ALL_RULES in names:
        return tuple(everything.values())
    if names:
        return tuple(everything[name] for name in dict.fromkeys(names))
    return get_args(RuleName) if compare else ()


def parse_grid(text: str) -> Grid | None:
    """The grid of `4x4` (also `4X4`, `4×4`, `4:4`); None where it is no grid of sides from 1 to 64."""
    from stages.device.imaging.geometry import Grid

    match = re.fullmatch(r"\s*(\d{1,2})\s*[xX×:]\s*(\d{1,2})\s*", text, flags=re.ASCII)
    grid = Grid(int(match[1]), int(match[2])) if match else Grid(0, 0)
    return grid if all(1 <= side <= 64 for side in grid) else None


def _names(rules: str | None) -> list[str]:
    return [name.strip() for name in rules.split(",")] if rules is not None else []


def _only_counted(rule: str, cutting: list[str]) -> BluelmError:
    return UsageError(
        f"--rule {rule} cuts no tiles.",
        "It is a scheme of more than one grid, or of slices of its own size; its tiles and tokens are only counted.",
        f"Cut by one of {', '.join(cutting)}; see what {rule} would spend with --rules relaxed,{rule}.",
    )


def _unknown(flag: str, value: str | None, known: list[str]) -> BluelmError | None:
    if value is None or value in known:
        return None
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}? " if near else ""
    return UsageError(
        f"{flag} {value!r} is not known.", "Nothing of that name is built in.", f"{hint}Known: {', '.join(known)}."
    )


def _outside(flag: str, value: float | None) -> BluelmError | None:
    if value is None or 0 <= value < 1:
        return None
    return UsageError(
        f"{flag} {value:g} is not a share from 0 to below 1.",
        "It is the part of the effective resolution that a leaner canvas may lose.",
        f"Use {flag} alone for the paper's 0.1, or a number like {flag} 0.2.",
    )


def _few(flag: str, value: int | None) -> BluelmError | None:
    if value is None or 1 <= value <= 4096:
        return None
    return UsageError(
        f"{flag} {value} is not a number of tiles from 1 to 4096.", "It bounds the grids.", f"Use {flag} 9, say."
    )


def _no_grid(max_grid: str | None) -> BluelmError | None:
    if max_grid is None or parse_grid(max_grid) is not None:
        return None
    return UsageError(
        f"--max-grid {max_grid!r} is not a grid.",
        "It is the most columns and rows, each from 1 to 64.",
        "Write it like --max-grid 4x4.",
    )


def _both(max_tiles: int | None, max_grid: str | None) -> BluelmError | None:
    if max_tiles is None or max_grid is None:
        return None
    return UsageError(
        "--max-grid and --max-tiles were both given.", "Each alone says which grids may be chosen.", "Give one of them."
    )
