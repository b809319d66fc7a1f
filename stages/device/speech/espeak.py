"""Sound of text by espeak-ng, from the wheel espeakng-loader, through ctypes (espeak-ng, speak_lib.h).

espeak-ng is GPL: it comes with the extra `speech` and never with a plain install. Its library holds one state for the
whole process, so it is set up once, and one text is said at a time.
"""

from __future__ import annotations

import ctypes
import difflib
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import AudioError, UsageError
from stages.device.speech.missing import need_package
from stages.device.speech.recording import Recording

DEFAULT_VOICE = "en-us"
# Words a minute at rate 1, and what espeak-ng takes.
_USUAL_SPEED, _SLOWEST, _FASTEST = 165, 80, 450
_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_SPEED = 1
_UTF8, _END_PAUSE = 1, 0x1000

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _VoiceEntry(ctypes.Structure):
    """The beginning of espeak_VOICE."""

    _fields_ = (("name", ctypes.c_char_p), ("languages", ctypes.c_void_p), ("identifier", ctypes.c_char_p))


class Espeak:
    """A voice of espeak-ng.

    Args:
        voice: a language or voice (`en-us`, `de`, `en-gb+f3`).
        rate: how fast; 1 is usual.

    Raises:
        MissingExtraError: espeakng-loader is not installed.
        AudioError: the library cannot be used.
        UsageError: there is no such voice, or the rate is out of range.
    """

    def __init__(self, voice: str = DEFAULT_VOICE, rate: float = 1.0) -> None:
        self.voice = voice
        self._speed = round(_USUAL_SPEED * rate)
        if not _SLOWEST <= self._speed <= _FASTEST:
            raise UsageError(
                f"speech_rate is {rate}.",
                f"espeak-ng speaks {_SLOWEST} to {_FASTEST} words a minute; 1 stands for {_USUAL_SPEED}.",
                "Give 0.5 to 2.7.",
            )
        self._library = _library()
        with self._library.lock:
            self._choose()

    @property
    def rate(self) -> int:
        """Samples per second of what it says."""
        return self._library.rate

    def synthesize(self, text: str) -> Recording:
        """The sound of a text.

        Raises:
            AudioError: espeak-ng fails.
        """
        with self._library.lock:
            self._choose()
            return Recording(self._library.say(text, self._speed), self.rate)

    def _choose(self) -> None:
        if not self._library.choose(self.voice):
            near = difflib.get_close_matches(self.voice, self._library.voices(), 3, 0.5)
            hint = f"Near it: {', '.join(near)}. " if near else ""
            raise UsageError(
                f"--voice: espeak-ng has no voice {self.voice!r}.",
                "It names the language and the speaker of what is said.",
                f"{hint}Give a language such as en-us, en-gb, de, fr, es or cmn, or a piper voice: --voice FILE.onnx",
            )


class _Library:
    """espeak-ng, set up."""

    def __init__(self, library: Any, data: str) -> None:
        self.lock = Lock()
        self._library = library
        self._pieces: list[NDArray[np.int16]] = []
        self._callback = _Callback(self._take)  # kept, or it would be collected while C holds it
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceEntry))
        library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
            *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
        ]
        self.rate: int = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
        if self.rate <= 0:
            raise AudioError(
                f"espeak-ng cannot read its data at {data}.",
                "Nothing can be said without it.",
                "Install the extra again, where the path is short: pip install --force-reinstall espeakng-loader",
            )
        library.espeak_SetSynthCallback(self._callback)

    def choose(self, voice: str) -> bool:
        """Whether there is such a voice, by its name or its language; a variant may follow behind a plus."""
        language, plus, variant = voice.partition("+")
        identifier = self.voices().get(language)
        names = [voice] if identifier is None else [identifier + plus + variant, voice]
        return any("\0" not in name and self._library.espeak_SetVoiceByName(name.encode()) == 0 for name in names)

    @cache  # noqa: B019 (there is one library in a process)
    def voices(self) -> dict[str, str]:
        """The identifier of each language's voice."""
        found: dict[str, str] = {}
        entries = self._library.espeak_ListVoices(None)
        index = 0
        while entries[index]:
            # A list of a priority byte and a name each, ended by a zero; the first is the language itself.
            entry = entries[index].contents
            found.setdefault(ctypes.string_at(entry.languages + 1).decode(), entry.identifier.decode())
            index += 1
        return found

    def say(self, text: str, speed: int) -> NDArray[np.float32]:
        self._pieces.clear()
        self._library.espeak_SetParameter(_SPEED, speed, 0)
        content = text.replace("\0", " ").encode()
        done = self._library.espeak_Synth(content, len(content) + 1, 0, 1, 0, _UTF8 | _END_PAUSE, None, None)
        if done != 0 or self._library.espeak_Synchronize() != 0:
            raise AudioError("espeak-ng failed.", f"It could not say {text[:60]!r}.", "Leave --speak away.")
        whole = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        return (whole / 32768.0).astype(np.float32)

    def _take(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


@cache
def _library() -> _Library:
    loader = need_package("espeakng_loader", "espeakng-loader", "speaking")
    try:
        library = ctypes.CDLL(loader.get_library_path())
        data = loader.get_data_path()
    except (OSError, RuntimeError) as error:
        raise AudioError(
            f"espeak-ng cannot be loaded: {error}.",
            "The wheel does not fit this machine, or is damaged.",
            "Install it again: pip install --force-reinstall espeakng-loader",
        ) from None
    return _Library(library, data)
