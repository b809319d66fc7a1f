"""Sound as numbers, and wav files read: integers of 8 to 64 bits and floats, any rate and number of channels.

Sound is a NumPy array of float32, [n] samples of one channel within −1 … 1, and its rate in samples per second. The
standard library's `wave` reads neither floats nor the extensible header that most programs write for 24 bits, so the
chunks are read here (Microsoft, "Multiple channel audio data and WAVE files").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import AudioError
from stages.device.speech.resampling import resample

# A question is short; what is longer is a mistake, and would hold a recogniser for minutes.
MAX_SECONDS = 120.0
# At 120 s this holds 8 channels of 64-bit floats at 96 kHz.
MAX_BYTES = 768 * 2**20
LEAST_RATE, MOST_RATE = 2_000, 1_000_000
# The quietest peak that can hold speech: −60 dB of full scale.
QUIET = 1e-3

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# What writers put where they could not go back to fill in a length (pipes).
_UNKNOWN_LENGTHS = (0, 0x7FFFFFFF, 0xFFFFFFFF)
_CONVERT = "Convert it, for example: ffmpeg -i FILE -ac 1 -ar 16000 -c:a pcm_s16le question.wav"


@dataclass(frozen=True)
class Recording:
    """Sound of one channel.

    Attributes:
        samples: [n] float32 within −1 … 1.
        rate: samples per second.
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate

    def at(self, rate: int) -> Recording:
        """The same sound at another rate."""
        return self if rate == self.rate else Recording(resample(self.samples, self.rate, rate), rate)

    def pcm16(self) -> NDArray[np.int16]:
        """[n] as 16-bit integers, clipped."""
        return np.rint(np.clip(self.samples, -1, 1) * 32767).astype(np.int16)


@dataclass(frozen=True)
class _Format:
    code: int
    channels: int
    rate: int
    frame: int
    bits: int


def read_wav(path: Path) -> Recording:
    """Reads a wav file; several channels are averaged.

    Raises:
        AudioError: it is missing, no wav file, cut off, in a form that is not read, empty, silent or too long.
    """
    content = _content(path)
    form, data = _chunks(path, content)
    _check(path, form)
    if len(data) < form.frame:
        raise AudioError(f"{path} holds no sound.", "There is no question in it.", "Record it again.")
    seconds = len(data) / form.frame / form.rate
    if seconds > MAX_SECONDS:
        raise _too_long(f"{path} is {seconds:,.0f} s long")
    samples = _decode(form, data[: len(data) // form.frame * form.frame])
    if not np.isfinite(samples).all():
        raise AudioError(f"{path} holds samples that are no numbers (NaN or infinite).", "It is broken.", _CONVERT)
    mono = np.clip(samples.reshape(-1, form.channels).mean(axis=1), -1, 1).astype(np.float32)
    if np.abs(mono).max() < QUIET:
        raise AudioError(f"{path} is silent.", "There is no question in it.", "Record it again, louder.")
    return Recording(mono, form.rate)


def _content(path: Path) -> bytes:
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise AudioError(f"{path} {problem}.", "A recording is needed to listen to.", "Name a wav file.")
    if path.stat().st_size > MAX_BYTES:
        raise _too_long(f"{path} has {path.stat().st_size / 2**20:,.0f} MiB")
    return path.read_bytes()


def _too_long(what: str) -> AudioError:
    return AudioError(
        f"{what}.", f"A spoken question has at most {MAX_SECONDS:.0f} s.", "Cut out the question and give that."
    )


def _chunks(path: Path, content: bytes) -> tuple[_Format, bytes]:
    if not content:
        raise AudioError(f"{path} is empty.", "There is no question in it.", "Record it again.")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise AudioError(f"{path} is no wav file.", "Only wav (RIFF) recordings are read.", _CONVERT)
    form: _Format | None = None
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        body = place + 8
        if name == b"fmt ":
            form = _read_format(path, content[body : body + size])
        elif name == b"data":
            if form is None:
                raise _broken(path, "its sound comes before its format")
            rest = len(content) - body
            if size > rest and size not in _UNKNOWN_LENGTHS:
                raise _broken(path, f"it announces {size:,} bytes of sound and has {rest:,}")
            return form, content[body:] if size in _UNKNOWN_LENGTHS else content[body : body + size]
        place = body + size + size % 2
    raise _broken(path, "it has no sound" if form else "it has no format")


def _read_format(path: Path, body: bytes) -> _Format:
    if len(body) < 16:
        raise _broken(path, "its format is cut off")
    code, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE and len(body) >= 26:
        (code,) = struct.unpack_from("<H", body, 24)
    return _Format(code, channels, rate, frame, bits)


def _check(path: Path, form: _Format) -> None:
    widths = {_PCM: (1, 2, 3, 4, 8), _FLOAT: (4, 8)}.get(form.code)
    if widths is None:
        raise AudioError(
            f"{path} is a wav file of the kind {form.code:#06x}.", "Only PCM and floats are read.", _CONVERT
        )
    if not 1 <= form.channels <= 64 or form.frame % form.channels or form.frame // form.channels not in widths:
        raise _broken(path, f"it has {form.channels} channels of {form.bits} bits in {form.frame} bytes")
    if not LEAST_RATE <= form.rate <= MOST_RATE:
        raise _broken(path, f"it has {form.rate:,} samples a second")


def _broken(path: Path, how: str) -> AudioError:
    return AudioError(f"{path} is a broken wav file: {how}.", "It cannot be listened to.", _CONVERT)


def _decode(form: _Format, data: bytes) -> NDArray[np.float32]:
    width = form.frame // form.channels
    if form.code == _FLOAT:
        return np.frombuffer(data, "<f4" if width == 4 else "<f8").astype(np.float32)
    if width == 1:  # the only unsigned width
        return ((np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128).astype(np.float32)
    if width == 3:
        # Three bytes become the upper three of four: the sign comes along.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    whole = np.frombuffer(data, np.dtype(f"<i{width}")).astype(np.float64)
    return (whole / 2.0 ** (8 * width - 1)).astype(np.float32)
