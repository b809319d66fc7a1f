"""A grammar of what may be said: checked before a recogniser compiles it, listed and drawn from.

pocketsphinx says of a bad grammar only that it failed; here every undefined rule, recursion and bad word is named.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.device.speech.jsgf import NOTHING, Choice, Part, Reference, Repeat, Sequence, Word, read_rules, wrong

MAX_BYTES = 2**20
_WORD = re.compile(r"[a-z0-9'._-]+(\(\d+\))?\Z")


@dataclass(frozen=True)
class Grammar:
    """What may be said.

    Attributes:
        text: the file, for the recogniser.
        rules: by name, without brackets.
        public: the rules that begin a sentence.
        place: what messages call it.
    """

    text: str
    rules: dict[str, Part]
    public: tuple[str, ...]
    place: str

    @property
    def words(self) -> set[str]:
        """Every word that occurs."""
        return {word for part in self.rules.values() for word in _words(part)}

    def draw(self, rng: random.Random) -> str:
        """A sentence: every choice is as likely as its neighbours; what repeats is said once or twice."""
        return " ".join(self._draw(Reference(rng.choice(self.public)), rng))

    def sentences(self) -> Iterator[str]:
        """All sentences, with each repetition once; a sentence that two rules allow comes twice."""
        for rule in self.public:
            for words in self._all(Reference(rule)):
                yield " ".join(words)

    def _draw(self, part: Part, rng: random.Random) -> list[str]:
        match part:
            case Word(text):
                return [text]
            case Reference(rule):
                return self._draw(self.rules[rule], rng)
            case Sequence(parts):
                return [word for inner in parts for word in self._draw(inner, rng)]
            case Choice(parts):
                return self._draw(rng.choice(parts), rng)
            case Repeat(inner):
                return [word for _ in range(rng.choice((1, 2))) for word in self._draw(inner, rng)]

    def _all(self, part: Part) -> Iterator[list[str]]:
        match part:
            case Word(text):
                yield [text]
            case Reference(rule):
                yield from self._all(self.rules[rule])
            case Sequence(()):
                yield []
            case Sequence(parts):
                for head in self._all(parts[0]):
                    for rest in self._all(Sequence(parts[1:])):
                        yield head + rest
            case Choice(parts):
                for inner in parts:
                    yield from self._all(inner)
            case Repeat(inner):
                yield from self._all(inner)


def shipped_grammar() -> Grammar:
    """The question forms that come with bluelm."""
    return read_grammar(Path(__file__).with_name("questions.jsgf"))


def read_grammar(path: Path) -> Grammar:
    """Reads a grammar file.

    Raises:
        UsageError: it is missing, no JSGF, or its rules cannot work; all bad rules together.
    """
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise UsageError(f"--grammar: {path} {problem}.", "It says what may be asked.", "Name a JSGF file.")
    content = path.read_bytes()
    if len(content) > MAX_BYTES:
        raise UsageError(
            f"--grammar: {path} has {len(content):,} bytes.",
            f"A grammar of more than {MAX_BYTES:,} bytes would be heard too slowly.",
            "Make it smaller.",
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(
            f"--grammar: {path} is no UTF-8 text.", "JSGF is a text format.", "Save it as UTF-8."
        ) from None
    return parse_grammar(text, str(path))


def parse_grammar(text: str, place: str) -> Grammar:
    """Reads a grammar.

    Args:
        text: JSGF.
        place: what messages call it.

    Raises:
        UsageError: see `read_grammar`.
    """
    rules = read_rules(text, place)
    grammar = Grammar(text, rules.by_name, rules.public, place)
    raise_all(list(_problems(grammar)))
    return grammar


def _problems(grammar: Grammar) -> Iterator[BluelmError]:
    if not grammar.public:
        yield wrong(grammar.place, "no rule is public")
    for rule, part in grammar.rules.items():
        for name in sorted(_references(part) - grammar.rules.keys()):
            yield wrong(grammar.place, f"<{rule}> uses <{name}>, which is not defined")
    for rule in grammar.rules:
        if rule in _reached(grammar, rule):
            yield wrong(grammar.place, f"<{rule}> is defined by itself")
    bad = sorted(word for word in grammar.words if not _WORD.match(word))
    if bad:
        yield wrong(grammar.place, f"these are no words in lower-case English: {', '.join(bad[:10])}")


def _words(part: Part) -> Iterator[str]:
    match part:
        case Word(text):
            yield text
        case Sequence(parts) | Choice(parts):
            for inner in parts:
                yield from _words(inner)
        case Repeat(inner):
            yield from _words(inner)
        case Reference():
            pass


def _references(part: Part) -> set[str]:
    match part:
        case Reference(rule):
            return {rule}
        case Sequence(parts) | Choice(parts):
            return {name for inner in parts for name in _references(inner)}
        case Repeat(inner):
            return _references(inner)
        case Word():
            return set()


def _reached(grammar: Grammar, rule: str) -> set[str]:
    """All rules that a rule leads to."""
    found: set[str] = set()
    waiting = [rule]
    while waiting:
        for name in _references(grammar.rules.get(waiting.pop(), NOTHING)) - found:
            found.add(name)
            waiting.append(name)
    return found
