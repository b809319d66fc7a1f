"""`bluelm export --target npu`: static QDQ graphs, context binaries for chips, their agreement on the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluelm_cli import console
from stages.artifacts.errors import BluelmError, UsageError, raise_all

if TYPE_CHECKING:
    from stages.export_npu import ExportNpuPlan, ExportNpuResult

MEBIBYTE = 1 << 20
TARGETS = ("cpu", "npu")
# What the graphs for a CPU have and static ones have not.
CPU_FLAGS = ("kv", "activations", "embedding", "tolerance")


@dataclass(frozen=True)
class Shown:
    """What is asked for instead of, or beside, the work."""

    dry_run: bool
    as_json: bool


def wanted(target: str, flags: Mapping[str, Any], npu_flags: Mapping[str, Any]) -> bool:
    """Whether the export is for an NPU.

    Raises:
        UsageError: an unknown target, or flags of the other one; all of them together.
    """
    if target not in TARGETS:
        raise UsageError(
            f"--target {target}: there is no such target.",
            "It decides which graphs are written.",
            f"Choose one of {', '.join(TARGETS)}.",
        )
    foreign = npu_flags if target == "cpu" else {name: flags[name] for name in CPU_FLAGS}
    problems: list[BluelmError] = [
        UsageError(
            f"--{name.replace('_', '-')} does not go with --target {target}.",
            "It would be ignored." if target == "cpu" else "Static graphs have INT16 activations and an INT8 cache.",
            "Add --target npu." if target == "cpu" else "Leave it out.",
        )
        for name, value in foreign.items()
        if value
    ]
    raise_all(problems)
    return target == "npu"


def export(
    checkpoint: Path,
    out: Path | None,
    flags: Mapping[str, Any],
    data: Path | None,
    soc: Sequence[str],
    python: Path | None,
    recipe: str | None,
    sets: Sequence[str],
    force: bool,
    shown: Shown,
) -> None:
    """Runs the stage and prints what it made."""
    from stages import export_npu as stage
    from stages.artifacts.recipes import load_config

    chosen = {name: flags[name] for name in ("max_context", "batch", "verify")}
    chosen["soc"] = tuple(soc) or None
    config = load_config(stage.ExportNpuConfig, recipe, sets, chosen)
    if shown.dry_run:
        _show_plan(stage.plan(config, checkpoint, data, python), shown.as_json)
        return
    if out is None:
        raise UsageError("--out is missing.", "The graphs need a folder.", "Add --out FOLDER, or look with --dry-run.")
    result = console.drive(stage.run(config, checkpoint, data, out, python=python, force=force))
    if shown.as_json:
        console.emit_json(result.as_dict())
        return
    _show(result)


def _show_plan(plan: ExportNpuPlan, as_json: bool) -> None:
    if as_json:
        console.emit_json(plan.as_dict())
        return
    chips = ", ".join(plan.config.soc) or "no chip"
    title = f"{plan.device.name}: {plan.capacity} positions, chunks of {plan.config.chunk}, for {chips}"
    rows = [[name, round(size / MEBIBYTE, 2)] for name, size in plan.sizes.items()]
    console.emit_table(title, ["binary", "MiB that the NPU addresses (about)"], rows)


def _show(result: ExportNpuResult) -> None:
    for chip, report in result.chips.items():
        if rows := [[graph, seconds] for graph, seconds in report["seconds"].items()]:
            console.emit_table(f"compiled for {chip}, nothing on the CPU", ["graph", "seconds"], rows)
        if (agreement := report.get("agreement")) is not None:
            row = [agreement[key] for key in ("questions", "tokens", "same", "whole_answers")]
            columns = ["questions", "tokens", "as in the simulation", "whole answers alike"]
            console.emit_table(f"{chip}: on the simulator", columns, [row])
    rows = [[name, round(size / MEBIBYTE, 2)] for name, size in result.files.items()]
    console.emit_table(f"{result.out}", ["file", "MiB"], rows)
