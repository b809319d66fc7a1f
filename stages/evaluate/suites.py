"""The public suites in their own file formats: each row a question, its key, its metric, and what it is counted with.

Field names are those of the benchmark's own file, of the hub's, and of VLMEvalKit's TSV; a row may come in any of them.
What is asked after a question is what lmms-eval 0.7.3 asks by default. No suite here has a hosted model judge replies:
where the published score needs one, the suite's `note` says what is counted instead.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stages.artifacts.errors import DataError, UsageError
from stages.artifacts.plain_json import parse_json
from stages.evaluate.questions import NO_TASK, Question
from stages.evaluate.suite_metrics import UNSCORED, Key
from stages.evaluate.suite_rows import Row, RowPictures, read_rows

WORD = "\nAnswer the question using a single word or phrase."
ONE_WORD = "\nAnswer the question with a single word."
LETTER = "\nAnswer with the option's letter from the given choices directly."
YES_NO = "\nPlease answer yes or no."
SAME_LANGUAGE = "\nAnswer the question using a word or phrase in the language of the question."
_OPTIONS = string.ascii_uppercase[:10]
_COCO = "COCO_val2014_{:012d}.jpg"


@dataclass(frozen=True)
class SuiteItem:
    """One question of a suite.

    Attributes:
        question: as the model is asked; `task` is the category it is counted in.
        key: what the reply is compared with.
        metric: a name of `suite_metrics.METRICS`, or `UNSCORED`.
        bundles: what it belongs to, by the name of the count; a bundle is right when all of it is.
    """

    question: Question
    key: Key
    metric: str
    bundles: Mapping[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """What is drawn together when uncertainty is told: its first picture, or itself."""
        pictures = self.question.pictures
        return pictures[0].name if pictures else self.question.name


Reader = Callable[[Row, int, RowPictures], Iterator[SuiteItem]]


@dataclass(frozen=True)
class Suite:
    """A benchmark: how its rows are read, and what its score is worth."""

    name: str
    read: Reader
    note: str = ""


def _of(row: Row, *names: str) -> Any:
    """The first of these fields that is there.

    Raises:
        KeyError: none is; its text names them.
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise KeyError(" or ".join(names))


def _name(row: Row, number: int) -> str:
    for field_name in ("question_id", "questionId", "index", "pid", "id"):
        if row.get(field_name) is not None:
            return str(row[field_name])
    return str(number)


def _list(value: Any) -> list[Any]:
    """A list as such, as JSON or as Python writes it; anything else alone. ChartQA's "[2008, 2010]" is one answer."""
    if isinstance(value, str) and value.strip().startswith(("[", "(")):
        for parse in (parse_json, ast.literal_eval):
            try:
                found = list(parse(value))
            except (ValueError, SyntaxError, TypeError):
                continue
            if all(isinstance(one, str | Mapping) for one in found):
                return found
    return list(value) if isinstance(value, list | tuple) else [value]


def _answers(row: Row, *names: str) -> tuple[str, ...]:
    found = _list(_of(row, *names))
    return tuple(str(one["answer"] if isinstance(one, Mapping) else one) for one in found)


def _people(row: Row) -> Key:
    """What several people answered.

    Raises:
        ValueError: one answer alone, beside which no reply could score anything.
    """
    answers = _answers(row, "answers", "answer", "multiple_choice_answer")
    if len(answers) < 2:
        raise ValueError(f"{len(answers)} answer where several people's are counted (ten as a rule)")
    return Key(answers)


def _columns(row: Row) -> dict[str, str]:
    """Options that stand in columns A, B, C …"""
    found = {}
    for letter in _OPTIONS:
        if row.get(letter) is None:
            break
        found[letter] = str(row[letter])
    return found


def _lettered(options: list[Any]) -> dict[str, str]:
    return dict(zip(_OPTIONS, (str(one) for one in options), strict=False))


def _listing(options: Mapping[str, str]) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())


