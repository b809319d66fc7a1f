"""The decisions of `bluelm tile` as a table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bluelm_cli import console

if TYPE_CHECKING:
    from stages.device.imaging.spec import RuleName
    from stages.tile import TileResult

# With more pictures than this the table counts grids instead of listing pictures.
LISTED_PICTURES = 60


def print_tilings(result: TileResult, compare: bool, dry_run: bool) -> None:
    """A row per picture and rule; of many pictures a row per rule and grid."""
    if len(result.images) > LISTED_PICTURES:
        columns, rows = ["rule", "grid", "pictures", "tiles", "tokens"], _grid_rows(result)
    else:
        columns = ["picture", "size", "rule", "grid", "canvas", "tiles", "tokens", "enlargement"]
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
    rows = []
    for image in result.images:
        for rule, tiling in image.tilings.items():
            size, grid, canvas = image.size, tiling.grid, tiling.canvas
            rows.append(
                [
                    str(image.picture.path),
                    f"{size.width}×{size.height}",
                    rule,
                    f"{grid.cols}:{grid.rows}",
                    f"{canvas.width}×{canvas.height}",
                    tiling.tiles,
                    tiling.tokens,
                    tiling.enlargement,
                ]
            )
    return rows


def _grid_rows(result: TileResult) -> list[list[Any]]:
    counts: Counter[tuple[RuleName, int, int]] = Counter()
    tilings = {}
    for image in result.images:
        for rule, tiling in image.tilings.items():
            key = (rule, tiling.grid.cols, tiling.grid.rows)
            counts[key] += 1
            tilings[key] = tiling
    return [
        [
            rule,
            f"{cols}:{rows}",
            count,
            count * tilings[rule, cols, rows].tiles,
            count * tilings[rule, cols, rows].tokens,
        ]
        for (rule, cols, rows), count in sorted(counts.items())
    ]
