"""The languages of the pages: their scripts, words and sentences; each text belongs to one split."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stages.workshop.corpus.rendering.languages_latin import LATIN_LANGUAGES
from stages.workshop.corpus.rendering.languages_other import OTHER_LANGUAGES
from stages.workshop.corpus.rendering.split import Split, belongs

_HELD_OUT = 3
# How each script divides the words of a list, where not by commas as Latin does.
_COMMAS = {"arabic": "، ", "han": "、", "kana": "、"}


@dataclass(frozen=True)
class Language:
    """A language's name in English, the script that fonts must cover, and its texts."""

    name: str
    script: str
    words: tuple[str, ...]
    sentences: tuple[str, ...]

    def words_of(self, split: Split) -> tuple[str, ...]:
        """Words that belong to a split."""
        return _of_split(self.words, split)

    def sentences_of(self, split: Split) -> tuple[str, ...]:
        """Sentences that belong to a split: there are few, so the lists say which (the last three are held out)."""
        return self.sentences[-_HELD_OUT:] if split == "heldout" else self.sentences[:-_HELD_OUT]

    @property
    def comma(self) -> str:
        """What stands between the words of a list."""
        return _COMMAS.get(self.script, ", ")


@functools.cache
def _of_split(texts: tuple[str, ...], split: Split) -> tuple[str, ...]:
    return tuple(text for text in texts if belongs(text, split))


def _read(name: str, script: str, words: str, sentences: str) -> Language:
    divided = (" ".join(sentence.split()) for sentence in sentences.split("|"))
    return Language(name, script, tuple(dict.fromkeys(words.split())), tuple(divided))


LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {name: _read(name, *texts) for name, texts in {**LATIN_LANGUAGES, **OTHER_LANGUAGES}.items()}
)
