"""Synthesizes questions, transcribes them with the grammar and in free dictation, and counts (see speech.sh)."""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import BluelmError
from stages.device.speech.espeak import Espeak
from stages.device.speech.grammar import Grammar, read_grammar, shipped_grammar
from stages.device.speech.sphinx import Sphinx
from stages.device.speech.transcribing import Transcriber, as_question

# Some of every kind that the grammar has; chosen before anything was measured.
QUESTIONS = (
    "What colour is the shape?",
    "Which colour does the shape have?",
    "What shape is in the picture?",
    "Which shape do you see?",
    "How many circles are there?",
    "Count the red squares.",
    "What does the sign say?",
    "Read the text.",
    "Which word is printed here?",
    "What number do you see?",
    "Which number is printed here?",
    "What is the price?",
    "How much does it cost?",
    "What does line 3 say?",
    "What is the title of the page?",
    "What is the total?",
    "What is the date on the receipt?",
    "What does the left button say?",
    "Which app is in the top right corner?",
    "Where is the triangle?",
    "How many rows does the table have?",
    "Which one has the largest value?",
    "What is in the picture?",
    "Describe the picture.",
)


@dataclass(frozen=True)
class Heard:
    """One question said by one voice: what the grammar and free dictation made of it."""

    voice: str
    said: str
    grammar: str
    dictation: str


@dataclass(frozen=True)
class Counts:
    """How one way of hearing did: exact transcriptions and the share of words that were wrong."""

    questions: int
    exact: int
    word_error: float


def words(text: str) -> list[str]:
    """A question as words alone: no capitals, no marks."""
    return re.findall(r"[a-z0-9']+", text.lower())


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words to insert, delete or exchange between two texts (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for place, word in enumerate(said, 1):
        before, row[0] = row[0], place
        for index, other in enumerate(heard, 1):
            before, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, before + (word != other))
    return row[-1]


def counts(pairs: Sequence[tuple[str, str]]) -> Counts:
    """Counts pairs of what was said and heard."""
    wrong = sum(edits(words(said), words(heard)) for said, heard in pairs)
    exact = sum(words(said) == words(heard) for said, heard in pairs)
    return Counts(len(pairs), exact, wrong / sum(len(words(said)) for said, _ in pairs))


def hear(questions: Sequence[str], voice: str, rate: float, ways: Sequence[Transcriber]) -> list[Heard]:
    """Says and writes down every question."""
    speaker = Espeak(voice, rate)
    heard = []
    for said in questions:
        sound = speaker.synthesize(said)
        grammar, dictation = (way.transcribe(sound) for way in ways)
        heard.append(Heard(voice, said, grammar, dictation))
        if sys.stderr.isatty():
            sys.stderr.write(f"{voice}: {said} -> {grammar} | {dictation}\n")
    return heard


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voices", default="en-us+f3,en-us,en-gb")
    parser.add_argument("--rate", type=float, default=1.0, help="how fast; 1 is usual")
    parser.add_argument("--drawn", type=int, default=0, help="sentences drawn from the grammar instead of the 24")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grammar", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        grammar = shipped_grammar() if options.grammar is None else read_grammar(options.grammar)
        ways = (Sphinx(grammar), Sphinx(None))
        questions = drawn(grammar, options.drawn, options.seed) if options.drawn else list(QUESTIONS)
        found = {voice: hear(questions, voice, options.rate, ways) for voice in options.voices.split(",")}
    except BluelmError as error:
        sys.exit(f"Error: {error.what}\n  Why: {error.why}\n  Fix: {error.fix}")
    if options.json:
        sys.stdout.write(json.dumps(report(found), indent=2) + "\n")
        return
    for voice, heard in found.items():
        sys.stdout.write(f"\n{voice}\n")
        for item in heard:
            mark = " " if words(item.said) == words(item.grammar) else "x"
            sys.stdout.write(f"{mark} {item.said:42} {item.grammar:42} {item.dictation}\n")
    sys.stdout.write("\nvoice        way        exact  word error\n")
    for name, ways_counted in report(found)["counts"].items():
        for way, made in ways_counted.items():
            exact = f"{made['exact']}/{made['questions']}"
            sys.stdout.write(f"{name:12} {way:10} {exact:>6}  {made['word_error']:9.1%}\n")


def drawn(grammar: Grammar, number: int, seed: int) -> list[str]:
    """Sentences of the grammar by lot, each once."""
    rng = random.Random(seed)
    every = sorted({as_question(sentence) for sentence in grammar.sentences()})
    return rng.sample(every, min(number, len(every)))


def report(found: dict[str, list[Heard]]) -> dict[str, dict[str, Any]]:
    """Every question, and the counts of each voice."""
    counted: dict[str, Any] = {
        voice: {
            "grammar": asdict(counts([(item.said, item.grammar) for item in heard])),
            "dictation": asdict(counts([(item.said, item.dictation) for item in heard])),
        }
        for voice, heard in found.items()
    }
    return {"counts": counted, "heard": {voice: [asdict(item) for item in heard] for voice, heard in found.items()}}


if __name__ == "__main__":
    main()
