"""Any speech recognition model that transformers opens from a folder (Whisper, wav2vec2, …).

Only folders on this machine, only safetensors, no code of the model's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import ModelError


class Sound(Protocol):
    """A recording of one channel (`stages.device.speech.recording.Recording`)."""

    @property
    def samples(self) -> NDArray[np.float32]:
        """[n] within −1 … 1."""
        ...

    def at(self, rate: int) -> Any:
        """The same sound at another rate."""
        ...


class Recogniser:
    """A model of transformers' task `automatic-speech-recognition`.

    Args:
        folder: the model, with its tokenizer and feature extractor.

    Raises:
        ModelError: it cannot be opened as such a model.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise _wrong(folder, "it holds no config.json")
        import torch
        from transformers import pipeline

        try:
            self._pipeline: Any = pipeline(
                "automatic-speech-recognition",
                model=str(folder),
                device="cuda" if torch.cuda.is_available() else "cpu",
                model_kwargs={"use_safetensors": True},
                local_files_only=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
            raise _wrong(folder, f"{type(error).__name__}: {_first_line(error)}") from None
        if self._pipeline.feature_extractor is None or self._pipeline.tokenizer is None:
            raise _wrong(folder, "it has no feature extractor or no tokenizer")
        self._folder = folder

    @property
    def rate(self) -> int:
        """Samples per second that the model hears."""
        return int(self._pipeline.feature_extractor.sampling_rate)

    def transcribe(self, recording: Sound) -> str:
        """The text of a recording, without white space around it.

        Raises:
            ModelError: the model fails.
        """
        sound = {"raw": recording.at(self.rate).samples, "sampling_rate": self.rate}
        # Whisper hears 30 s at a time and goes on only with timestamps.
        long = len(sound["raw"]) > 30 * self.rate
        whisper = self._pipeline.type.startswith("seq2seq_whisper")
        options = {"return_timestamps": True} if long and whisper else {}
        try:
            return str(self._pipeline(sound, **options)["text"]).strip()
        except (ValueError, RuntimeError, IndexError, KeyError) as error:
            raise _wrong(self._folder, f"it fails on this recording: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]


def _wrong(folder: Path, how: str) -> ModelError:
    return ModelError(
        f"--asr: {folder} cannot be used: {how}.",
        "A transformers folder of a speech recognition model is needed: configuration, safetensors, tokenizer and "
        "feature extractor.",
        "Name such a folder, or leave --asr away: the built-in recogniser hears questions of a grammar.",
    )
