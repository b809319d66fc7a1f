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
    held = ("weights", "gradients", "optimizer")
    rows = [
        [part, found["parameters"], found["trained"], *(_mib(found["memory"][name]) for name in held)]
        for part, found in plan["parts"].items()
    ]
    columns = ["part", "parameters", "trained", *held]
    console.emit_table(f"{plan['stage']}: what is trained, and what a device holds", columns, rows)
    groups = [
        [f"{found['learning_rate']:.4g}", found["weight_decay"], found["method"], found["tensors"], found["parameters"]]
        for found in plan["groups"]
    ]
    console.emit_table(
        "optimizer groups", ["peak learning rate", "weight decay", "method", "tensors", "parameters"], groups
    )
    console.emit_table("the run", ["what", "value"], [*_facts(plan), *_measured(plan.get("measured"))])


def _facts(plan: dict[str, Any]) -> list[list[Any]]:
    batch = f"{plan['samples_per_device']} a device × {plan['accumulation']} passes × {plan['processes']} processes"
    passes = plan["passes_over_the_data"]
    shared = f" (fsdp2: shared by {plan['processes']})" if plan["sharding"] == "fsdp2" else ""
    memory = {name.replace("_", " "): _mib(value) for name, value in plan["memory"].items()}
    return [
        ["steps", plan["steps"]],
        ["global batch", f"{plan['global_batch']} = {batch}"],
        ["conversations", plan["conversations"]],
        ["passes over the data", None if passes is None else f"{passes:.2f}"],
        ["tokens per step", f"{plan['tokens_per_step']:,}"],
        ["tiles per step", f"{plan['tiles_per_step']:,}"],
        *[[f"memory of a device: {name}", f"{text}{shared}"] for name, text in memory.items()],
    ]


def _measured(found: dict[str, Any] | None) -> list[list[Any]]:
    if found is None:
        return []
    steps = ", ".join(f"{seconds:.3g}" for seconds in found["seconds_of_steps"])
    return [
        ["measured: seconds of a step", f"{found['seconds_per_step']:.3g} (median of {steps})"],
        ["measured: tokens per second", f"{found['tokens_per_s']:,.0f}"],
        ["measured: most memory", _mib(found["peak_memory"])],
        ["estimate: the whole training", _duration(found["seconds_of_training"])],
    ]


def _mib(value: int) -> str:
    return f"{value / _MIB:,.0f} MiB"


def _duration(seconds: float) -> str:
    """In the two largest units that it has."""
    parts: list[str] = []
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(round(seconds), size)
        if count or parts:
            parts.append(f"{count:,} {unit}")
    return " ".join(parts[:2]) or "less than a second"


def show_result(result: dict[str, Any], as_json: bool) -> None:
    """Prints what a training stage made."""
    if as_json:
        console.emit_json(result)
        return
    data = result["data"]
    rate, eval_loss = result["samples_per_s"], result["eval_loss"]
    rows = [
        ["checkpoint", result["path"]],
        ["digest", result["digest"][:12]],
        ["steps", result["steps"]],
        ["loss, first and last", f"{result['loss_first']:.4f} → {result['loss_last']:.4f}"],
        *([] if eval_loss is None else [["loss on held-out data", f"{eval_loss:.4f}"]]),
        ["trained parameters", f"{result['trained_parameters']:,} of {result['parameters']:,}"],
        ["samples", f"{data['samples']:,} ({data['cut']} cut, {data['left_out']} left out)"],
    ]
    if rate is None:
        rows.append(["speed", "not run: up to date"])
    else:
        tokens = f"{result['tokens_per_s']:,.0f} tokens/s ({result['learned_tokens_per_s']:,.0f} learned)"
        rows += [
            ["speed", f"{rate:.1f} samples/s, {tokens}, {result['seconds_training']:.1f} s"],
            ["padding", f"{result['padding']:.1%}"],
            ["curve", f"{result['path']}/loss.png, training.csv"],
        ]
    console.emit_table("trained", ["what", "value"], rows)
