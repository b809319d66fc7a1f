"""`bluelm encode`: flags -> stages.encode -> a table, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Set, Threads
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.encode import EncodeResult


def encode(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] PICTURES...",
            help="An exported model (default: the demo's), then pictures, folders of pictures, LLaVA JSON files or "
            "corpus folders.",
        ),
    ],
    batch: Annotated[int | None, typer.Option("--batch", help="Tiles per batch (default: 1; Fig. 7: 4).")] = None,
    no_pipeline: Annotated[
        bool, typer.Option("--no-pipeline", help="Embed patches and run the ViT blocks one after the other.")
    ] = False,
    before_connector: Annotated[
        bool, typer.Option("--before-connector", help="Keep the ViT's own features (float16), for training.")
    ] = False,
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

    Example: bluelm encode build/onnx data/corpus --before-connector --dry-run
    """
    from stages import encode as stage
    from stages.artifacts.recipes import load_config
    from stages.device.runtime.shipped import model_or_shipped, split_model

    flags = {
        "batch": batch,
        "threads": threads,
        "pipeline": False if no_pipeline else None,
        "before_connector": before_connector or None,
    }
    config = load_config(stage.EncodeConfig, recipe=recipe, sets=sets or [], flags=flags)
    named, pictures = split_model(paths)
    model = model_or_shipped(named)
    if dry_run:
        result = stage.plan(config, model, pictures, out)
    elif out is None:
        raise UsageError(
            "--out is missing.", "encode writes a folder of features.", "Add --out FOLDER, or --dry-run to see sizes."
        )
    else:
        result = console.drive(stage.run(config, model, pictures, out, force=force))
    if as_json:
        console.emit_json({**result.as_dict(), "dry_run": dry_run})
    else:
        _show(result, dry_run)


def _show(result: EncodeResult, dry_run: bool) -> None:
    rows = []
    for image in result.images:
        tiling = image.tiling
        grid = f"{tiling.grid.cols}:{tiling.grid.rows}"
        rows.append([str(image.picture.path), grid, tiling.tiles, tiling.tokens, image.bytes, image.seconds])
    title = (
        f"{result.kind} {'that would be written to' if dry_run else 'in'} {result.out}" if result.out else result.kind
    )
    console.emit_table(title, ["picture", "grid", "tiles", "tokens", "bytes", "seconds"], rows)
    total = f"{len(result.images)} pictures, {result.tiles} tiles, {result.tokens} tokens, {result.bytes:,} bytes"
    if result.ms_per_tile is not None:
        total += f"; {result.ms_per_tile:.1f} ms a tile in batches of {result.batch}"
    console.emit_text(total)
