"""Scores of the reference implementation (lmms-eval) on replies of ours: what tests/evaluate/test_reference.py reads.

    python3.11 -m venv /tmp/reference && /tmp/reference/bin/pip install --no-deps lmms_eval==0.7.3
    /tmp/reference/bin/python recipes/accuracy/golden.py > tests/evaluate/golden_metrics.json

Only the scoring functions are taken out of lmms-eval's files, so none of its dependencies is needed. All inputs are
made here; a fixed seed. Where the reference draws at random or asks a hosted model, the case is left out.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import random
import re
import string
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VERSION = "0.7.3"
ROOT = Path(next(iter(importlib.util.find_spec("lmms_eval").submodule_search_locations)))
SHORT = (
    "yes", "Yes.", "no", "NO", "none", "two", "2", "2.0", "2.", "the cat", "a cat", "An apple", "cats", "cat's",
    "cats' food", "dont", "don't", "Dont know", "couldntve", "couldn't've", "youre", "let's", "lets", "red, blue",
    "red,blue", "blue and red", "1,000", "1000", "1,000,000", "3.14", ".5", "50%", "50 %", "0.5", "5 km", "5km",
    "$5", "5 dollars", "5€", "-7", "+7", "1e3", "1000.0", "nan", "inf", "0", "0.0", "10:30", "10:30 am", "10.30",
    "A/B", "t-shirt", "t shirt", "e-mail@x.org", "(left)", "[left]", '"STOP"', "stop", "S.T.O.P.", "St. John's",
    "Straße", "STRASSE", "İstanbul", "istanbul", "naïve café", "naive cafe", "日本語", "日本", "你好，世界",
    "你好,世界", "Ｈｅｌｌｏ", "hello", "\u3000東京\u3000", "東京", "Привет, мир", "привет мир", "مرحبا", "Ünïcödé",
    "x = 2", "x=2", "x^2 + y^2", "x^{2}+y^{2}", "\\frac{a}{b}", "\\frac {a} {b}", "line one\nline two",
    "line one line two", "a\tb", "  padded  ", "what??", "what ?", "who's", "whos", "twas", "oclock", "five o'clock",
    "ten", "eleven", "a", "the", "", " ", "`tick`", "semi;colon", "semi; colon", "back\\slash", "1.5 million", "1,5",
    "12 %", "12%", "11.4%", "0.12", "100", "105", "106", "95", "94.9", "1 000", "half", "1/2", "3/4", "Yes, it is",
    "no, it's not", "somebody'd", "yall'd've", "it's", "its",
)  # fmt: skip
CHOSEN = (
    "A", "B", "b", "(A)", "(B).", "B.", "B:", "B)", "B,", "The answer is B", "The answer is (C).", "Answer: D",
    "A cat", "A cat sits on a mat", "it is A or B", "A. red", "B. blue", "C: green", " D ", "D!", '"C"', "'A'",
    "the correct option is C.", "I choose D because A is wrong", "Neither", "blue", "It must be blue, I think so",
    "The colour in the picture is green here", "答案是B", "选C", "정답은 A", "答えはD", "A\nB", "Both A and C",
    "(A) or (B)", "B. blue or C. green", "AB", "Option B", "option:C", "E", "(E)", "None of these options is right",
    "red", "red and blue", "(b)", "Because of C) we say D)", ":B", "(C),", "my answer is A, not B", "Dogs bark",
    "B ", "The best answer is: C", "a", "A.", "x (D) y (A)", "1", "Banana", "yes", "No.",
)  # fmt: skip
OPEN = (
    "The answer is 42", "42", "42.0", "It is 3.14159.", "so the result is 1,234.5", "x = 7", "Therefore x=7", "7 cm",
    "about 0.5", "The final answer is photosynthesis", "Photosynthesis.", "b", "a b c", "It could be 12 or 13",
    "1e3", "1000", "-5", "minus 5", "We add 2 and 3.\nThus the sum is 5", "", "is", "so = ", "12,345", "0.333",
    "1/3", "The unit is m/s", "m/s", "10%",
)  # fmt: skip


def functions(file: str, *names: str, **given: Any) -> dict[str, Any]:
    """Functions, classes and constants of one of lmms-eval's files, without running the file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    space: dict[str, Any] = {"re": re, "math": math, "random": random, "string": string, **given}
    for node in tree.body:
        names_here = {getattr(node, "name", None)} | {getattr(one, "id", None) for one in getattr(node, "targets", ())}
        if names_here & set(names):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                node.decorator_list = []
            code = compile(ast.Module([node], []), file, "exec", flags=annotations_off())
            exec(code, space)
    return space


