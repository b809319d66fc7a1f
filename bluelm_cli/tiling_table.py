"""The decisions of `bluelm tile` as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bluelm_cli import console

if TYPE_CHECKING:
    from stages.device.imaging.geometry import Grid
    from stages.device.imaging.spec import AnyRule
    from stages.tile import TileResult

# With more pictures than this the table counts grids instead of listing pictures.
LISTED_PICTURES = 60


def print_tilings(result: TileResult, compare: bool, dry_run: bool) -> None:
    """A row per picture and rule; of many pictures a row per rule and grid."""
    if len(result.images) > LISTED_PICTURES:
        columns, rows = ["rule", "grid", "pictures", "tiles", "tokens"], _grid_rows(result)
    else:
        columns = ["picture", "size", "rule", "grid", "canvas", "tiles", "tokens", "area ×"]
        rows = _picture_rows(result)
    console.emit_table(f"tiles of {result.config.preset}", columns, rows)
    counts = ((len(result.images), "picture"), (result.tiles, "tile"), (result.tokens, "token"))
    total = ", ".join(_counted(count, noun) for count, noun in counts)
    total += f" by {result.config.rule}" if compare else ""
    if result.out is not None:
        verb = "would be written to" if dry_run else "in"
        total += f", {result.bytes / 2**20:,.1f} MiB {verb} {result.out}"
    console.emit_text(total)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _picture_rows(result: TileResult) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for image in result.images:
        picture = [str(image.picture.path), f"{image.size.width}×{image.size.height}"]
        for rule, tiling in image.tilings.items():
            canvas = f"{tiling.canvas.width}×{tiling.canvas.height}"
            rows.append(
                [*picture, rule, _grids([tiling.grid]), canvas, tiling.tiles, tiling.tokens, tiling.enlargement]
            )
        for scheme, count in image.counts.items():
            rows.append([*picture, scheme, _grids(count.grids), "–", count.tiles, count.tokens, count.enlargement])
    return rows


def _grid_rows(result: TileResult) -> list[list[Any]]:
    totals: dict[tuple[AnyRule, tuple[Grid, ...]], list[int]] = {}
    for image in result.images:
        made: dict[AnyRule, tuple[tuple[Grid, ...], int, int]] = {
            rule: ((tiling.grid,), tiling.tiles, tiling.tokens) for rule, tiling in image.tilings.items()
        }
        made |= {scheme: (count.grids, count.tiles, count.tokens) for scheme, count in image.counts.items()}
        for rule, (grids, tiles, tokens) in made.items():
            total = totals.setdefault((rule, grids), [0, 0, 0])
            for place, amount in enumerate((1, tiles, tokens)):
                total[place] += amount
    return [[rule, _grids(grids), *total] for (rule, grids), total in sorted(totals.items())]


def _grids(grids: Iterable[Grid]) -> str:
    return " + ".join(f"{grid.cols}:{grid.rows}" for grid in grids)
