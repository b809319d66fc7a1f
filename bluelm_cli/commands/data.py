"""`bluelm data`: the group, and its subcommands in the order in which they are used."""

from __future__ import annotations

import typer

from bluelm_cli.commands.data_check import check
from bluelm_cli.commands.data_mix import mix
from bluelm_cli.commands.data_pages import pages
from bluelm_cli.commands.data_render import render
from bluelm_cli.commands.data_revise import revise

data = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Make the conversations that a model learns from and is asked.\n\n"
    "Example: bluelm data render --task colour --task shape --out build/corpus",
)


@data.callback()
def group() -> None:
    """Make the conversations that a model learns from and is asked.

    Example: bluelm data render --task colour --task shape --out build/corpus
    """


data.command("render")(render)
data.command("pages")(pages)
data.command("mix")(mix)
data.command("check")(check)
data.command("revise")(revise)
