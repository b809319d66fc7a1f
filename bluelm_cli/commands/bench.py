"""`bluelm bench`: the group; each of its commands is a file beside this one."""

from __future__ import annotations

import typer

from bluelm_cli.commands.bench_accuracy import accuracy
from bluelm_cli.commands.bench_agreement import agreement
from bluelm_cli.commands.bench_compare import compare
from bluelm_cli.commands.bench_estimate import estimate
from bluelm_cli.commands.bench_eval import evaluate
from bluelm_cli.commands.bench_fig5 import fig5
from bluelm_cli.commands.bench_fig7 import fig7
from bluelm_cli.commands.bench_fig8 import fig8
from bluelm_cli.commands.bench_ops import ops
from bluelm_cli.commands.bench_paper import paper
from bluelm_cli.commands.bench_run import run
from bluelm_cli.commands.bench_schema import schema
from bluelm_cli.commands.bench_table import table
from bluelm_cli.commands.bench_table5 import table5
from bluelm_cli.commands.bench_tune import tune
from bluelm_cli.default_group import DefaultGroup

bench = typer.Typer(cls=DefaultGroup, add_completion=False, pretty_exceptions_enable=False)


@bench.callback()
def group() -> None:
    """Measure a model: its speed on this machine, its accuracy, and both in one table.

    A first word that names no command is a model: `bluelm bench MODEL` is `bluelm bench run MODEL`, whose options
    `bluelm bench run --help` lists.

    Example: bluelm bench build/onnx --chunk 128 --chunk 512

    Example: bluelm bench eval build/onnx --data build/corpus --out build/eval
    """


bench.command("run")(run)
bench.command("fig5")(fig5)
bench.command("fig7")(fig7)
bench.command("fig8")(fig8)
bench.command("table5")(table5)
bench.command("tune")(tune)
bench.command("compare")(compare)
bench.command("paper")(paper)
bench.command("schema")(schema)
bench.command("ops")(ops)
bench.command("eval")(evaluate)
bench.command("accuracy")(accuracy)
bench.command("agreement")(agreement)
bench.command("estimate")(estimate)
bench.command("table")(table)
