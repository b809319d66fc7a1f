"""The rules of a JSGF file as a tree (JSpeech Grammar Format, W3C Note 2000).

Read: rules, choices, groups, options, repetitions; weights and tags are passed over; imports are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.artifacts.errors import UsageError

_HEADER = re.compile(r"\ufeff?#JSGF\s+V1\.0[^;\n]*;")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TOKEN = re.compile(r"<[^<>\s]+>|/\s*[0-9.eE+-]+\s*/|\{[^{}]*\}|[][()|;=*+]|[^][()|;=*+<>{}/\s]+|\S")


@dataclass(frozen=True)
class Word:
    """A word that is said."""

    text: str


@dataclass(frozen=True)
class Reference:
    """Another rule, by its name."""

    rule: str


@dataclass(frozen=True)
class Sequence:
    """Parts said one after the other."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Choice:
    """One of several; an optional part is a choice that may be nothing."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Repeat:
    """A part said once or more often (nothing at all where a choice allows it)."""

    part: Part


Part = Word | Reference | Sequence | Choice | Repeat
NOTHING = Sequence(())


@dataclass(frozen=True)
class Rules:
    """What a file defines: rules by name, without brackets, and the public ones, which begin a sentence."""

    by_name: dict[str, Part]
    public: tuple[str, ...]


def read_rules(text: str, place: str) -> Rules:
    """Reads the rules of a JSGF text.

    Args:
        text: the whole file.
        place: what messages call it.

    Raises:
        UsageError: it is no JSGF; the message names the line.
    """
    header = _HEADER.match(text)
    if header is None:
        raise wrong(place, "it does not begin with #JSGF V1.0;")
    body = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text[header.end() :])
    first = text[: header.end()].count("\n") + 1
    tokens = [(found.group(), first + body[: found.start()].count("\n")) for found in _TOKEN.finditer(body)]
    reader = _Reader(place, tokens)
    reader.read()
    return Rules(reader.rules, tuple(reader.public))


def wrong(place: str, how: str) -> UsageError:
    """The three beats of a grammar that cannot be used."""
    return UsageError(
        f"The grammar {place} cannot be used: {how}.",
        "The recogniser hears only what its grammar allows.",
        "Correct the file; the shipped stages/device/speech/questions.jsgf shows the form.",
    )


class _Reader:
    """Reads rules from tokens: (token, line)."""

    def __init__(self, place: str, tokens: list[tuple[str, int]]) -> None:
        self.place = place
        self._tokens = tokens
        self._next = 0
        self.rules: dict[str, Part] = {}
        self.public: list[str] = []

    def read(self) -> None:
        if self._peek() != "grammar":
            raise self._unexpected("grammar NAME;")
        self._take()
        self._take()
        self._expect(";")
        while self._peek():
            if self._peek() == "import":
                raise self._unexpected("a rule (imports are not read)")
            public = self._peek() == "public"
            if public:
                self._take()
            name = self._take()
            if not name.startswith("<"):
                self._next -= 1
                raise self._unexpected("<RULE> = …;")
            self._expect("=")
            if name[1:-1] in self.rules:
                raise wrong(self.place, f"{name} is defined twice")
            self.rules[name[1:-1]] = self._choice()
            self._expect(";")
            if public:
                self.public.append(name[1:-1])

    def _choice(self) -> Part:
        parts = [self._sequence()]
        while self._peek() == "|":
            self._take()
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self) -> Part:
        parts: list[Part] = []
        while (token := self._peek()) and token not in ("|", ")", "]", ";"):
            if token.startswith(("/", "{")) and len(token) > 1:  # a weight or a tag says nothing about the words
                self._take()
                continue
            parts.append(self._repeated())
        if not parts:
            raise self._unexpected("a word, <RULE>, ( or [")
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self) -> Part:
        part = self._single()
        while self._peek() in ("*", "+"):
            star = self._take() == "*"
            part = Choice((Repeat(part), NOTHING)) if star else Repeat(part)
        return part

    def _single(self) -> Part:
        token = self._peek()
        if token in ("(", "["):
            self._take()
            inner = self._choice()
            self._expect(")" if token == "(" else "]")
            return inner if token == "(" else Choice((inner, NOTHING))
        if token == "<NULL>":
            self._take()
            return NOTHING
        if token.startswith("<") and len(token) > 1:
            return Reference(self._take()[1:-1])
        if token in tuple("=*+/<>{}"):
            raise self._unexpected("a word, <RULE>, ( or [")
        return Word(self._take())

    def _peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        if not token:
            raise self._unexpected("more")
        self._next += 1
        return token

    def _expect(self, token: str) -> None:
        if self._peek() != token:
            raise self._unexpected(token)
        self._take()

    def _unexpected(self, wanted: str) -> UsageError:
        found = f"{self._peek()!r}" if self._peek() else "the end"
        line = self._tokens[min(self._next, len(self._tokens) - 1)][1] if self._tokens else 1
        return wrong(self.place, f"line {line} has {found} where {wanted} should be")
