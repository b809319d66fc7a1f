"""What tiles and tokens cost: seconds for each, given or taken from a bench."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import UsageError
from stages.measure.records import OURS
from stages.measure.summary import SUMMARY_FILE

_WHY = "Seconds for each tile and token are taken from it."
_FIX = "Name a bench (bluelm bench MODEL --out BENCH), or give --seconds-per-tile and --seconds-per-token."


@dataclass(frozen=True)
class TilingCosts:
    """Seconds to encode a tile and to read a token before the first answer; None where that is not known.

    `source`: where they come from, for reports.
    """

    seconds_per_tile: float | None = None
    seconds_per_token: float | None = None
    source: str = "given"

    @property
    def known(self) -> bool:
        """Whether there is anything to count."""
        return self.seconds_per_tile is not None or self.seconds_per_token is not None

    def of(self, tiles: int | None, tokens: int) -> dict[str, float | None]:
        """encode_seconds and prefill_seconds; None for what is not known.

        Args:
            tiles: encoded; None for a scheme whose tiles are of another size.
            tokens: read.
        """
        encode = None if tiles is None or self.seconds_per_tile is None else tiles * self.seconds_per_tile
        prefill = None if self.seconds_per_token is None else tokens * self.seconds_per_token
        return {"encode_seconds": encode, "prefill_seconds": prefill}

    def as_dict(self) -> dict[str, Any]:
        """seconds_per_tile, seconds_per_token, source."""
        return dict(vars(self))


def costs_of_bench(path: Path) -> TilingCosts:
    """The fastest settings that a bench measured: of encoding by the tile, of reading by the token.

    Args:
        path: a bench folder, its `bench.json`, or what `bluelm bench --json` printed.

    Raises:
        UsageError: it is no bench, holds several models, or measured neither.
    """
    file = path / SUMMARY_FILE if path.is_dir() else path
    try:
        rows = [row for row in json.loads(file.read_bytes())["rows"] if row.get("engine", OURS) == OURS]
        models = {str(row["model"]) for row in rows}
        tile = _fastest(row["ms_per_tile"] for row in rows if row["test"] == "encode")
        token = _fastest(row["ms_per_token"] for row in rows if row["test"] == "prefill")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.", _WHY, _FIX) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} is no bench: it lacks rows as bluelm bench writes them.", _WHY, _FIX) from error
    if len(models) > 1:
        raise UsageError(f"{file} measured several models: {', '.join(sorted(models))}.", _WHY, _FIX)
    if tile is None and token is None:
        raise UsageError(f"{file} measured neither encoding nor reading a prompt.", _WHY, _FIX)
    return TilingCosts(tile, token, f"{path.name}: {models.pop()}")


def _fastest(milliseconds: Iterable[float]) -> float | None:
    times = [float(time) / 1000 for time in milliseconds]
    if not all(0 < time < float("inf") for time in times):
        raise ValueError("a time that is not above 0")
    return min(times, default=None)


def with_costs(rules: Mapping[str, dict[str, Any]], costs: TilingCosts, cutting: Iterable[str]) -> None:
    """Puts the seconds into each rule's figures.

    Args:
        rules: figures with tiles and tokens, by rule.
        costs: of a tile and a token.
        cutting: rules that cut tiles of the size whose cost is known.
    """
    ours = set(cutting)
    for rule, figures in rules.items():
        figures |= costs.of(figures["tiles"] if rule in ours else None, figures["tokens"])