def _vqav2(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    name = _COCO.format(int(row["image_id"])) if str(row.get("image_id", "")).isdigit() else None
    files = pictures.of(row, number, "image", name=name)
    key = _people(row)
    task = str(row.get("answer_type") or NO_TASK)
    yield SuiteItem(Question(_name(row, number), files, _of(row, "question") + WORD, key.answers[0], task), key, "vqa")


def _textvqa(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    name = f"{row['image_id']}.jpg" if row.get("image_id") else None
    files = pictures.of(row, number, "image", name=name)
    key = _people(row)
    text = str(_of(row, "question")).capitalize() + WORD
    yield SuiteItem(Question(_name(row, number), files, text, key.answers[0]), key, "textvqa")


def _docvqa(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "image", "image_path")
    key = Key(_answers(row, "answers", "answer"))
    tasks = _list(row.get("question_types") or row.get("data_split") or NO_TASK)
    text = _of(row, "question") + WORD
    yield SuiteItem(Question(_name(row, number), files, text, key.answers[0], str(tasks[0])), key, "anls")


def _chartqa(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "imgname", "image")
    key = Key(tuple(str(one) for one in _list(_of(row, "label", "answer"))))
    task = str(row.get("type") or row.get("human_or_machine") or row.get("split") or NO_TASK)
    text = _of(row, "question", "query") + ONE_WORD
    yield SuiteItem(Question(_name(row, number), files, text, key.answers[0], task), key, "relaxed")


def _ocrbench(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "image_path", "image")
    key = Key(_answers(row, "answers", "answer"))
    formula = str(row.get("dataset_name") or row.get("dataset") or "") == "HME100k"
    formula = formula or str(row.get("category")) == "Handwritten Mathematical Expression Recognition"
    task = str(row.get("type") or row.get("question_type") or row.get("category") or NO_TASK)
    metric = "contains-formula" if formula else "contains"
    text = str(_of(row, "question")).strip()
    yield SuiteItem(Question(_name(row, number), files, text, key.answers[0], task), key, metric)


def _mmbench(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "image", "image_path")
    options = _columns(row)
    hint = f"{row['hint']} " if row.get("hint") else ""
    text = f"{hint}{_of(row, 'question')} There are several options:\n{_listing(options)}{LETTER}"
    key = Key((str(_of(row, "answer")),), options)
    task = str(row.get("l2-category") or row.get("category") or NO_TASK)
    yield SuiteItem(Question(_name(row, number), files, text, key.answers[0], task), key, "choice-inferred")


def _mmstar(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "image", "image_path")
    options = _columns(row)
    listed = f"\n{_listing(options)}" if options else ""
    key = Key((str(_of(row, "answer")).strip().upper(),), options)
    task = str(row.get("l2_category") or row.get("category") or NO_TASK)
    text = f"{str(_of(row, 'question')).strip()}{listed}{LETTER}"
    yield SuiteItem(Question(_name(row, number), files, text, key.answers[0], task), key, "choice-ranked")


def _mmmu(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, *[f"image_{index}" for index in range(1, 8)], "image", "image_path")
    given = [] if "options" not in row else _list(row["options"])
    options = _lettered([one for one in given if one != ""]) or _columns(row)
    free = str(row.get("question_type", "")) == "open" or not options
    question = str(_of(row, "question"))
    text = f"{question}\n\n{WORD.strip()}" if free else f"{question}\n{_listing(options)}\n{LETTER}"
    key = Key(_answers(row, "answer"), {} if free else options)
    name = _name(row, number)
    # validation_Art_1: the subject is its middle.
    task = str(row.get("category") or "_".join(name.split("_")[1:-1]) or NO_TASK)
    yield SuiteItem(Question(name, files, text, key.answers[0], task), key, "mmmu")


def _mathvista(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    decoded = row.get("decoded_image")
    files = pictures.of(row, number, "decoded_image" if decoded else "image", "image_path")
    options = _lettered([one for one in _list(row["choices"]) if one]) if row.get("choices") else {}
    precision = int(float(row.get("precision") or 0))
    key = Key((str(_of(row, "answer")),), options, str(row.get("answer_type") or "text"), precision)
    asked = row.get("query")
    if asked is None:
        asked = _of(row, "question") + (f"\nChoices:\n{_listing(options)}" if options else "")
    details = row.get("metadata")
    task = str(row.get("task") or (details.get("task") if isinstance(details, Mapping) else None) or NO_TASK)
    yield SuiteItem(Question(_name(row, number), files, str(asked), key.answers[0], task), key, "mathvista")


def _hallusion(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "filename", "image")
    told = str(_of(row, "gt_answer", "answer")).strip().lower()
    answer = "yes" if told in ("1", "yes") else "no"
    names = [str(row.get(part, "")) for part in ("category", "subcategory", "set_id", "figure_id", "question_id")]
    category, subcategory, of_set, figure, question = names
    bundles = {
        "figures": "_".join((category, subcategory, of_set, figure)),
        "question pairs": "_".join((category, subcategory, of_set, question)),
    }
    task = subcategory or category or NO_TASK
    name = "_".join(names) if of_set else _name(row, number)
    asked = Question(name, files, _of(row, "question") + YES_NO, answer, task)
    yield SuiteItem(asked, Key((answer,)), "yes-no", bundles if of_set else {})


def _ai2d(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "image", "image_path")
    options = _lettered(_list(row["options"])) if "options" in row else _columns(row)
    told = str(_of(row, "answer"))
    answer = _OPTIONS[int(told)] if told.isdigit() else told
    text = f"{_of(row, 'question')}\n{_listing(options)}{LETTER}"
    task = str(row.get("category") or NO_TASK)
    yield SuiteItem(Question(_name(row, number), files, text, answer, task), Key((answer,), options), "choice-leading")


def _mmvet(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "imagename", "image", "image_path")
    key = Key((str(_of(row, "answer")),))
    task = "+".join(str(one) for one in _list(row.get("capability") or row.get("category") or NO_TASK))
    asked = Question(_name(row, number), files, str(_of(row, "question")), key.answers[0], task)
    yield SuiteItem(asked, key, UNSCORED)


def _mtvqa(row: Row, number: int, pictures: RowPictures) -> Iterator[SuiteItem]:
    files = pictures.of(row, number, "image", "image_path")
    task = str(row.get("lang") or row.get("category") or NO_TASK)
    pairs = _list(row["qa_pairs"]) if "qa_pairs" in row else [row]
    name = _name(row, number)
    for index, pair in enumerate(pairs):
        key = Key((str(_of(pair, "answer")),))
        own = f"{name}_{index}" if "qa_pairs" in row else name
        text = str(_of(pair, "question")).strip() + SAME_LANGUAGE
        yield SuiteItem(Question(own, files, text, key.answers[0], task), key, "contains-mtvqa")


_SUITES = (
    Suite("vqav2", _vqav2, "give the questions file; its annotations with --annotations"),
    Suite("textvqa", _textvqa),
    Suite("docvqa", _docvqa, "the test split's answers are not public: use the validation file"),
    Suite("chartqa", _chartqa, "the published figure is the mean of human and augmented"),
    Suite("ocrbench", _ocrbench, "the published figure counts 1000 questions"),
    Suite("mmbench", _mmbench, "without circular evaluation and without the judging model"),
    Suite("mmstar", _mmstar, "the published figure is the mean of the categories' scores"),
    Suite("mmmu", _mmmu, "a reply that names no option is wrong; the published code draws one"),
    Suite("mathvista", _mathvista, "a lower bound: no model extracts answers from longer replies"),
    Suite("hallusionbench", _hallusion, "yes where the word stands in the reply; the published code asks a model"),
    Suite("ai2d", _ai2d),
    Suite("mm-vet", _mmvet, "not scored here: its score is a hosted model's judgement; replies are kept for it"),
    Suite("mtvqa", _mtvqa, "the published figure is the mean of all questions"),
)
SUITES: Mapping[str, Suite] = MappingProxyType({suite.name: suite for suite in _SUITES})


def suite_by_name(name: str) -> Suite:
    """A suite.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in SUITES:
        raise UsageError(
            f"There is no suite {name!r}.",
            "A suite says how rows are read and scored.",
            f"Suites: {', '.join(SUITES)}; of data in LLaVA's form: llava.",
        )
    return SUITES[name]


def read_suite(
    suite: Suite, data: Path, *, images: Path | None, scratch: Path, annotations: Path | None = None
) -> list[SuiteItem]:
    """All questions of a suite's file, in its order.

    Args:
        suite: the suite.
        data: its file.
        images: where pictures lie, if not beside it.
        scratch: where pictures that lie inside the file are written.
        annotations: a file with the answers, joined by `question_id` (VQAv2).

    Raises:
        DataError: a file is missing or broken, or a row lacks a field or its picture; the message has its number.
    """
    pictures = RowPictures(data, images, scratch)
    answers = {} if annotations is None else {str(row.get("question_id")): row for _, row in read_rows(annotations)}
    items: list[SuiteItem] = []
    for number, row in read_rows(data):
        whole = {**row, **answers.get(str(row.get("question_id")), {})} if answers else row
        try:
            items += suite.read(whole, number, pictures)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            what = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{data}, row {number}: {what}.",
                f"As a row of {suite.name} it cannot be asked or scored.",
                "Give the benchmark's own file" + ("." if annotations else ", with --annotations if it has one."),
            ) from error
    return items
