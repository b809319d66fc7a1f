"""All tasks by name, and the family that draws each. A new family is a file of its own and a line here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.workshop.corpus.rendering.absent import absent_family
from stages.workshop.corpus.rendering.charts import CHARTS
from stages.workshop.corpus.rendering.counting import COUNTING
from stages.workshop.corpus.rendering.documents import DOCUMENT
from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.forms import FORMS
from stages.workshop.corpus.rendering.formulas import FORMULA
from stages.workshop.corpus.rendering.memos import MEMO
from stages.workshop.corpus.rendering.multilingual import FOREIGN, LANGUAGE
from stages.workshop.corpus.rendering.printed import PRINTED
from stages.workshop.corpus.rendering.problems import PROBLEM
from stages.workshop.corpus.rendering.receipts import RECEIPTS
from stages.workshop.corpus.rendering.screens import SCREENS
from stages.workshop.corpus.rendering.single_shape import SINGLE_SHAPE
from stages.workshop.corpus.rendering.tables import TABLE
from stages.workshop.corpus.rendering.text_lines import LINES

# Those that an absent question may be about.
_FAMILIES: Mapping[str, Family] = {
    "single-shape": SINGLE_SHAPE,
    "counting": COUNTING,
    **PRINTED,
    "lines": LINES,
    "table": TABLE,
    "document": DOCUMENT,
    "memo": MEMO,
    "formula": FORMULA,
    "problem": PROBLEM,
    "foreign": FOREIGN,
    "language": LANGUAGE,
    "receipt": RECEIPTS,
    "form": FORMS,
    "chart": CHARTS,
    **SCREENS,
}
FAMILIES: Mapping[str, Family] = MappingProxyType({**_FAMILIES, "absent": absent_family(_FAMILIES)})
TASKS: Mapping[str, str] = MappingProxyType({task: name for name, family in FAMILIES.items() for task in family.tasks})


def families_of(tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The families that these tasks need, each with those of its tasks that are wanted.

    Raises:
        UsageError: unknown or repeated tasks, all of them together.
    """
    problems: list[BluelmError] = []
    wanted: dict[str, tuple[str, ...]] = {}
    for index, task in enumerate(tasks):
        if task not in TASKS:
            near = difflib.get_close_matches(task, TASKS, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            why = "It says what is drawn and asked."
            problems.append(UsageError(f"There is no task {task!r}.", why, f"{hint}Tasks: {', '.join(TASKS)}."))
        elif task in tasks[:index]:
            problems.append(UsageError(f"The task {task!r} stands twice.", "Once is enough.", "Remove one."))
        else:
            wanted[TASKS[task]] = (*wanted.get(TASKS[task], ()), task)
    raise_all(problems)
    return wanted
