"""`bluelm tile --out` of more pictures than one file should hold: when that is so, and what is printed of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluelm_cli import console
from stages.artifacts.errors import BluelmError, UsageError

if TYPE_CHECKING:
    from stages.tile_corpus import TileCorpusConfig, TileCorpusResult
    from stages.workshop.corpus.tile_engines import Engine

ENGINES = ("local", "ray")
_OWN_KEYS = ("pictures_per_shard", "shard_format", "skip_broken", "scaler")


def engine_problems(engine: str | None, out: Path | None) -> list[BluelmError]:
    """What is wrong with `--engine`."""
    if engine is None:
        return []
    problems: list[BluelmError] = []
    if engine not in ENGINES:
        what = f"--engine {engine} does not exist."
        problems.append(UsageError(what, "It says who cuts the tiles.", f"Engines: {', '.join(ENGINES)}."))
    if out is None:
        what = "--engine cuts tiles, and --out is missing."
        problems.append(UsageError(what, "They must go somewhere.", "Name a folder: --out FOLDER"))
    return problems


def is_corpus(inputs: Sequence[Path], sets: Sequence[str], engine: str | None) -> bool:
    """Whether tiles of these inputs go into shards: they are many, in shards themselves, or that is asked for."""
    if engine is not None or any(word.split("=")[0] in _OWN_KEYS for word in sets):
        return True
    from stages.tile_corpus import TileCorpusConfig
    from stages.workshop.corpus.picture_listing import wants_shards

    return wants_shards(inputs, TileCorpusConfig().pictures_per_shard)


def tile_corpus(
    config: TileCorpusConfig,
    inputs: Sequence[Path],
    out: Path,
    engine: str | None,
    processes: int | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Cuts a corpus, or says what would be cut."""
    from stages import tile_corpus as stage

    for text in config.warnings(False):
        console.note(text, warning=True)
    if dry_run:
        result = stage.plan(config, inputs, out=out)
    else:
        chosen: Engine = "ray" if engine == "ray" else "local"
        events = stage.run(config, inputs, out=out, force=force, engine=chosen, processes=processes)
        result = console.drive(events)
    if as_json:
        console.emit_json({**result.as_dict(), "dry_run": dry_run})
    else:
        console.emit_text(_told(result, dry_run))


def _told(result: TileCorpusResult, dry_run: bool) -> str:
    shards = f"{result.shards:,} shard{'s' if result.shards != 1 else ''}"
    if dry_run:
        return f"{result.pictures:,} pictures would be cut into {shards} in {result.out}"
    made: dict[str, Any] = result.as_dict()
    text = f"{result.pictures:,} pictures, {made['tiles']:,} tiles, {made['tokens']:,} tokens, "
    text += f"{made['bytes'] / 2**20:,.1f} MiB in {shards} in {result.out}"
    text += f", {result.broken:,} broken pictures left out" if result.broken else ""
    rate = made["tiles_per_second"]
    return text + (f" ({rate:,.0f} tiles/s)" if rate else "")
