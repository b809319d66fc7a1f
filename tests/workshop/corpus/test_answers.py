"""Answers found again from what is printed, by other ways than the ones that made them."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable

import pytest

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.documents import broken
from stages.workshop.corpus.rendering.expressions import Formula
from stages.workshop.corpus.rendering.page import Page
from stages.workshop.corpus.rendering.problems import Problem
from stages.workshop.corpus.rendering.scene import Look
from stages.workshop.corpus.rendering.tables import Table

Make = Callable[..., Look]
Some = Callable[..., list[Page]]
Written = Callable[[Page], list[str]]


def asked(page: Page) -> dict[str, tuple[str, str]]:
    return {exchange.task: (exchange.question, exchange.answer) for exchange in page.exchanges}


def test_tables_answer_what_their_markdown_says(look: Make, some_pages: Some, written: Written) -> None:
    seen: set[str] = set()
    for page in some_pages("table", "train", look(size=Size(512, 384)), 80):
        found = asked(page)
        head, rule, *body = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in found["table-markdown"][1].splitlines()
        ]
        assert [text for line in (head, *body) for text in line] == written(page) == list(page.texts)
        assert set(rule) == {"---"} and len(rule) == len(head)
        rows = {line[0]: line[1:] for line in body}
        assert len(rows) == len(body) and len({name.lower() for name in (*head, *rows)}) == len(head) + len(rows)
        assert found["table-rows"][1] == str(len(body))
        words = {task: re.findall(r"\w+", question) for task, (question, _) in found.items()}
        column = next(index for index, name in enumerate(head) if index and name in words["table"])
        row = next(name for name in rows if name in words["table"])
        assert found["table"][1] == rows[row][column - 1]
        if "row" in words["table-sum"] or words["table-sum"][:5] == ["Add", "up", "the", "numbers", "of"]:
            numbers = next(rows[name] for name in rows if name in words["table-sum"])
        else:
            at = next(index for index, name in enumerate(head) if index and name in words["table-sum"])
            numbers = [line[at] for line in body]
        assert found["table-sum"][1] == str(sum(map(int, numbers)))
        seen.add("row" if numbers in rows.values() else "column")
        if "table-extreme" in found:
            at = next(index for index, name in enumerate(head) if index and name in words["table-extreme"])
            ordered = sorted(body, key=lambda line: int(line[at]), reverse="largest" in words["table-extreme"])
            assert found["table-extreme"][1] == ordered[0][0] and ordered[0][at] != ordered[1][at]
        number = int(next(word for word in words["table-header"] if word.isdecimal()))
        assert found["table-header"][1] == head[number - 1]
        assert isinstance(page.facts["table"], Table)
    assert seen == {"row", "column"}


def test_documents_are_asked_for_what_stands_there(look: Make, some_pages: Some, written: Written) -> None:
    layouts = set()
    for page in some_pages("document", "train", look(size=Size(400, 400), heights=(12.0, 18.0)), 60):
        title, *lines = written(page)
        found = asked(page)
        assert found["heading"][1] == title
        assert found["page-text"][1].split("\n") == [title, *lines]
        assert ("line numbers" in found["page-text"][0]) == (page.facts["layout"] == "numbered")
        assert found["line-count"][1] == str(len(lines))
        if "line-begins" in found:
            start = re.findall(r'"(.*?)"', found["line-begins"][0])[0]
            assert [line for line in lines if line.startswith(start + " ")] == [found["line-begins"][1]]
        if "first-word" in found:
            number = int(re.findall(r"line (\d+) below", found["first-word"][0])[0])
            assert re.match(r"\w+", lines[number - 1])[0] == found["first-word"][1]  # type: ignore[index]
        for absent in page.absent:
            start = re.findall(r'"(.*?)"', absent.question)[0]
            assert not any(line.startswith(start) for line in (title, *lines))
        layouts.add(page.facts["layout"])
    assert len(layouts) == 7


def test_lines_break_between_words() -> None:
    assert broken("one two three", 7) == ["one two", "three"]
    assert broken("incomprehensible a b", 3) == ["incomprehensible", "a b"]
    assert broken("one", 1) == ["one"]


def test_memos_answer_from_their_fields_and_list(look: Make, some_pages: Some, written: Written) -> None:
    for page in some_pages("memo", "train", look(size=Size(400, 400)), 60):
        texts, found = written(page), asked(page)
        items = [text for text in texts if text in list(page.facts["items"])]  # type: ignore[call-overload]
        question, answer = found["memo-field"]
        label = next(text.rstrip(":") for text in texts if re.search(rf"\b{re.escape(text.rstrip(':'))}\b", question)
                     and text.rstrip(":") in page.facts["fields"])  # type: ignore[operator]  # fmt: skip
        at = next(index for index, text in enumerate(texts) if text.rstrip(":") == label)
        assert texts[at + 1] == answer
        number = int(re.findall(r"(\d+) of the list", found["memo-item"][0])[0])
        assert items[number - 1] == found["memo-item"][1]
        before = re.findall(r'"(.*)"', found["memo-next"][0])[0]
        assert items[items.index(before) + 1] == found["memo-next"][1]
        assert found["memo-count"][1] == str(len(items))
        field, item = (exchange.question for exchange in page.absent)
        assert not any(f"{text.rstrip(':')}" in field.split() for text in texts if text.endswith(":"))
        assert int(re.findall(r"(\d+) of the list", item)[0]) > len(items)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_problems_come_out_as_their_steps_say(look: Make, some_pages: Some, split: str) -> None:
    texts = set()
    for page in some_pages("problem", split, look(size=Size(400, 300)), 100):
        found, problem = asked(page), page.facts["problem"]
        assert isinstance(problem, Problem)
        *steps, last = found["problem-steps"][1].removesuffix(".").split(". ")
        answer = None
        for step in steps:
            match = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", step)
            assert match is not None
            one, sign, other, result = match.groups()
            value = {"+": int(one) + int(other), "-": int(one) - int(other), "*": int(one) * int(other)}
            value["/"] = int(one) // int(other) if int(one) % int(other) == 0 else -1
            answer = value[sign]
            assert answer == int(result) >= 0
        assert last == f"The answer is {answer}" and found["problem"][1] == str(answer)
        # Every figure of the text is used: none is there to mislead, none comes out of the air.
        printed = re.findall(r"\d+", " ".join(problem.lines))
        used = re.findall(r"\d+", " ".join(steps))
        assert set(printed) <= set(used) | {"1"}
        texts.add(re.sub(r"\d+|[A-Z]\w+", "", problem.lines[0])[:12])
    assert len(texts) >= 6


def test_formulas_mean_the_same_in_latex_and_in_plain_text(look: Make, some_pages: Some) -> None:
    """Both notations, evaluated by evaluators of their own, give equal numbers."""
    draw, evaluated = random.Random(0), 0
    for page in some_pages("formula", "train", look(size=Size(500, 500)), 250):
        formulas = page.facts["formulas"]
        assert isinstance(formulas, list)
        found = asked(page)
        labels = re.findall(r"formula \((\w)\)", found["formula-latex"][0])
        one = formulas["abcd".index(labels[0])] if labels else formulas[0]
        assert isinstance(one, Formula)
        assert (found["formula-latex"][1], found["formula-plain"][1]) == (one.latex, one.plain)
        assert one.latex.count("{") == one.latex.count("}") and "{" not in one.plain
        assert re.findall(r"\d+", one.latex) == re.findall(r"\d+", one.plain)
        if re.search(r"sum|integral|limit|d/dx|_", one.plain):
            continue
        names = {name: draw.uniform(1.1, 1.9) for name in re.findall(r"[a-z]+", one.plain)}
        for latex, plain in zip(
            *(re.split(r" (?:=|<|>=|!=|\\geq|\\neq) ", text) for text in (one.latex, one.plain)), strict=True
        ):
            values = [compute(from_latex(latex), names), compute(plain.replace("^", "**"), names)]
            if None not in values:
                assert values[0] == pytest.approx(values[1], rel=1e-9)
                evaluated += 1
    assert evaluated > 150


def compute(expression: str, names: dict[str, float]) -> float | None:
    """The value of an expression in Python's notation; None where it has none."""
    functions = {name: getattr(math, name) for name in ("sin", "cos", "tan", "exp", "sqrt", "log")}
    absolute = re.sub(r"\blambda\b", "lambda_", _bars(expression))
    try:
        value = eval(
            absolute,
            {"__builtins__": {}},
            {**names, "lambda_": names.get("lambda"), **functions, "ln": math.log, "abs": abs},
        )
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        return None
    return float(value) if isinstance(value, float | int) and math.isfinite(value) else None


def _bars(expression: str) -> str:
    """Bars that open follow a sign or nothing; the others close."""
    out = ""
    for index, sign in enumerate(expression):
        before = expression[:index].rstrip()
        out += sign if sign != "|" else "abs(" if not before or before[-1] in "+-*/(=|^,{" else ")"
    return out


def from_latex(text: str) -> str:
    """Python's notation of LaTeX's terms, groups in braces first."""
    text = text.replace(r"\cdot", "*")
    while r"\frac" in text:
        at = text.rindex(r"\frac")
        top, after = _group(text, at + 5)
        under, end = _group(text, after)
        text = f"{text[:at]}(({top})/({under})){text[end:]}"
    return re.sub(r"\\([a-z]+)", r"\1", text).replace("{", "(").replace("}", ")").replace("^", "**")


def _group(text: str, at: int) -> tuple[str, int]:
    """What stands in the braces that open there, and where they end."""
    depth, end = 0, at
    while True:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
        if depth == 0:
            return text[at + 1 : end - 1], end
