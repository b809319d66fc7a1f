"""Sound of text by a piper voice: an ONNX model with its configuration beside it, run by the package piper-tts (GPL).

Voices are files that the user has; none is fetched. Languages whose phonemes piper takes from models that it would
download are refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stages.artifacts.errors import AudioError, BluelmError, UsageError
from stages.device.speech.missing import need_package
from stages.device.speech.recording import Recording

_READ_WITHOUT_DOWNLOAD = ("espeak", "text")


class Piper:
    """A piper voice.

    Args:
        path: its ONNX file; the configuration lies beside it as `NAME.onnx.json`.
        rate: how fast; 1 is usual.

    Raises:
        UsageError: a file is missing, or the rate is out of range.
        MissingExtraError: piper-tts is not installed.
        AudioError: the files are no piper voice.
    """

    def __init__(self, path: Path, rate: float = 1.0) -> None:
        if not 0.2 <= rate <= 5:
            raise UsageError(f"speech_rate is {rate}.", "1 is the usual pace.", "Give 0.2 to 5.")
        self.path = path
        self._check()
        library = need_package("piper", "piper-tts", f"the voice {path}", extra="piper")
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        failures = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NoSuchFile)
        try:
            self._voice = library.PiperVoice.load(path)
        except (KeyError, TypeError, ValueError, AttributeError, *failures) as error:
            raise self._broken(f"{type(error).__name__}: {error}") from None
        self._failures = (*failures, state.RuntimeException)
        # Slower speech has longer sounds; the voice's own pace is kept.
        self._options = library.SynthesisConfig(length_scale=self._voice.config.length_scale / rate)

    @property
    def rate(self) -> int:
        """Samples per second of what it says."""
        return int(self._voice.config.sample_rate)

    def synthesize(self, text: str) -> Recording:
        """The sound of a text.

        Raises:
            AudioError: the model fails.
        """
        try:
            pieces = [chunk.audio_float_array for chunk in self._voice.synthesize(text, self._options)]
        except self._failures as error:
            raise self._broken(str(error)) from None
        whole = np.concatenate(pieces) if pieces else np.zeros(0)
        return Recording(whole.astype(np.float32).reshape(-1), self.rate)

    def _check(self) -> None:
        beside = Path(f"{self.path}.json")
        for file in (self.path, beside):
            if not file.is_file():
                raise UsageError(
                    f"--voice: {file} does not exist.",
                    "A piper voice is a NAME.onnx with its NAME.onnx.json beside it.",
                    "Name such a file, or a voice of espeak-ng: --voice en-us",
                )
        try:
            kind = json.loads(beside.read_text(encoding="utf-8")).get("phoneme_type", "espeak")
        except (ValueError, AttributeError) as error:
            raise self._broken(f"{beside.name}: {error}") from None
        if kind not in _READ_WITHOUT_DOWNLOAD:
            raise AudioError(
                f"The voice {self.path} takes its phonemes from {kind!r}.",
                "piper would fetch a model for that; bluelm fetches nothing.",
                "Take a voice whose phoneme_type is espeak.",
            )

    def _broken(self, how: str) -> BluelmError:
        return AudioError(f"{self.path} is no piper voice: {how}", "Nothing can be said with it.", "Take another file.")
