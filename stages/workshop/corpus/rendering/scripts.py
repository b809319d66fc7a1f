"""Scripts that pages are written in, and the characters that a font must have to print them."""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping
from types import MappingProxyType

# Characters beside those of the shipped texts; every script but Latin also needs digits and points.
_LETTERS: Mapping[str, str] = MappingProxyType(
    {
        "latin": string.ascii_letters + string.punctuation,
        "latin-extended": string.ascii_letters,
        "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
        "greek": "αβγδεζηθικλμνξοπρστυφχψως",
        "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
        "hebrew": "אבגדהוזחטיכלמנסעפצקרשתםןףץך",
        "devanagari": "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह",
        "thai": "กขคงจฉชซญฐณดตถทธนบปผฝพฟภมยรลวศษสหอฮ",
        "han": "一二三四五六七八九十",
        "kana": "あいうえおかきくけこアイウエオカキクケコ",
        "hangul": "가나다라마바사아자차카타파하",
    }
)
SCRIPTS = tuple(_LETTERS)


@functools.cache
def characters_of(script: str) -> frozenset[int]:
    """Code points that a font needs to print whatever we write in a script."""
    return frozenset(map(ord, _LETTERS[script] + string.digits + ".,"))
