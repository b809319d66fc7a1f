"""Our metrics against lmms-eval's on the same replies; `recipes/accuracy/golden.py` made the file."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import pytest

from stages.evaluate import choices
from stages.evaluate.suite_metrics import METRICS, Key

GOLDEN = json.loads(Path(__file__).with_name("golden_metrics.json").read_text(encoding="utf-8"))
CASES: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
for one in GOLDEN["cases"]:
    CASES[one["metric"]].append(one)
PICKS = {
    "choice-ranked": lambda case: choices.ranked_letter(case["reply"], "".join(case["options"])),
    "choice-inferred": lambda case: choices.inferred_letter(case["reply"], case["options"]),
    "mmmu": lambda case: choices.bracketed_letter(case["reply"], case["options"]),
    "yes-no": lambda case: choices.yes_or_no(case["reply"]),
}


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"exact"}))
def test_scores_are_the_reference_s(name: str) -> None:
    different = []
    for case in CASES[name]:
        if "pick" in case:
            ours, theirs = PICKS[name](case), case["pick"]
        else:
            more = {name: case[name] for name in ("answer_type", "precision") if name in case}
            key = Key(tuple(case["answers"]), case.get("options", {}), **more)
            ours, theirs = METRICS[name].score(case["reply"], key), pytest.approx(case["score"], abs=1e-12)
        if ours != theirs:
            different.append((case, ours))
    assert not different


def test_there_are_hundreds_of_cases_and_no_metric_is_always_right_or_wrong() -> None:
    assert len(GOLDEN["cases"]) > 1500
    for name in set(METRICS) - {"exact"}:
        seen = {case.get("score", case.get("pick")) for case in CASES[name]}
        assert len(seen) > 1, name


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"exact"}))
def test_a_letter_is_scored_by_whether_it_is_the_answer(name: str) -> None:
    for case in CASES[name]:
        if case.get("pick"):
            key = Key((case["pick"],), case.get("options", {}))
            assert METRICS[name].score(case["reply"], key) == 1
            assert METRICS[name].score(case["reply"], Key(("Z",), case.get("options", {}))) == 0
