"""`bluelm tile`: flags -> stages.tile -> a table, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.bare_flag import BareAlphaCommand
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Set, Threads
from bluelm_cli.tiling_flags import compared_rules, flag_problems, parse_grid
from bluelm_cli.tiling_table import print_tilings
from stages.artifacts.errors import raise_all

if TYPE_CHECKING:
    from stages.tile import TileConfig

DEFAULT_PREVIEW_FOLDER = Path("tile-preview")


def tile(
    pictures: Annotated[
        list[Path], typer.Argument(help="Pictures, folders of pictures, LLaVA JSON files or corpus folders.")
    ],
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", metavar="[NUMBER]", help="Threshold of the relaxed rule; alone it means 0.1 (paper)."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            "--rule",
            help="relaxed (default), llava-next, internvl-1.5, ferret-ui-2 or xcomposer2-4khd: cuts the tiles.",
        ),
    ] = None,
    max_grid: Annotated[
        str | None, typer.Option("--max-grid", metavar="COLSxROWS", help="Largest grid (default: the preset's, 4x4).")
    ] = None,
    max_tiles: Annotated[
        int | None, typer.Option("--max-tiles", help="Instead of --max-grid: all grids of at most this many tiles.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Model whose tiles to cut: bluelm-v-3b (default) or tiny.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show what every rule decides, side by side.")] = False,
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules",
            metavar="A,B,…",
            help="Compare only these; also mini-monkey, minicpm-v and qwen2-vl, which are only counted; or all.",
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option("--preview", help=f"Draw each decision: into the artifact, or {DEFAULT_PREVIEW_FOLDER}/."),
    ] = False,
    preview_to: Annotated[
        Path | None, typer.Option("--preview-to", metavar="DIR", help="Draw each decision into this folder.")
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    threads: Threads = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Decide how pictures are cut into tiles, show it, and write the tiles.

    Example: bluelm tile photo.png --compare

    Example: bluelm tile photo.png --rules relaxed,minicpm-v,qwen2-vl

    Example: bluelm tile photos/ --alpha 0.1 --max-grid 4x4 --preview --out build/tiles
    """
    from stages import tile as stage

    config = _config(
        recipe,
        sets or [],
        {"preset": preset, "rule": rule, "alpha": alpha, "max_tiles": max_tiles, "preview": preview or None},
        max_grid,
        rules,
    )
    shown = compared_rules(compare, rules)
    if dry_run:
        for text in config.warnings("relaxed" in shown):
            console.note(text, warning=True)
        result = stage.plan(config, pictures, out=out, compare=shown)
    else:
        drawings = preview_to or (DEFAULT_PREVIEW_FOLDER if config.preview and out is None else None)
        events = stage.run(config, pictures, out=out, preview_to=drawings, compare=shown, force=force, threads=threads)
        result = console.drive(events)
        if drawings is not None:
            console.note(f"previews are in {drawings}")
    if as_json:
        console.emit_json({**result.as_dict(), "dry_run": dry_run})
    else:
        print_tilings(result, bool(shown), dry_run)


# Read by the command table: `--alpha` works with a number and without.
tile.command_class = BareAlphaCommand  # type: ignore[attr-defined]


def _config(
    recipe: str | None, sets: list[str], flags: dict[str, Any], max_grid: str | None, rules: str | None
) -> TileConfig:
    """The configuration: default < recipe < --set < flag.

    Raises:
        BluelmError: flags that cannot work, all of them together.
    """
    from stages.artifacts.recipes import load_config
    from stages.tile import TileConfig

    raise_all(flag_problems(flags, max_grid, rules))
    grid = parse_grid(max_grid) if max_grid is not None else None
    if grid is not None:
        flags = {**flags, "max_cols": grid.cols, "max_rows": grid.rows}
    config = load_config(TileConfig, recipe=recipe, sets=sets, flags=flags)
    # A recipe's max_tiles would hide the flag's grid.
    return config if grid is None else config.model_copy(update={"max_tiles": None})
