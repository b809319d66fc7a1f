"""What `pretrain` and `finetune` show: the plan of a training stage, and what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bluelm_cli import console
from stages.artifacts.errors import UsageError

_MIB = 1 << 20


def require_out(out: Path | None, command: str) -> Path:
    """The output folder.

    Raises:
        UsageError: none was given.
    """
    if out is None:
        raise UsageError(
            "--out is missing.", "The trained checkpoint needs a folder.", f"bluelm {command} … --out CHECKPOINT"
        )
    return out


def show_plan(plan: dict[str, Any], as_json: bool) -> None:
    """Prints a resolved plan."""
    if as_json:
        console.emit_json(plan)
        return
    rows = [[part, found["parameters"], found["trained"]] for part, found in plan["parts"].items()]
    console.emit_table(f"{plan['stage']}: what is trained", ["part", "parameters", "trained"], rows)
    groups = [
        [f"{found['learning_rate']:.4g}", found["weight_decay"], found["method"], found["tensors"], found["parameters"]]
        for found in plan["groups"]
    ]
    console.emit_table(
        "optimizer groups", ["peak learning rate", "weight decay", "method", "tensors", "parameters"], groups
    )
    batch = f"{plan['samples_per_device']} a device × {plan['accumulation']} passes × {plan['processes']} processes"
    passes = plan["passes_over_the_data"]
    memory = {name: f"{value / _MIB:,.0f} MiB" for name, value in plan["memory"].items()}
    facts = [
        ["steps", plan["steps"]],
        ["global batch", f"{plan['global_batch']} = {batch}"],
        ["conversations", "a stream" if plan["conversations"] is None else plan["conversations"]],
        ["passes over the data", "?" if passes is None else f"{passes:.2f}"],
        ["tokens per step", f"{plan['tokens_per_step']:,}"],
        ["tiles per step", f"{plan['tiles_per_step']:,}"],
        *[[f"memory: {name.replace('_', ' ')}", text] for name, text in memory.items()],
    ]
    console.emit_table("the run", ["what", "value"], facts)


def show_result(result: dict[str, Any], as_json: bool) -> None:
    """Prints what a training stage made."""
    if as_json:
        console.emit_json(result)
        return
    data = result["data"]
    rate = result["samples_per_s"]
    rows = [
        ["checkpoint", result["path"]],
        ["digest", result["digest"][:12]],
        ["steps", result["steps"]],
        ["loss, first and last", f"{result['loss_first']:.4f} → {result['loss_last']:.4f}"],
        ["trained parameters", f"{result['trained_parameters']:,} of {result['parameters']:,}"],
        ["samples", f"{data['samples']:,} ({data['cut']} cut, {data['left_out']} left out)"],
        [
            "speed",
            "not run: up to date" if rate is None else f"{rate:.1f} samples/s, {result['seconds_training']:.1f} s",
        ],
    ]
    console.emit_table("trained", ["what", "value"], rows)
