"""`bluelm split`: a part of a checkpoint as a folder of its own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import Force, Json, Out, Recipe, Set
from bluelm_cli.training_report import require_out


class PartName(StrEnum):
    """Parts of a checkpoint."""

    tower = "tower"
    language = "language"


def split(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="What pretrain or finetune wrote.")],
    part: Annotated[PartName, typer.Option("--part", help="tower: the SigLIP; language: the model of language.")],
    out: Out = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float16, bfloat16 or float32.", show_default="float16")
    ] = None,
    recipe: Recipe = None,
    sets: Set = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the tower or the language model of a checkpoint as a plain transformers folder.

    Example: bluelm split build/text-model --part language --out build/language
    """
    from stages import split as stage
    from stages.artifacts.recipes import load_config

    config = load_config(stage.SplitConfig, recipe, sets or (), {"part": part.value, "dtype": dtype})
    result = console.drive(stage.run(config, checkpoint, require_out(out, "split"), force)).as_dict()
    if as_json:
        console.emit_json(result)
        return
    console.emit_table(f"{result['part']}", ["what", "value"], [[name, value] for name, value in result.items()])
