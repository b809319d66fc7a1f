"""`bluelm data pages`: flags -> stages.data_pages -> a table, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Seed, Set
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.data_pages import PagesResult


def pages(
    pdfs: Annotated[list[Path], typer.Argument(metavar="PDF...", help="PDFs, or folders that hold some.")],
    pages: Annotated[str | None, typer.Option("--pages", help="Which pages of each, such as 1-3,7,10-.")] = None,
    regions: Annotated[int | None, typer.Option("--regions", help="Most pictures from one page.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="Greatest width of a picture, in pixels.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="Greatest height of a picture, in pixels.")] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    seed: Seed = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Cut pictures out of PDFs and ask for the text that the PDFs themselves say stands there.

    What cannot be used (encrypted, broken, without text) is named and left out.

    Example: bluelm data pages papers/ --pages 1-10 --out build/pages

    Example: bluelm data pages report.pdf --width 768 --height 768 --regions 8 --out build/report
    """
    from stages import data_pages as stage
    from stages.artifacts.recipes import load_config

    flags = {"pages": pages, "regions": regions, "width": width, "height": height, "seed": seed}
    config = load_config(stage.PagesConfig, recipe=recipe, sets=sets or [], flags=flags)
    if dry_run:
        result = stage.plan(config, pdfs, out)
    elif out is None:
        raise UsageError("--out is missing.", "data pages writes a corpus.", "Add --out FOLDER, or --dry-run.")
    else:
        result = console.drive(stage.run(config, pdfs, out, force=force))
    if as_json:
        console.emit_json({**result.as_dict(), "dry_run": dry_run})
    else:
        _show(result, dry_run)


def _show(result: PagesResult, dry_run: bool) -> None:
    if dry_run:
        console.emit_table("PDFs that would be read", ["file"], [[name] for name in result.files])
        return
    splits = result.index.splits
    tasks = sorted({task for count in splits.values() for task in count.questions})
    rows = [[task, *(count.questions.get(task, 0) for count in splits.values())] for task in tasks]
    rows.append(["pictures", *(count.pictures for count in splits.values())])
    console.emit_table(f"corpus in {result.out}", ["questions", *splits], rows)
    if result.skipped:
        console.emit_text(f"{len(result.skipped)} files or pages gave nothing.")
    if result.repeated:
        console.emit_text(f"{result.repeated} held-out questions left out: training shows the same lines.")
