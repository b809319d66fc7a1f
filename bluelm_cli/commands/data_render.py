"""`bluelm data render`: flags -> stages.data_render -> a table, or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Seed, Set, Threads
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.data_render import RenderResult


def render(
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", help="What to draw and ask (repeatable): colour, count, word, line, table … "),
    ] = None,
    train: Annotated[int | None, typer.Option("--train", help="Training pictures.")] = None,
    heldout: Annotated[int | None, typer.Option("--heldout", help="Held-out questions per task.")] = None,
    side: Annotated[int | None, typer.Option("--side", help="Side of a picture of one tile, in pixels.")] = None,
    fonts: Annotated[
        list[str] | None, typer.Option("--fonts", help="A folder with fonts, beside typst's own (repeatable).")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="K/N", help="Draw only part K of N; data mix joins them.")
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    seed: Seed = None,
    threads: Threads = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Draw pictures and ask about them; the held-out split shares no picture, pair or text with training.

    Example: bluelm data render --task colour --task shape --train 2000 --out build/corpus

    Example: bluelm data render --task word --task table --side 224 --seed 7 --out build/reading

    Example: bluelm data render --recipe render.yaml --fonts ~/fonts --shard 2/8 --out build/pages-2
    """
    from stages import data_render as stage
    from stages.artifacts.recipes import load_config

    flags = {"tasks": tasks or None, "train": train, "heldout": heldout, "side": side, "seed": seed}
    flags |= {"fonts": fonts or None, **_shard(shard)}
    config = load_config(stage.RenderConfig, recipe=recipe, sets=sets or [], flags=flags)
    if dry_run:
        result = stage.plan(config, out)
    elif out is None:
        raise UsageError(
            "--out is missing.", "data render writes a corpus.", "Add --out FOLDER, or --dry-run to see what it holds."
        )
    else:
        result = console.drive(stage.run(config, out, force=force, threads=threads))
    if as_json:
        console.emit_json({**result.as_dict(), "dry_run": dry_run})
    else:
        _show(result, dry_run)


def _shard(given: str | None) -> dict[str, int]:
    if given is None:
        return {}
    shard, _, shards = given.partition("/")
    if not (shard.isdecimal() and shards.isdecimal()):
        raise UsageError(
            f"--shard {given} is not K/N.", "It says which part of how many is drawn.", "Write, say, --shard 1/4."
        )
    return {"shard": int(shard), "shards": int(shards)}


def _show(result: RenderResult, dry_run: bool) -> None:
    splits = result.index.splits
    tasks = sorted({task for count in splits.values() for task in count.questions})
    rows = [[task, *(count.questions.get(task, 0) for count in splits.values())] for task in tasks]
    rows.append(["pictures", *(count.pictures for count in splits.values())])
    title = f"corpus {'that would be written to' if dry_run else 'in'} {result.out}" if result.out else "corpus"
    console.emit_table(title, ["questions", *splits], rows)
    if result.bytes is not None:
        console.emit_text(f"{result.bytes:,} bytes")
