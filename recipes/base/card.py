"""The demo model's card: what it reads, how well, with intervals, in what form; its failures as a picture.

python recipes/base/card.py WORK OUT

WORK holds what recipes/reading.sh made: the folders of `bench accuracy` below accuracy/FORM/SET (forms float, int4,
onnx; sets words, exam, whole, shrunk, receipts), the exam corpora and the trained folders. Writes OUT/README.md,
OUT/failures.png and OUT/curve.png. Every figure is read from a file; what a file does not tell is not said.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from stages.evaluate.accuracy_report import AccuracyReport, SuiteScore, compare_predictions, read_accuracy, score_of
from stages.evaluate.predictions import PREDICTIONS_FILE, Prediction, read_predictions

FORMS = {"float": "float", "int4": "INT4/INT8, in torch", "onnx": "exported, INT4/INT8"}
SHIPPED = "onnx"
TRAINED = {
    "tower": "base/tower",
    "language model": "base/text-model",
    "stage 1": "stage1",
    "stage 2, single texts": "stage2-single",
    "stage 2, whole tiles": "stage2-tile",
    "stage 2, all pages": "stage2-pages",
    "stage 2, more of them": "stage2",
}
# What was aimed at for each kind of question, and the tasks that belong to it.
AIMS: dict[str, tuple[float, tuple[str, ...]]] = {
    "words and short lines": (0.95, ("word", "line")),
    "numbers, prices, dates": (0.95, ("number", "price", "date")),
    "table and receipt cells": (0.85, ("table", "receipt-total", "receipt-date", "receipt-shop", "receipt-price")),
    "shapes, colours, counts": (0.95, ("shape", "colour", "count", "place")),
    "absent answers": (0.90, ("absent",)),
}
SHOWN, COLUMNS, CELL = 15, 5, 236


def percent(score: SuiteScore) -> str:
    """A share with its 95 % interval."""
    if score.score is None or score.interval is None:
        return "–"
    low, high = score.interval
    return f"{100 * score.score:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


class Exams:
    """What `bench accuracy` wrote, by form and set."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, form: str, name: str) -> bool:
        return (self._folder / form / name / PREDICTIONS_FILE).is_file()

    def report(self, form: str, name: str) -> AccuracyReport:
        return read_accuracy(self._folder / form / name)

    def replies(self, form: str, name: str) -> list[Prediction]:
        return read_predictions(self._folder / form / name / PREDICTIONS_FILE)

    def forms(self, name: str) -> list[str]:
        return [form for form in FORMS if self.has(form, name)]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table."""
    columns = list(head)
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def by_task(exams: Exams, name: str) -> Iterator[str]:
    """One row a task, one column a form."""
    forms = exams.forms(name)
    if not forms:
        yield "Not asked."
        return
    reports = [exams.report(form, name) for form in forms]
    rows = [
        [task, str(score.questions), *(percent(report.tasks[task]) for report in reports)]
        for task, score in reports[0].tasks.items()
    ]
    rows.append(["**all**", str(reports[0].total.questions), *(percent(report.total) for report in reports)])
    yield from table(["task", "questions", *(FORMS[form] for form in forms)], rows)


def aims(exams: Exams) -> Iterator[str]:
    """What was aimed at, beside what the shipped form reaches."""
    replies = exams.replies(SHIPPED, "words") + exams.replies(SHIPPED, "exam")
    rows = []
    for name, (aim, tasks) in AIMS.items():
        found = [one for one in replies if one.task in tasks]
        if found:
            rows.append([name, f"{100 * aim:.0f} %", percent(score_of(found)), str(len(found))])
    for name, task in (("words alone", "word"), ("numbers alone", "number")):
        found = [one for one in exams.replies(SHIPPED, "words") if one.task == task]
        rows.append([f"{name} (the floor)", "80 %", percent(score_of(found)), str(len(found))])
    yield from table(["", "aim", "reached", "questions"], rows)


def tiling(exams: Exams) -> Iterator[str]:
    """The same questions about pictures larger than a tile, with their tiles and shrunk into one."""
    rows = [
        [label, percent(exams.report(SHIPPED, name).total), str(exams.report(SHIPPED, name).total.questions)]
        for name, label in (("whole", "cut into tiles (relaxed)"), ("shrunk", "shrunk into one tile"))
    ]
    yield from table(["pictures larger than a tile", "right", "questions"], rows)


def losses(exams: Exams) -> Iterator[str]:
    """What quantization and export cost, on the same questions."""
    for name in ("words", "exam"):
        for first, second in (("int4", "float"), ("onnx", "float"), ("onnx", "int4")):
            if exams.has(first, name) and exams.has(second, name):
                found = compare_predictions(exams.replies(first, name), exams.replies(second, name))
                assert found is not None
                low, high = found.interval
                yield (
                    f"- {name}: {FORMS[first]} less {FORMS[second]}: {100 * found.mean:+.1f} points "
                    f"[{100 * low:+.1f}, {100 * high:+.1f}]."
                )


def training(work: Path) -> Iterator[str]:
    """Steps, pictures, losses and hours of each run."""
    rows = []
    for name, place in TRAINED.items():
        folder = work / place
        if not (folder / "artifact.json").is_file():
            continue
        made = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        config, metrics = made["config"], made["metrics"]
        rows.append(
            [
                name,
                str(config["steps"]),
                str(config["global_batch"]),
                f"{metrics['loss_first']:.2f} → {metrics['loss_last']:.2f}",
                f"{run.get('seconds_training', 0) / 60:.0f} min",
                f"{run.get('device', '?')}, {run.get('threads') or 'all'} threads",
            ]
        )
    yield from table(["run", "steps", "batch", "loss", "time", "on"], rows)


def draw_failures(work: Path, exams: Exams, out: Path) -> None:
    """Pictures with what is asked, what stands there, and what the model says: one of each task, evenly taken."""
    wrong: dict[str, list[Prediction]] = {}
    for one in exams.replies(SHIPPED, "exam"):
        if one.score == 0 and len(one.answers[0]) < 60:
            wrong.setdefault(one.task, []).append(one)
    names = sorted(wrong)
    chosen = [wrong[name][len(wrong[name]) // 2] for name in names[:: max(len(names) // SHOWN, 1)]][:SHOWN]
    pictures = {row["id"]: row["image"] for row in json.loads((work / "exam" / "heldout.json").read_text("utf-8"))}
    lines = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, lines * (CELL + 64)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, one in enumerate(chosen):
        left, top = place % COLUMNS * CELL, place // COLUMNS * (CELL + 64)
        with Image.open(work / "exam" / pictures[one.id]) as picture:
            shown = picture.convert("RGB")
        scale = min((CELL - 12) / shown.width, (CELL - 12) / shown.height)
        shown = shown.resize((round(shown.width * scale), round(shown.height * scale)), Image.Resampling.NEAREST)
        sheet.paste(shown, (left + 6, top + 6))
        for number, (text, ink) in enumerate(
            ((one.question, "#333333"), (f"is: {one.answers[0]}", "#006400"), (f"said: {one.reply}", "#a00000"))
        ):
            draw.text((left + 6, top + CELL + 19 * number), " ".join(text.split())[:36], fill=ink, font=font)
    sheet.save(out, optimize=True)


def card(work: Path) -> Iterator[str]:
    """The card, line by line."""
    exams = Exams(work / "accuracy")
    yield (Path(__file__).parent / "card.md").read_text(encoding="utf-8").rstrip()
    for title, lines in (
        ("Aimed at and reached", aims(exams)),
        ("Words and numbers", by_task(exams, "words")),
        ("Every task", by_task(exams, "exam")),
        ("What tiles are worth", tiling(exams)),
        ("What quantization and export cost", losses(exams)),
        ("Real receipts", by_task(exams, "receipts")),
        ("How it was trained", training(work)),
    ):
        yield f"\n## {title}\n"
        yield from lines
    yield "\n![Loss of stage 2](curve.png)"
    yield "\n## Where it fails\n\n![Pictures with wrong answers](failures.png)"


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    (target / "README.md").write_text("\n".join(card(source)) + "\n", encoding="utf-8")
    draw_failures(source, Exams(source / "accuracy"), target / "failures.png")
    shutil.copyfile(source / "stage2" / "loss.png", target / "curve.png")
