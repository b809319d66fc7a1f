"""The table that `table2.sh` ends with: each rule's score beside the relaxed rule's, with intervals.

python recipes/table2.py WORK SUITE …
"""

from __future__ import annotations

import sys
from pathlib import Path

from stages.evaluate.accuracy_report import compare_predictions, read_accuracy
from stages.evaluate.predictions import PREDICTIONS_FILE, read_predictions

RULES = ("relaxed", "llava-next", "internvl-1.5")
# facts.md, accuracy tables.
PAPER = "the paper (Table 2): relaxed above both other rules on all five benchmarks, with either language model"


def line(work: Path, suite: str, rule: str) -> str:
    """One row of the table."""
    report = read_accuracy(work / f"{suite}-{rule}")
    total = report.total
    mine, best = (read_predictions(work / f"{suite}-{name}" / PREDICTIONS_FILE) for name in (rule, RULES[0]))
    tokens = report.tokens.image / max(total.questions, 1)
    score = "not scored" if total.score is None else f"{100 * total.score:.1f} %"
    interval = "" if total.interval is None else "{:.1f} – {:.1f}".format(*[100 * bound for bound in total.interval])
    beside = ""
    if rule != RULES[0] and (difference := compare_predictions(best, mine)) is not None:
        low, high = (100 * bound for bound in difference.interval)
        beside = f"relaxed is {difference.verdict}: {100 * difference.mean:+.1f} [{low:+.1f}, {high:+.1f}]"
        beside += f", p = {difference.p_value:.2g}"
    return f"| {suite} | {rule} | {tokens:.1f} | {score} | {interval} | {beside} |\n"


def main(work: Path, suites: list[str]) -> None:
    """Writes the table to stdout."""
    write = sys.stdout.write
    write("| suite | rule | image tokens | score | 95 % interval | beside it |\n|---|---|---|---|---|---|\n")
    for suite in suites:
        for rule in RULES:
            write(line(work, suite, rule))
    write(f"\n{PAPER}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
