"""One table of what quantization costs a model: methods × block sizes × precisions of activations.

    python recipes/quantize_table.py CHECKPOINT CORPUS --out FOLDER [--questions 600] [--samples 64] [--split heldout]
                                     [--methods rtn gptq awq] [--blocks 32 64 128] [--activations 16 8]

Each cell is one `bluelm quantize` (its own process; one that is done already is taken as it is, so the table can be
stopped and gone on with). Compared on held-out questions with pictures, over the assistant's tokens: top-1 agreement
with the float model and KL divergence, both with 95 % intervals over pictures; exact answers, paired. GPTQ and AWQ are
also set against rounding to the nearest value in the same cell, question by question: what is worse or better, beyond
the interval of the paired difference over pictures. Writes FOLDER/table.md and FOLDER/table.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.evaluate.agreement import Figure
from stages.evaluate.question_rows import QUESTIONS_FILE, PairedCost, QuestionRow, compare_rows, read_rows

METHODS, BLOCKS, ACTIVATIONS = ("rtn", "gptq", "awq"), (32, 64, 128), (16, 8)
PLAIN = "rtn"
# down_proj of a small model may have a number of columns that a block does not divide.
LAYERS = "language_model.model.layers.*"


class Cell(NamedTuple):
    """One quantization: how weights are rounded, in blocks of how many columns, and bits of activations."""

    method: str
    block: int
    activations: int

    @property
    def folder(self) -> str:
        return f"{self.method}-b{self.block}-a{self.activations}"

    def sets(self, questions: int, split: str) -> Iterator[str]:
        """What `--set` gets."""
        rules = [
            {"modules": "vision_tower.embeddings.*", "weights": "float"},
            {"modules": "vision_tower.*", "weights": "int8"},
            {"modules": "multi_modal_projector.*", "weights": "int8"},
            {"modules": LAYERS, "weights": "int4", "group_size": self.block, "method": self.method, "tail": True},
            {"modules": "language_model.model.embed_tokens", "weights": "int8"},
            {"modules": "language_model.lm_head", "weights": "int8"},
        ]
        yield f"rules={json.dumps(rules)}"
        yield f"activations={json.dumps([{'modules': '*', 'activations': f'int{self.activations}'}])}"
        yield f"measure.questions={questions}"
        yield f"measure.split={split}"
        yield "measure.sensitivity=none"


def quantize(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """The report of a cell, made now or before."""
    out = options.out / cell.folder
    words = [sys.executable, "-m", "bluelm_cli", "quantize", str(options.checkpoint), "--data", str(options.corpus)]
    words += ["--out", str(out), "--samples", str(options.samples), "--json"]
    if out.is_dir() and not (out / QUESTIONS_FILE).is_file():
        # An earlier version's, which kept no questions.
        words.append("--force")
    words += [word for one in cell.sets(options.questions, options.split) for word in ("--set", one)]
    sys.stderr.write(f"{cell.folder} …\n")
    done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def row(cell: Cell, report: dict[str, Any]) -> dict[str, Any]:
    """What the table says of a cell."""
    answers, exact = report["fidelity"]["answers"], report["fidelity"]["exact_match"]
    return {
        **cell._asdict(),
        "bits_per_weight": report["total"]["bits_per_weight"],
        "tokens": answers["tokens"],
        "questions": report["fidelity"]["questions"],
        "top1": answers["top1_agreement"],
        "top1_interval": answers["top1_interval"],
        "kl": answers["kl"],
        "kl_interval": answers["kl_interval"],
        "exact": exact["quantized"],
        "exact_float": exact["float"],
        "exact_difference": exact["difference"],
        "exact_interval": exact["interval"],
    }


def against_plain(questions: Mapping[Cell, Sequence[QuestionRow]]) -> dict[Cell, PairedCost]:
    """Each cell of another method less rounding to nearest at the same block and activations, where that is there."""
    plain = {cell[1:]: rows for cell, rows in questions.items() if cell.method == PLAIN}
    others = [cell for cell in questions if cell.method != PLAIN and cell[1:] in plain]
    return {cell: compare_rows(questions[cell], plain[cell[1:]]) for cell in others}


def comparison(costs: Mapping[Cell, PairedCost]) -> Iterator[str]:
    """Markdown: the paired differences and what they show."""
    yield "Less rounding to nearest in the same cell, paired over pictures:"
    yield ""
    yield "| method | block | activations | KL, 10⁻³ | top-1, points | exact, points | beyond the interval |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for cell, cost in costs.items():
        scaled = (_signed(cost.kl, 1e3, 3), _signed(cost.top1, 100, 2), _signed(cost.exact, 100, 2))
        shown = [f"worse: {', '.join(cost.worse)}"] if cost.worse else []
        shown += [f"better: {', '.join(cost.better)}"] if cost.better else []
        words = "; ".join(shown) or "nothing"
        yield f"| {cell.method} | {cell.block} | {cell.activations} | {' | '.join(scaled)} | {words} |"


def verdicts(costs: Mapping[Cell, PairedCost]) -> Iterator[str]:
    """For each other method: whether it is worse than rounding to nearest anywhere, and where its KL is better."""
    for method in dict.fromkeys(cell.method for cell in costs):
        mine = {cell: cost for cell, cost in costs.items() if cell.method == method}
        worse = [f"{_place(cell)} ({', '.join(cost.worse)})" for cell, cost in mine.items() if cost.worse]
        better = [_place(cell) for cell, cost in mine.items() if "KL" in cost.better]
        said = (
            f"worse than {PLAIN} beyond its interval at {', '.join(worse)}"
            if worse
            else (f"not worse than {PLAIN} beyond its interval in any cell")
        )
        yield f"{method}: {said}; better in KL at {', '.join(better) or 'none'}."


def _place(cell: Cell) -> str:
    return f"block {cell.block} a{cell.activations}"


def _signed(figure: Figure, unit: float, digits: int) -> str:
    value, low, high = (unit * one for one in (figure.value, *figure.interval))
    return f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown."""
    first = rows[0]
    yield (
        f"{first['questions']} held-out questions, {first['tokens']} answer tokens; float answers "
        f"{100 * first['exact_float']:.1f} % exactly. Intervals: 95 %, over pictures."
    )
    yield ""
    yield "| method | block | activations | bits/weight | top-1 agreement, % | KL, 10⁻³ | exact, points |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for one in rows:
        low, high = (100 * bound for bound in one["top1_interval"])
        kl_low, kl_high = (1e3 * bound for bound in one["kl_interval"])
        lost, won = (100 * bound for bound in one["exact_interval"])
        yield (
            f"| {one['method']} | {one['block']} | {one['activations']} | {one['bits_per_weight']:.2f} "
            f"| {100 * one['top1']:.2f} ({low:.2f}–{high:.2f}) | {1e3 * one['kl']:.3f} ({kl_low:.3f}–{kl_high:.3f}) "
            f"| {100 * one['exact_difference']:+.2f} ({lost:+.2f} to {won:+.2f}) |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--blocks", nargs="+", type=int, default=BLOCKS)
    parser.add_argument("--activations", nargs="+", type=int, default=ACTIVATIONS, choices=ACTIVATIONS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cells = [Cell(m, b, a) for a in options.activations for b in options.blocks for m in options.methods]
    rows = [row(cell, quantize(cell, options)) for cell in cells]
    costs = against_plain({cell: read_rows(options.out / cell.folder) for cell in cells})
    lines = list(table(rows))
    if costs:
        lines += ["", *comparison(costs), "", *verdicts(costs)]
    text = "\n".join(lines)
    paired = [
        {**one, "less_rtn": costs[cell].as_dict() if cell in costs else None}
        for cell, one in zip(cells, rows, strict=True)
    ]
    (options.out / "table.json").write_text(json.dumps(paired, indent=1) + "\n", encoding="utf-8")
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
