"""`bluelm tile`: flags -> stages.tile -> a table, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bluelm_cli import console
from bluelm_cli.bare_flag import BareAlphaCommand
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Set, Threads
from bluelm_cli.tiling_corpus import engine_problems, is_corpus, tile_corpus
from bluelm_cli.tiling_flags import compared_rules, flag_problems, parse_grid
from bluelm_cli.tiling_statistics import print_statistics, stats_problems
from bluelm_cli.tiling_table import print_tilings
from stages.artifacts.errors import raise_all

if TYPE_CHECKING:
    from stages.device.imaging.config import TilingConfig
    from stages.tile import TileConfig
    from stages.tile_corpus import TileCorpusConfig
    from stages.tile_stats import StatsConfig

Config = TypeVar("Config", bound="TilingConfig")

DEFAULT_PREVIEW_FOLDER = Path("tile-preview")


def tile(
    pictures: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, folders of pictures, LLaVA JSON files or corpus folders; with --stats also messages JSONL, "
            "parquet, datasets folders, WebDataset tars, and a CSV of sizes (width,height[,count])."
        ),
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
    stats: Annotated[
        bool, typer.Option("--stats", help="Count what every rule makes of a whole corpus, from sizes alone.")
    ] = False,
    alpha_sweep: Annotated[
        bool, typer.Option("--alpha-sweep", help="Statistics: also tokens and effective resolution against alpha.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html|DIR", help="Statistics: write a report with figures (HTML)."),
    ] = None,
    seconds_per_tile: Annotated[
        float | None, typer.Option("--seconds-per-tile", help="Statistics: what encoding a tile costs.")
    ] = None,
    seconds_per_token: Annotated[
        float | None, typer.Option("--seconds-per-token", help="Statistics: what reading an image token costs.")
    ] = None,
    cost_from: Annotated[
        Path | None,
        typer.Option("--cost-from", metavar="BENCH", help="Statistics: take both from a bench (folder or JSON)."),
    ] = None,
    figures_from: Annotated[
        list[Path] | None,
        typer.Option("--figures-from", metavar="PICTURE", help="Report: draw these pictures, not some of the inputs."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Statistics: where pictures lie, if not beside the data.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="Who cuts a corpus: local (processes of this machine, default) or ray."),
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

    Example: bluelm tile corpus.parquet shards/ --out build/tiles --engine ray

    Example: bluelm tile SIZES.csv --stats --max-grid 3x3 --alpha-sweep --report report.html
    """
    wanted = stats or alpha_sweep or report is not None
    cutting = {"--out": out, "--preview": preview, "--preview-to": preview_to, "--rule": rule, "--compare": compare}
    counting = {
        "--seconds-per-tile": seconds_per_tile,
        "--seconds-per-token": seconds_per_token,
        "--cost-from": cost_from,
        "--figures-from": figures_from,
        "--images": images,
    }
    raise_all([*stats_problems(cutting, counting, wanted), *engine_problems(engine, out)])
    flags = {"preset": preset, "rule": rule, "alpha": alpha, "max_tiles": max_tiles}
    if wanted:
        costs = {"seconds_per_tile": seconds_per_tile, "seconds_per_token": seconds_per_token}
        flags |= {**costs, "alpha_sweep": alpha_sweep or None}
        places = {"report": report, "force": force}
        reading = {"images": images, "figures_from": figures_from or [], "threads": threads}
        _count(
            pictures,
            _stats_config(recipe, sets or [], flags, max_grid, rules),
            cost_from,
            places,
            reading,
            dry_run,
            as_json,
        )
        return
    if out is not None and not (preview or compare or rules) and is_corpus(pictures, sets or [], engine):
        corpus = _corpus_config(recipe, sets or [], flags, max_grid, rules)
        tile_corpus(corpus, pictures, out, engine, threads, force, dry_run, as_json)
        return
    from stages import tile as stage

    config = _config(recipe, sets or [], {**flags, "preview": preview or None}, max_grid, rules)
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


def _count(
    inputs: list[Path],
    config: StatsConfig,
    cost_from: Path | None,
    places: dict[str, Any],
    reading: dict[str, Any],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Statistics, or what they would be made of."""
    from stages import tile_stats as stage
    from stages.measure.tiling_costs import costs_of_bench

    measured = None if cost_from is None else costs_of_bench(cost_from)
    if dry_run:
        planned = stage.plan(config, inputs, **places).as_dict()
        if as_json:
            console.emit_json({**planned, "dry_run": True})
        else:
            console.emit_text(f"would count {', '.join(planned['inputs'])}")
        return
    result = console.drive(stage.run(config, inputs, measured=measured, **places, **reading)).as_dict()
    if as_json:
        console.emit_json({**result, "dry_run": False})
    else:
        print_statistics(result)


def _stats_config(
    recipe: str | None, sets: list[str], flags: dict[str, Any], max_grid: str | None, rules: str | None
) -> StatsConfig:
    """The configuration of statistics: default < recipe < --set < flag.

    Raises:
        BluelmError: flags that cannot work, all of them together.
    """
    from stages.tile_stats import StatsConfig

    raise_all(flag_problems(flags, max_grid, rules))
    flags = {**flags, "rules": compared_rules(False, rules) or None}
    return _loaded(StatsConfig, recipe, sets, flags, max_grid, rules)


def _config(
    recipe: str | None, sets: list[str], flags: dict[str, Any], max_grid: str | None, rules: str | None
) -> TileConfig:
    """The configuration of tiling: default < recipe < --set < flag.

    Raises:
        BluelmError: flags that cannot work, all of them together.
    """
    from stages.tile import TileConfig

    return _loaded(TileConfig, recipe, sets, flags, max_grid, rules)


def _corpus_config(
    recipe: str | None, sets: list[str], flags: dict[str, Any], max_grid: str | None, rules: str | None
) -> TileCorpusConfig:
    """The configuration of tiling a corpus: default < recipe < --set < flag.

    Raises:
        BluelmError: flags that cannot work, all of them together.
    """
    from stages.tile_corpus import TileCorpusConfig

    return _loaded(TileCorpusConfig, recipe, sets, flags, max_grid, rules)


def _loaded(
    model: type[Config],
    recipe: str | None,
    sets: list[str],
    flags: dict[str, Any],
    max_grid: str | None,
    rules: str | None,
) -> Config:
    from stages.artifacts.recipes import load_config

    raise_all(flag_problems(flags, max_grid, rules))
    grid = parse_grid(max_grid) if max_grid is not None else None
    if grid is not None:
        flags = {**flags, "max_cols": grid.cols, "max_rows": grid.rows}
    config = load_config(model, recipe=recipe, sets=sets, flags=flags)
    # A recipe's max_tiles would hide the flag's grid.
    return config if grid is None else config.model_copy(update={"max_tiles": None})
