"""Each suite's rows in its own file formats: what is asked, with which pictures, and what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.errors import DataError, UsageError
from stages.evaluate.suite_metrics import METRICS, UNSCORED
from stages.evaluate.suites import SUITES, SuiteItem, read_suite, suite_by_name
from tests.evaluate.suite_files import base, png, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("COCO_val2014_000000000042.jpg", "a1.jpg", "documents/p.png", "c.png", "o.png", "v1_1.png", "1.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(len(name)))
    (tmp_path / "scratch").mkdir()
    return tmp_path


def items(folder: Path, suite: str, file: str, rows: Any, **more: Any) -> list[SuiteItem]:
    return read_suite(suite_by_name(suite), write(folder / file, rows), images=None, scratch=folder / "scratch", **more)


TEN = [{"answer": "red", "answer_id": number} for number in range(10)]
OPTIONS = {"A": "red", "B": "blue", "C": "green", "D": "grey"}
# suite, file, rows, text, answers, metric, task
FORMATS: list[tuple[str, str, Any, str, tuple[str, ...], str, str]] = [
    (
        "vqav2",
        "q.json",
        [{"image_id": 42, "question_id": 7, "question": "Colour?", "answers": TEN, "answer_type": "other"}],
        "Colour?\nAnswer the question using a single word or phrase.",
        ("red",) * 10,
        "vqa",
        "other",
    ),
    (
        "textvqa",
        "t.json",
        {"data": [{"question": "what BRAND is it?", "image_id": "a1", "answers": ["a", "b"]}]},
        "What brand is it?\nAnswer the question using a single word or phrase.",
        ("a", "b"),
        "textvqa",
        "general",
    ),
    (
        "docvqa",
        "d.json",
        {
            "data": [
                {
                    "questionId": 3,
                    "question": "Sum?",
                    "image": "documents/p.png",
                    "answers": ["1", "1.0"],
                    "question_types": ["layout"],
                }
            ]
        },
        "Sum?\nAnswer the question using a single word or phrase.",
        ("1", "1.0"),
        "anls",
        "layout",
    ),
    (
        "chartqa",
        "h.json",
        [{"imgname": "c.png", "query": "How many?", "label": "14"}],
        "How many?\nAnswer the question with a single word.",
        ("14",),
        "relaxed",
        "general",
    ),
    (
        "chartqa",
        "h.tsv",
        [{"index": 0, "image": base(1), "question": "How many?", "answer": "['14']", "split": "human"}],
        "How many?\nAnswer the question with a single word.",
        ("14",),
        "relaxed",
        "human",
    ),
    (
        "ocrbench",
        "o.json",
        [
            {
                "dataset_name": "IIIT5K",
                "type": "Regular Text Recognition",
                "image_path": "o.png",
                "question": "What is written?",
                "answers": ["EXIT"],
            }
        ],
        "What is written?",
        ("EXIT",),
        "contains",
        "Regular Text Recognition",
    ),
    (
        "ocrbench",
        "o2.json",
        [
            {
                "dataset_name": "HME100k",
                "type": "Handwritten Mathematical Expression Recognition",
                "image_path": "o.png",
                "question": "Formula?",
                "answers": "x ^ 2",
            }
        ],
        "Formula?",
        ("x ^ 2",),
        "contains-formula",
        "Handwritten Mathematical Expression Recognition",
    ),
    (
        "mmbench",
        "m.tsv",
        [
            {
                "index": 241,
                "question": "Which?",
                "hint": "Look.",
                **OPTIONS,
                "answer": "B",
                "category": "colour",
                "image": base(2),
            }
        ],
        "Look. Which? There are several options:\nA. red\nB. blue\nC. green\nD. grey\n"
        "Answer with the option's letter from the given choices directly.",
        ("B",),
        "choice-inferred",
        "colour",
    ),
    (
        "mmstar",
        "s.parquet",
        [
            {
                "index": 0,
                "question": "Which? \nOptions: A: x, B: y",
                "image": png(3),
                "answer": "A",
                "category": "math",
                "l2_category": "geometry",
            }
        ],
        "Which? \nOptions: A: x, B: y\nAnswer with the option's letter from the given choices directly.",
        ("A",),
        "choice-ranked",
        "geometry",
    ),
    (
        "mmmu",
        "u.parquet",
        [
            {
                "id": "validation_Art_History_3",
                "question": "See <image 1>.",
                "options": "['one', 'two']",
                "answer": "B",
                "question_type": "multiple-choice",
                "image_1": {"bytes": png(4), "path": "x.png"},
                "image_2": None,
            }
        ],
        "See <image 1>.\nA. one\nB. two\n\nAnswer with the option's letter from the given choices directly.",
        ("B",),
        "mmmu",
        "Art_History",
    ),
    (
        "mathvista",
        "testmini.json",
        {
            "1": {
                "pid": "1",
                "question": "How long?",
                "image": "1.png",
                "choices": None,
                "unit": "cm",
                "precision": 1.0,
                "answer": "1.2",
                "question_type": "free_form",
                "answer_type": "float",
                "query": "Hint: a float.\nQuestion: How long?",
                "metadata": {"task": "geometry problem solving"},
            }
        },
        "Hint: a float.\nQuestion: How long?",
        ("1.2",),
        "mathvista",
        "geometry problem solving",
    ),
    (
        "hallusionbench",
        "hb.json",
        [
            {
                "category": "VS",
                "subcategory": "chart",
                "visual_input": "1",
                "set_id": "0",
                "figure_id": "1",
                "question_id": "0",
                "question": "Is it higher?",
                "gt_answer": "1",
                "filename": "./c.png",
            }
        ],
        "Is it higher?\nPlease answer yes or no.",
        ("yes",),
        "yes-no",
        "chart",
    ),
    (
        "ai2d",
        "a.parquet",
        [{"question": "What eats grass?", "options": ["cow", "owl"], "answer": "1", "image": {"bytes": png(5)}}],
        "What eats grass?\nA. cow\nB. owl\nAnswer with the option's letter from the given choices directly.",
        ("B",),
        "choice-leading",
        "general",
    ),
    (
        "mm-vet",
        "mm-vet.json",
        {"v1_1": {"imagename": "v1_1.png", "question": "x?", "answer": "-1<AND>-5", "capability": ["ocr", "math"]}},
        "x?",
        ("-1<AND>-5",),
        UNSCORED,
        "ocr+math",
    ),
    (
        "mtvqa",
        "mt.jsonl",
        [{"image": "c.png", "lang": "JA", "qa_pairs": "[{'question': '何ですか', 'answer': '東京'}]"}],
        "何ですか\nAnswer the question using a word or phrase in the language of the question.",
        ("東京",),
        "contains-mtvqa",
        "JA",
    ),
]


@pytest.mark.parametrize(("suite", "file", "rows", "text", "answers", "metric", "task"), FORMATS)
def test_a_row_is_read_as_its_suite_means_it(
    folder: Path, suite: str, file: str, rows: Any, text: str, answers: tuple[str, ...], metric: str, task: str
) -> None:
    (item,) = items(folder, suite, file, rows)
    assert (item.question.text, item.key.answers, item.metric, item.question.task) == (text, answers, metric, task)
    (picture,) = item.question.pictures
    assert Image.open(picture).size == (12, 12)
    if metric != UNSCORED and len(answers) == 1:
        assert METRICS[metric].score(answers[0], item.key) == 1
        assert METRICS[metric].score("something else entirely", item.key) == 0


def test_every_suite_has_a_row_here() -> None:
    assert {row[0] for row in FORMATS} == set(SUITES)


def test_an_answer_that_is_a_list_of_numbers_is_one_answer(folder: Path) -> None:
    rows = [{"imgname": "c.png", "query": "Which years?", "label": "[2008, 2010]"}]
    (item,) = items(folder, "chartqa", "h.json", rows)
    assert item.key.answers == ("[2008, 2010]",)


@pytest.mark.parametrize("suite", ["vqav2", "textvqa"])
def test_one_answer_alone_is_no_vote(folder: Path, suite: str) -> None:
    rows = [{"image_id": 42, "image": "a1.jpg", "question": "Colour?", "multiple_choice_answer": "red"}]
    with pytest.raises(DataError, match="row 1: 1 answer where several people's are counted"):
        items(folder, suite, "q.json", rows)


def test_vqav2_s_answers_may_be_a_file_of_their_own(folder: Path) -> None:
    rows = {"questions": [{"image_id": 42, "question_id": number, "question": "Colour?"} for number in (8, 9)]}
    answers = {"annotations": [{"question_id": number, "answers": [{"answer": str(number)}] * 10} for number in (9, 8)]}
    found = items(folder, "vqav2", "q.json", rows, annotations=write(folder / "a.json", answers))
    assert [(one.question.name, one.key.answers[0]) for one in found] == [("8", "8"), ("9", "9")]


def test_a_picture_may_be_that_of_an_earlier_row(folder: Path) -> None:
    shared = {"question": "Which?", **OPTIONS, "answer": "A"}
    rows = [{"index": 5, "image": base(6), **shared}, {"index": 1000005, "image": "5", **shared}]
    first, second = items(folder, "mmbench", "m.tsv", rows)
    assert first.question.pictures == second.question.pictures and first.group == second.group


def test_hallusionbench_s_bundles_join_figures_and_questions(folder: Path) -> None:
    row = {"category": "VS", "subcategory": "chart", "set_id": "0", "question": "?", "filename": "c.png"}
    rows = [
        {**row, "figure_id": f, "question_id": q, "gt_answer": "0"} for f, q in (("0", "0"), ("0", "1"), ("1", "0"))
    ]
    bundles = [item.bundles for item in items(folder, "hallusionbench", "h.json", rows)]
    assert bundles[0]["figures"] == bundles[1]["figures"] != bundles[2]["figures"]
    assert bundles[0]["question pairs"] == bundles[2]["question pairs"] != bundles[1]["question pairs"]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (
            [{"question": "?", "label": "1", "imgname": "c.png"}, {"imgname": "c.png", "label": "1"}],
            "row 2: no question or query",
        ),
        ([{"imgname": "gone.png", "query": "?", "label": "1"}], "row 1: the picture 'gone.png' is not below"),
        ([{"imgname": "!" * 300, "query": "?", "label": "1"}], "row 1: its picture is no base64"),
        ([7], "row 1: int instead of an object"),
    ],
)
def test_broken_rows_are_named(folder: Path, rows: Any, what: str) -> None:
    with pytest.raises(DataError) as caught:
        items(folder, "chartqa", "h.json", rows)
    assert what in caught.value.what


def test_files_that_are_none(folder: Path) -> None:
    (folder / "h.json").write_text("{", encoding="utf-8")
    for name, what in (("h.json", "cannot be read"), ("gone.tsv", "does not exist"), ("c.png", "ends with '.png'")):
        with pytest.raises(DataError, match=what):
            read_suite(SUITES["chartqa"], folder / name, images=None, scratch=folder / "scratch")
    with pytest.raises(UsageError, match="no suite 'chart'"):
        suite_by_name("chart")