def annotations_off() -> int:
    """Annotations are not looked up: their imports are not there."""
    import __future__

    return __future__.annotations.compiler_flag


def pairs(rng: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """Every reply against itself, neighbours, and some drawn at random."""
    yield from ((one, one) for one in SHORT)
    yield from itertools.pairwise(SHORT)
    yield from ((rng.choice(SHORT), rng.choice(SHORT)) for _ in range(count))
    for one in rng.sample(SHORT, 20):
        yield f"I think the answer is {one} here", one
        yield one.upper(), one
        yield one[:-1] + "x" if one else "x", one


def of_answers(name: str, score: Callable[[str, list[str]], float], rng: random.Random, many: bool) -> Iterator[Any]:
    """Cases of a metric that compares with a list of answers."""
    for reply, answer in pairs(rng, 40):
        answers = [answer]
        if many:
            others = [rng.choice((answer, answer, reply, rng.choice(SHORT))) for _ in range(4)]
            answers = [answer, *others]
        yield {"metric": name, "reply": reply, "answers": answers, "score": score(reply, answers)}


def text_cases(rng: random.Random) -> Iterator[Any]:
    """VQA, ANLS, relaxed accuracy, containment."""
    import statistics

    processor = functions("tasks/_task_utils/vqa_eval_metric.py", "EvalAIAnswerProcessor")["EvalAIAnswerProcessor"]
    given = {"EvalAIAnswerProcessor": processor, "statistics": statistics}
    v2 = functions("tasks/vqav2/utils.py", "vqav2_process_results", **given)["vqav2_process_results"]
    text = functions("tasks/textvqa/utils.py", "textvqa_process_results", **given)["textvqa_process_results"]

    def vqav2(reply: str, answers: list[str]) -> float:
        rows = [{"answer": answer, "answer_id": index} for index, answer in enumerate(answers)]
        return v2({"answers": rows, "question_id": 0}, [reply])["exact_match"]

    yield from of_answers("vqa", vqav2, rng, True)
    textvqa = lambda reply, answers: text({"answers": list(answers), "question_id": 0}, [reply])["exact_match"]  # noqa: E731
    yield from of_answers("textvqa", textvqa, rng, True)
    similar = functions("api/metrics.py", "levenshtein_distance", "anls")["anls"]
    yield from of_answers("anls", lambda reply, answers: similar(answers, [reply])["anls"], rng, True)
    relaxed = functions("tasks/chartqa/utils.py", "relaxed_correctness")["relaxed_correctness"]
    yield from of_answers("relaxed", lambda reply, answers: float(relaxed(reply, answers[0])), rng, False)
    names = "_fold_fullwidth_ascii", "ocrbench_process_results"
    ocr = functions("tasks/ocrbench/utils.py", *names)["ocrbench_process_results"]
    for name, dataset in (("contains", "TextVQA"), ("contains-formula", "HME100k")):

        def found(reply: str, answers: list[str], dataset: str = dataset) -> float:
            row = {"answer": answers, "dataset": dataset, "question_type": ""}
            return float(ocr(row, [reply])["ocrbench_accuracy"]["score"])

        yield from of_answers(name, found, rng, True)
    mtvqa = functions("tasks/mtvqa/utils.py", "mtvqa_process_results")["mtvqa_process_results"]

    def dotless(reply: str, answers: list[str]) -> float:
        return mtvqa({"answer": answers[0], "category": ""}, [reply])["mtvqa_score"]["score"]

    yield from of_answers("contains-mtvqa", dotless, rng, False)


def choice_cases() -> Iterator[Any]:
    """Which option a reply means."""
    options = {"A": "red", "B": "blue", "C": "green", "D": "dark red"}
    ranked = functions(
        "tasks/_task_utils/mcq_extract.py",
        "_ANSWER_PHRASES",
        "_FORMAT_PRIORITY",
        "_DEFAULT_CHOICES",
        "extract_mcq_answer",
    )["extract_mcq_answer"]
    numpy = type("numpy", (), {"argmax": staticmethod(lambda numbers: numbers.index(max(numbers)))})
    drawn = type("random", (), {"choice": staticmethod(lambda _: None)})
    mmmu = functions("tasks/_task_utils/mmmu_mcq_utils.py", "parse_mmmu_multi_choice_response", np=numpy, random=drawn)[
        "parse_mmmu_multi_choice_response"
    ]
    log = type("log", (), {"info": staticmethod(lambda _: None)})
    judge = functions("tasks/mmbench/mmbench_evals.py", "MMBench_Evaluator", eval_logger=log)["MMBench_Evaluator"]
    infer = judge.can_infer
    evaluator = judge.__new__(judge)
    base = type("ExtendedRegexFilter", (), {"__init__": lambda self, *_, **__: None})
    filters = functions("tasks/ai2d/utils.py", "MultiChoiceRegexFilter", ExtendedRegexFilter=base)
    leading = filters["MultiChoiceRegexFilter"]()
    strip = str.maketrans("", "", string.punctuation)
    for reply in CHOSEN:
        yield {"metric": "choice-ranked", "reply": reply, "options": options, "pick": ranked(reply, list("ABCD"))}
        picked = mmmu(reply, list(options), options)
        yield {"metric": "mmmu", "reply": reply, "options": options, "pick": picked}
        picked = infer(evaluator, reply, dict(options))
        yield {"metric": "choice-inferred", "reply": reply, "options": options, "pick": picked or None}
        picked = leading.apply([[reply]], [{}])[0].lower().translate(strip)
        for letter in "AB":
            score = float(picked == letter.lower())
            yield {"metric": "choice-leading", "reply": reply, "answers": [letter], "options": options, "score": score}
        yes = "yes" if reply.lower().find("yes") != -1 else "no"
        yield {"metric": "yes-no", "reply": reply, "pick": yes}


def open_cases(rng: random.Random) -> Iterator[Any]:
    """MMMU's open questions and MathVista's free ones."""
    names = "extract_numbers", "check_is_number", "normalize_str", "parse_open_response", "eval_open"
    space = functions("tasks/mmmu/utils.py", *names)
    answers = ["42", "3.14", "1,234.5", "photosynthesis", "b", "5", "m/s"]
    for reply in OPEN:
        for answer in answers:
            score = float(space["eval_open"]([answer], space["parse_open_response"](reply)))
            yield {"metric": "mmmu", "reply": reply, "answers": [answer], "score": score}
    log = type("log", (), {name: staticmethod(lambda _: None) for name in ("info", "error")})
    distance = functions("api/metrics.py", "levenshtein_distance")["levenshtein_distance"]
    nobody = lambda **_: None  # noqa: E731  (the hosted model that is not asked)
    given = {
        "distance": distance,
        "eval_logger": log,
        "os": os,
        "ServerConfig": nobody,
        "get_server": nobody,
        "shot_examples": [],
    }
    kind = functions("tasks/mathvista/mathvista_evals.py", "MathVistaEvaluator", **given)
    evaluator = kind["MathVistaEvaluator"].__new__(kind["MathVistaEvaluator"])
    evaluator.get_chat_response = lambda *_, **__: ""
    evaluator.create_test_prompt = lambda *_: ""
    kind["DEMO_PROMPT"] = ""
    replies = [
        "3",
        "3.7",
        "-2",
        "1e2",
        "three",
        'The answer is "4".',
        'The answer is "4.256".',
        "4.25",
        "4.256",
        "",
        "12,5",
        "[1, 2]",
    ]
    for reply, answer_type, precision in itertools.product(replies, ("integer", "float"), (1, 2)):
        problem = {"question_type": "free_form", "answer_type": answer_type, "query": "", "choices": []}
        taken = evaluator.extract_answer(reply, problem, quick_extract=True)
        value = evaluator.normalize_extracted_answer(taken, [], "free_form", answer_type, precision)
        for answer in ("3", "4", "100", "4.26", "4.3"):
            score = float(evaluator.safe_equal(value, answer))
            more = {"answer_type": answer_type, "precision": precision}
            yield {"metric": "mathvista", "reply": reply, "answers": [answer], "score": score, **more}
    options = {"A": "3 cm", "B": "30 cm", "C": "0.3 m"}
    for reply in ("3 cm", "30cm", "(B)", "(c) 0.3 m", "B", "C", "b", "30", "about 0.3 m", 'The answer is "30 cm".'):
        choices = list(options.values())
        quoted = re.search(r'The answer is "(.*)"\.', reply)
        taken = quoted[1] if quoted and reply not in choices else reply
        value = evaluator.normalize_extracted_answer(taken, choices, "multi_choice", "text", 0)
        for answer in choices:
            score = float(evaluator.safe_equal(value, answer))
            yield {"metric": "mathvista", "reply": reply, "answers": [answer], "options": options, "score": score}


def main() -> None:
    """Writes every case as one line of a JSON list."""
    found = importlib.metadata.version("lmms_eval")
    if found != VERSION:
        sys.exit(f"lmms_eval {found} is installed; the golden scores are {VERSION}'s")
    rng = random.Random(20241121)
    cases = [*text_cases(rng), *choice_cases(), *open_cases(rng)]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    sys.stdout.write(f'{{"reference": "lmms_eval {VERSION}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
