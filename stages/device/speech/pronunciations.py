"""British pronunciations of words whose American ones a dictionary has, by rule (J. C. Wells, "Accents of English",
1982, ch. 3 and 4: r only before a vowel, LOT rounded, BATH broad).

pocketsphinx' dictionary is American: it knows no speaker who says "number" without its r. Phones are ARPAbet without
stress, as in the CMU dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_VOWELS = frozenset(("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"))
# Where AE becomes AA: "last", "half", "bath".
_BROAD_BEFORE = ("S", "F", "TH")
# Vowels after which a lost r leaves a schwa: "there", "here".
_GLIDING = ("EH", "IH")


def british(phones: Sequence[str]) -> tuple[str, ...]:
    """A word as it is said in the south of England."""
    return tuple(_britished(phones))


def _britished(phones: Sequence[str]) -> Iterator[str]:
    for before, phone, after in zip(["", *phones], phones, [*phones[1:], ""], strict=False):
        match phone:
            case "R" if after not in _VOWELS:
                if before in _GLIDING:
                    yield "AH"
            case "ER":
                yield "AH"
                if after in _VOWELS:
                    yield "R"
            case "AA" if after != "R":
                yield "AO"
            case "AE" if after in _BROAD_BEFORE:
                yield "AA"
            case _:
                yield phone
