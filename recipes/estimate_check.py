"""Does `bluelm bench estimate` tell memory and time right? Measures, fits on a few, predicts the others, tabulates.

    python recipes/estimate_check.py measure WORK      one process a configuration, JSON lines into WORK/records.jsonl
    python recipes/estimate_check.py check WORK        fits WORK/device.yaml on four of them, predicts the rest

Both at once, with the weights kept between runs: recipes/estimate_check.sh WORK. All configurations are layers of the
3B shape at their real widths with random weights. Memory and time are measured by processes of
their own, since repeating a stage takes more memory; `BLUELM_PROBE`, a command that keeps the machine quiet for
instance, is put before the timing one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from stages.measure.estimate_check import PEAK_LIMIT, TIME_LIMIT, compare, read_measured
from stages.measure.estimate_device import write_device
from stages.measure.estimate_fit import fit_device
from stages.measure.estimate_plan import Case
from stages.measure.machine import describe_machine
from stages.measure.random_models import ModelChoice, random_model

PRESET = "bluelm-v-3b"
# layers, tower layers, policy, KV; then tiles, tiles a batch, prompt, chunk, tokens written, tower freed.
MODELS = {
    "a": (2, 2, "mix", "int8"),
    "b": (6, 4, "mix", "int8"),
    "c": (4, 6, "paper", "int8"),
    "d": (3, 3, "int8", "float32"),
    "e": (8, 2, "mix", "int8"),
    "f": (4, 4, "paper", "float32"),
}
# The first four are fitted on: they span policies, KV types, chunks, prompts and batches.
CASES = (
    ("a", 1, 1, 512, 256, 16, True),
    ("e", 4, 2, 1536, 512, 16, True),
    ("d", 5, 4, 1024, 512, 16, True),
    ("c", 4, 1, 1024, 512, 16, False),
    ("a", 4, 4, 2048, 512, 16, True),
    ("a", 9, 1, 1024, 128, 16, False),
    ("b", 1, 1, 512, 128, 16, True),
    ("b", 3, 2, 1024, 256, 16, False),
    ("b", 2, 1, 2048, 512, 16, True),
    ("c", 1, 1, 512, 256, 16, True),
    ("c", 3, 2, 1536, 128, 16, True),
    ("d", 1, 1, 512, 256, 16, True),
    ("d", 3, 1, 2048, 256, 16, False),
    ("e", 1, 1, 768, 128, 16, True),
    ("e", 2, 1, 2048, 256, 16, True),
    ("f", 1, 1, 512, 256, 16, True),
    ("f", 3, 1, 1024, 128, 16, True),
    ("f", 2, 2, 2048, 512, 16, False),
)
FITTED = 4


def case_of(row: tuple[str, int, int, int, int, int, bool]) -> Case:
    """A configuration of the table."""
    name, tiles, batch, prompt, chunk, generate, freed = row
    layers, vision, policy, kv = MODELS[name]
    return Case.model_validate(
        {
            "preset": PRESET,
            "layers": layers,
            "vision_layers": vision,
            "policy": policy,
            "kv": kv,
            "tiles": tiles,
            "tiles_per_batch": batch,
            "prompt_tokens": prompt,
            "chunk": chunk,
            "generate": generate,
            "free_vision": freed,
        }
    )


def measure(work: Path, runs: int, only: list[int] | None) -> None:
    """Measures every configuration that WORK/records.jsonl does not hold yet."""
    work.mkdir(parents=True, exist_ok=True)
    records = work / "records.jsonl"
    done = [record.case for record in read_measured(records)] if records.exists() else []
    for number, row in enumerate(CASES):
        case = case_of(row)
        if case in done or (only and number not in only):
            continue
        choice = ModelChoice(preset=PRESET, layers=case.layers, vision_layers=case.vision_layers, kv=case.kv)
        with random_model(choice, case.policy, work / "models") as folder:
            memory, timed = probed(folder, case, 0), probed(folder, case, runs)
        line = {"case": case.model_dump(mode="json"), **memory, "seconds": timed["seconds"], "pace": timed["pace"]}
        line["machine"] = describe_machine()
        with records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        sys.stderr.write(f"{number + 1}/{len(CASES)} {case.label}\n")


def probed(folder: Path, case: Case, runs: int) -> dict[str, Any]:
    """What one process says of a configuration."""
    settings = {
        "folder": os.fspath(folder),
        "tiles": case.tiles,
        "batch": case.tiles_per_batch,
        "prompt": case.prompt_tokens,
        "chunk": case.chunk,
        "generate": case.generate,
        "free_vision": case.free_vision,
        "runs": runs,
        "threads": None,
    }
    before = shlex.split(os.environ.get("BLUELM_PROBE", "")) if runs else []
    command = [*before, sys.executable, "-m", "stages.measure.estimate_probe", json.dumps(settings)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def check(work: Path) -> int:
    """Fits on the first configurations, predicts the others; 1 where a prediction misses what issue 10 asks for."""
    measured = {record.case: record for record in read_measured(work / "records.jsonl")}
    ordered = [measured[case_of(row)] for row in CASES if case_of(row) in measured]
    device = fit_device("this machine", ordered[:FITTED])
    write_device(work / "device.yaml", device)
    rows = compare(device, ordered[FITTED:])
    sys.stdout.write("| configuration | quantity | predicted | measured | error |\n|---|---|---|---|---|\n")
    for row in rows:
        sys.stdout.write(
            f"| {row.label} | {row.quantity} | {row.predicted:.4g} | {row.measured:.4g} | {100 * row.error:+.1f} % |\n"
        )
    missed = 0
    for quantity in dict.fromkeys(row.quantity for row in rows):
        limit = PEAK_LIMIT if quantity == "peak MB" else TIME_LIMIT
        errors = [abs(row.error) for row in rows if row.quantity == quantity]
        within = sum(error <= limit for error in errors)
        missed += len(errors) - within
        sys.stdout.write(
            f"\n{quantity}: {within} of {len(errors)} within {100 * limit:.0f} %, largest {100 * max(errors):.1f} %\n"
        )
    return 1 if missed else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "check"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each stage")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of configurations, from 0")
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.work, given.runs, given.only)
        return 0
    return check(given.work)


if __name__ == "__main__":
    sys.exit(main())
