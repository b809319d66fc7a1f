"""`bluelm encode`: flags -> stages.encode, or stages.encode_corpus before the connector -> a table, or JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.options import DataFormat, Device, DryRun, Dtype, Force, Images, Json, Out, Recipe, Set, Threads
from bluelm_cli.tiling_flags import parse_grid
from bluelm_cli.tuned import Profile, measured, tell
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.device.imaging.geometry import Grid
    from stages.encode import EncodeResult


def encode(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] PICTURES...",
            help="An exported model (default: the demo's), then pictures, folders of pictures, LLaVA JSON files or "
            "corpus folders. With --before-connector also a checkpoint or a SigLIP folder, then any data that is read.",
        ),
    ],
    batch: Annotated[int | None, typer.Option("--batch", help="Tiles per batch (default: 1; Fig. 7: 4).")] = None,
    profile: Profile = None,
    no_pipeline: Annotated[
        bool, typer.Option("--no-pipeline", help="Embed patches and run the ViT blocks one after the other.")
    ] = False,
    before_connector: Annotated[
        bool,
        typer.Option("--before-connector", help="Shards of the ViT's own features (float16), for pretrain --features."),
    ] = False,
    max_grid: Annotated[
        str | None,
        typer.Option(
            "--max-grid",
            metavar="COLSxROWS",
            help="Before the connector: largest grid (default: the model's; stage 1 of the paper: 1x1).",
        ),
    ] = None,
    images: Images = None,
    data_format: DataFormat = None,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    threads: Threads = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Encode pictures into the features that the language model reads, ahead of time.

    Example: bluelm encode photo.png screens/ --out build/features

    Example: bluelm encode CHECKPOINT data/corpus --before-connector --max-grid 1x1 --out build/vit-features
    """
    from stages.device.runtime.shipped import model_or_shipped, split_model

    named, pictures = split_model(paths)
    model = model_or_shipped(named)
    if not dry_run and out is None:
        raise UsageError(
            "--out is missing.", "encode writes a folder of features.", "Add --out FOLDER, or --dry-run to see sizes."
        )
    flags = {"batch": batch, "threads": threads, "pipeline": False if no_pipeline else None}
    asked = _Asked(model, pictures, out, recipe, sets or [], force, dry_run, as_json)
    if before_connector:
        if profile is not None:
            raise UsageError(
                "--profile with --before-connector.", "A profile tells how to run an exported model.", "Leave it out."
            )
        _encode_corpus(asked, {**flags, "device": device, "dtype": dtype}, _grid(max_grid), images, data_format)
        return
    only = {"--max-grid": max_grid, "--images": images, "--format": data_format, "--device": device, "--dtype": dtype}
    if wrong := [flag for flag, value in only.items() if value is not None]:
        raise UsageError(
            f"{', '.join(wrong)} given without --before-connector.",
            "An exported model computes as it was exported, from pictures tiled as its device.json says.",
            "Leave it away, or add --before-connector.",
        )
    _encode(asked, flags, profile)


@dataclass(frozen=True)
class _Asked:
    """What both ways of encoding are asked for."""

    model: Path
    pictures: list[Path]
    out: Path | None
    recipe: str | None
    sets: list[str]
    force: bool
    dry_run: bool
    as_json: bool


def _encode(asked: _Asked, flags: dict[str, Any], profile: Path | None) -> None:
    from stages import encode as stage
    from stages.artifacts.recipes import load_config

    suited = measured(asked.model, profile, ("batch", "threads"))
    config = load_config(stage.EncodeConfig, recipe=asked.recipe, sets=asked.sets, flags=flags, measured=suited)
    tell(suited, config, profile)
    if asked.dry_run or asked.out is None:
        result = stage.plan(config, asked.model, asked.pictures, asked.out)
    else:
        result = console.drive(stage.run(config, asked.model, asked.pictures, asked.out, force=asked.force))
    if asked.as_json:
        console.emit_json({**result.as_dict(), "dry_run": asked.dry_run})
    else:
        _show(result, asked.dry_run)


def _encode_corpus(
    asked: _Asked, flags: dict[str, Any], grid: Grid | None, images: Path | None, data_format: str | None
) -> None:
    from stages import encode_corpus as stage
    from stages.artifacts.recipes import load_config

    sets = asked.sets if grid is None else [*asked.sets, f"tiling.max_cols={grid.cols}", f"tiling.max_rows={grid.rows}"]
    config = load_config(stage.EncodeCorpusConfig, recipe=asked.recipe, sets=sets, flags=flags)
    found: dict[str, Any] = {"images": images, "data_format": data_format}
    if asked.dry_run or asked.out is None:
        result = stage.plan(config, asked.model, asked.pictures, asked.out, **found)
    else:
        events = stage.run(config, asked.model, asked.pictures, asked.out, force=asked.force, **found)
        result = console.drive(events)
    if asked.as_json:
        console.emit_json({**result.as_dict(), "dry_run": asked.dry_run})
    else:
        _show_corpus(result.as_dict(), asked.dry_run)


def _grid(max_grid: str | None) -> Grid | None:
    """Raises: UsageError: it is no grid."""
    grid = parse_grid(max_grid) if max_grid is not None else None
    if max_grid is not None and grid is None:
        raise UsageError(
            f"--max-grid {max_grid!r} is not a grid.",
            "It is the most columns and rows, each from 1 to 64.",
            "Write it like --max-grid 1x1.",
        )
    return grid


def _show_corpus(found: dict[str, Any], dry_run: bool) -> None:
    tiling = found["tiling"]
    box = f"{tiling['max_cols']}x{tiling['max_rows']}"
    most = f"{tiling['max_tiles']} tiles" if tiling["max_tiles"] else box
    rows: list[list[Any]] = [
        ["pictures", found["pictures"]],
        ["tiles", f"{found['tiles']:,} ({tiling['rule']}, at most {most})"],
        ["bytes", f"{found['bytes']:,} ({found['tile_bytes']:,} a tile) in {found['shards']:,} shards"],
    ]
    if found["encoder"] is not None:
        rows.append(["encoder", found["encoder"][:12]])
    if found["duplicates"] is not None:
        rows.append(["written once, named again", found["duplicates"]])
        rows.append(["broken, left out", len(found["broken"])])
    if found["bad_rows"]:
        rows.append(["rows that cannot be used", found["bad_rows"]])
    if found["tiles_per_s"] is not None:
        rows.append(["speed", f"{found['tiles_per_s']:.1f} tiles/s, {found['seconds']:.1f} s"])
    title = (
        f"vit-features that would be written to {found['out'] or '--out'}"
        if dry_run
        else f"vit-features in {found['out']}"
    )
    console.emit_table(title, ["what", "value"], rows)


def _show(result: EncodeResult, dry_run: bool) -> None:
    rows = []
    for image in result.images:
        tiling = image.tiling
        grid = f"{tiling.grid.cols}:{tiling.grid.rows}"
        rows.append([str(image.picture.path), grid, tiling.tiles, tiling.tokens, image.bytes, image.seconds])
    place = f" {'that would be written to' if dry_run else 'in'} {result.out}" if result.out else ""
    title = f"features{place}"
    console.emit_table(title, ["picture", "grid", "tiles", "tokens", "bytes", "seconds"], rows)
    total = f"{len(result.images)} pictures, {result.tiles} tiles, {result.tokens} tokens, {result.bytes:,} bytes"
    if result.ms_per_tile is not None:
        total += f"; {result.ms_per_tile:.1f} ms a tile in batches of {result.batch}"
    console.emit_text(total)
