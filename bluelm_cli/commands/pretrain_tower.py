"""`bluelm pretrain-tower`: a vision tower that reads, to start stage 1 from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.options import Device, DryRun, Dtype, Force, Json, Out, Seed, Set, Threads
from bluelm_cli.training_report import require_out


def pretrain_tower(
    recipe: Annotated[str, typer.Option("--recipe", help="A YAML recipe: a file, or one that comes with bluelm.")],
    out: Out = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Go on from this tower; without it weights are random.")
    ] = None,
    fonts: Annotated[
        list[str] | None, typer.Option("--fonts", help="A folder with the recipe's fonts (repeatable).")
    ] = None,
    sets: Set = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a small vision tower to read printed text; pretrain --vision starts from it.

    Interrupted, the same command goes on where it stopped.

    Example: bluelm pretrain-tower --recipe base/tower.yaml --fonts build/fonts --out build/tower
    """
    from stages import pretrain_tower as stage
    from stages.artifacts.recipes import load_config
    from stages.workshop.training.machine import Machine

    flags = {"seed": seed, "dtype": dtype, "fonts": fonts}
    config = load_config(stage.PretrainTowerConfig, recipe, sets or (), flags)
    if dry_run:
        show(stage.plan(config, start).as_dict(), "what would be trained", as_json)
        return
    machine = Machine(device=device, threads=threads)
    result = console.drive(stage.run(config, machine, require_out(out, "pretrain-tower"), force, start))
    show(result.as_dict(), "a tower that reads", as_json)


def show(found: dict[str, Any], title: str, as_json: bool) -> None:
    """Prints a plan or a result."""
    if as_json:
        console.emit_json(found)
        return
    plain = {**found, **found.get("reading", {})}
    rows = [[name, value] for name, value in plain.items() if isinstance(value, str | int | float)]
    console.emit_table(title, ["what", "value"], rows)
