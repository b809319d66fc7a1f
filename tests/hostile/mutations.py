"""Bytes made worse: a few random changes to a well-formed file, the same for the same seed."""

from __future__ import annotations

import random

# What parsers stumble over, as text and as bytes.
WORDS = (
    b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"-1", b"1e999", b"9" * 5000, b"NaN", b"null", b"true", b"[", b"{", b'"',
    b"[" * 3000, b'{"a":' * 3000, b"&a [*a]", b"*x", b"<<: *x", b"? [a]: b", b"!!binary x",
    b"!!python/object/apply:os.system [x]",
    b"1:99:99", b"2001-99-99", b"../../etc/passwd", b"/etc/passwd", b"\x1b[2J", "\u202e".encode(), b"\r\n", b"%n%s",
    b"\\ud800", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x00\x00\x00\x80",
)  # fmt: skip


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """One to four changes."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        until = min(len(data), at + rng.choice((0, 1, 1, 2, 8, 64)))
        match rng.randrange(5):
            case 0:
                data[at:until] = rng.choice(WORDS)
            case 1:
                data[at:until] = b""
            case 2:
                data[at:until] = rng.randbytes(until - at)
            case 3 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case _:
                data[at:at] = data[at:until] * rng.choice((1, 2, 50))
    return bytes(data)
