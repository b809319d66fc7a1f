"""`bluelm data mix`: flags -> stages.data_mix -> tables, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Seed, Set
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.data_mix import MixResult
    from stages.workshop.corpus.mixture import Mixture


def mix(
    sources: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="NAME=PATH", help="Where a source of the recipe lies (repeatable)."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", metavar="NAME=DIR", help="Where a source's pictures lie, if not beside it."),
    ] = None,
    total: Annotated[str | None, typer.Option("--total", metavar="N|all", help="Rows to draw.")] = None,
    repeat: Annotated[
        float | None, typer.Option("--repeat", help="How often a row of a small source may come (default 1).")
    ] = None,
    heldout: Annotated[
        str | None,
        typer.Option(
            "--heldout",
            metavar="SHARE|N|own",
            help="Keep rows apart; no picture is on both sides. own: the sources' own held-out splits.",
        ),
    ] = None,
    renormalize: Annotated[
        bool, typer.Option("--renormalize", help="Give the shares of sources that are not given to others.")
    ] = False,
    fill: Annotated[
        bool, typer.Option("--fill", help="Give the places of sources that are too small to others.")
    ] = False,
    copy_pictures: Annotated[
        bool, typer.Option("--copy-pictures", help="Copy pictures into the corpus instead of referring to them.")
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="Count tokens with it: a tokenizer.json, or its folder.")
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    seed: Seed = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Draw one corpus from several sources in given shares, shuffled.

    Sources are anything that training reads, of any size: they are read row
    by row. What was drawn is told beside what was asked for.

    Example: bluelm data mix --source qa=llava.json --images qa=pictures
    --source rendered=build/corpus --heldout 0.01 --out build/mixture

    Example: bluelm data mix --recipe mix-table1.yaml --total 100000
    --source vqa-public=llava.json --renormalize --out build/mixture
    """
    from stages import data_mix as stage
    from stages.artifacts.recipes import load_config
    from stages.workshop.corpus.mixture import Mixture

    named: dict[str, dict[str, str]] = {}
    for flag, key, words in (("--source", "path", sources), ("--images", "images", images)):
        for word in words or []:
            name, value = _name_and_path(flag, word)
            named.setdefault(name, {})[key] = value
    flags = {
        "sources": named or None,
        "total": _number(total),
        "repeat": repeat,
        "heldout": _heldout(heldout),
        "renormalize": renormalize or None,
        "fill": fill or None,
        "seed": seed,
    }
    config = load_config(Mixture, recipe=recipe, sets=sets or [], flags=flags)
    _check_images(named, config)
    if dry_run:
        result = console.drive(stage.plan(config, out))
    elif out is None:
        raise UsageError(
            "--out is missing.",
            "data mix writes a corpus.",
            "Add --out FOLDER, or --dry-run to see what it would hold.",
        )
    else:
        events = stage.run(config, out, copy_pictures=copy_pictures, tokenizer=tokenizer, force=force)
        result = console.drive(events)
    if as_json:
        console.emit_json({**result.as_dict(), "dry_run": dry_run})
    else:
        _show(result, dry_run)


def _name_and_path(flag: str, word: str) -> tuple[str, str]:
    name, equals, path = word.partition("=")
    if not equals or not name or not path:
        raise UsageError(f"{flag} {word} has no name and path.", "A source has both.", f"Write {flag} NAME=PATH")
    return name, path


def _check_images(named: Mapping[str, Mapping[str, str]], config: Mixture) -> None:
    """Pictures of a source that is nowhere named would make one of that name without rows."""
    for name, given in named.items():
        if config.sources[name].path is None and "images" in given:
            raise UsageError(
                f"--images {name}={given['images']} is for a source that is not given.",
                "There are no rows that its pictures go with.",
                f"Add --source {name}=PATH, or mend the name. Sources: {', '.join(config.given) or 'none'}.",
            )


def _number(total: str | None) -> int | str | None:
    """A number where it is one; anything else is the recipe's to refuse."""
    return int(total) if total is not None and total.isdecimal() else total


def _heldout(given: str | None) -> dict[str, Any] | None:
    """A share below 1, a number of rows, or the sources' own."""
    if given is None:
        return None
    if given == "own":
        return {"own": True}
    if given.isdecimal() and int(given) > 0:
        return {"rows": int(given)}
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        fix = "Write a share below 1, as 0.01, a number of rows, as 500, or own."
        raise UsageError(
            f"--heldout {given} is neither a share nor a number.", "How much to keep apart is unclear.", fix
        )
    return {"share": share}


def _show(result: MixResult, dry_run: bool) -> None:
    report = result.report
    where = f" {'that would be written to' if dry_run else 'in'} {result.out}" if result.out else ""
    counted = any(source["tokens"] is not None for source in report["sources"])
    columns = ["source", "category", "rows", "wanted", "drawn", "times", "asked %", "aimed %", "drawn %"]
    columns += ["pictures", "heldout"]
    rows = [
        [
            source["name"],
            source["category"],
            source["rows"],
            source["wanted"],
            source["drawn"],
            round(source["times"], 2),
            _percent(source["share_asked"]),
            _percent(source["share_aimed"]),
            _percent(source["share_drawn"]),
            source["pictures"],
            source["heldout"],
            *([source["tokens"]] if counted else []),
        ]
        for source in report["sources"]
    ]
    console.emit_table(f"mixture{where}", [*columns, "tokens"] if counted else columns, rows)
    if report["categories"]:
        categories = [
            [item["name"], item["rows"], item["drawn"], _percent(item["share_asked"]), _percent(item["share_drawn"])]
            for item in report["categories"]
        ]
        console.emit_table("by category", ["category", "rows", "drawn", "asked %", "drawn %"], categories)
    asked = report["asked_rows"]
    console.emit_text(f"{report['rows']:,} rows" + (f" of {asked:,} asked for" if isinstance(asked, int) else ""))


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
