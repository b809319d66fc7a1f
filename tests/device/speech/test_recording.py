"""Wav files of every width and number of channels give the same sound; what is no recording is refused by name."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from stages.artifacts.errors import AudioError
from stages.device.speech import recording
from stages.device.speech.recording import Recording, read_wav

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def tone(rate: int = 16_000, seconds: float = 0.1, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def packed(samples: np.ndarray, code: int, width: int) -> bytes:
    """Samples within −1 … 1 as a wav file holds them, by Python's own integers."""
    if code == FLOAT:
        return b"".join(struct.pack("<f" if width == 4 else "<d", value) for value in samples)
    if width == 1:
        return bytes(round(value * 127) + 128 for value in samples)
    most = 2 ** (8 * width - 1) - 1
    return b"".join(round(value * most).to_bytes(width, "little", signed=True) for value in samples)


def wav(
    path: Path,
    data: bytes,
    code: int = PCM,
    width: int = 2,
    channels: int = 1,
    rate: int = 16_000,
    size: int | None = None,
    before: bytes = b"",
) -> Path:
    frame = width * channels
    form = struct.pack("<HHIIHH", code, channels, rate, rate * frame, frame, 8 * width)
    if code == EXTENSIBLE:
        form += struct.pack("<HHIHI", 22, 8 * width, 0, PCM, 0) + bytes(10)
    announced = len(data) if size is None else size
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", announced)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + len(data)) + body + data)
    return path


@pytest.mark.parametrize(
    ("code", "width"), [(PCM, 1), (PCM, 2), (PCM, 3), (PCM, 4), (PCM, 8), (FLOAT, 4), (FLOAT, 8), (EXTENSIBLE, 3)]
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_width_and_number_of_channels(tmp_path: Path, code: int, width: int, channels: int) -> None:
    sound = tone()
    # Channels that differ: their mean is the tone.
    spread = np.linspace(-0.3, 0.3, channels) if channels > 1 else np.zeros(1)
    frames = (sound[:, None] + spread[None, :]).reshape(-1)
    found = read_wav(wav(tmp_path / "a.wav", packed(frames, code, width), code, width, channels))
    assert (found.rate, len(found.samples), found.samples.dtype) == (16_000, len(sound), np.float32)
    assert np.abs(found.samples - sound).max() <= (0.02 if width == 1 else 1e-4)


def test_the_standard_librarys_files(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    values = np.random.default_rng(0).integers(-30000, 30000, (500, 2)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 44_100, 0, "NONE", ""))
        file.writeframes(values.tobytes())
    found = read_wav(path)
    assert found.rate == 44_100 and found.seconds == pytest.approx(500 / 44_100)
    assert np.allclose(found.samples, values.mean(axis=1) / 32768, atol=1e-6)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_file_that_came_through_a_pipe_has_no_length(tmp_path: Path, size: int) -> None:
    data = packed(tone(), PCM, 2)
    assert len(read_wav(wav(tmp_path / "a.wav", data, size=size)).samples) == 1600


def test_other_chunks_are_passed_over(tmp_path: Path) -> None:
    odd = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    assert len(read_wav(wav(tmp_path / "a.wav", packed(tone(), PCM, 2), before=odd)).samples) == 1600


def test_16_bits_come_back_as_they_were() -> None:
    values = np.arange(-32767, 32768, 7, dtype=np.int16)
    assert np.array_equal(Recording((values / 32767).astype(np.float32), 8000).pcm16(), values)
    assert list(Recording(np.array([2, -2], np.float32), 8000).pcm16()) == [32767, -32767]


def refused(path: Path, *words: str) -> None:
    with pytest.raises(AudioError) as caught:
        read_wav(path)
    assert str(path) in caught.value.what and caught.value.why and caught.value.fix
    for word in words:
        assert word in caught.value.what


def test_what_is_no_recording(tmp_path: Path) -> None:
    path, sound = tmp_path / "a.wav", packed(tone(), PCM, 2)
    refused(tmp_path / "none.wav", "does not exist")
    refused(tmp_path, "is no file")
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_bytes(b"ID3\x04 an mp3, say, that was renamed")
    refused(path, "no wav file")
    whole = wav(path, sound).read_bytes()
    path.write_bytes(whole[:30])
    refused(path, "broken", "format is cut off")
    path.write_bytes(whole[:36])
    refused(path, "it has no sound")
    path.write_bytes(whole[:-100])
    refused(path, "announces 3,200 bytes of sound and has 3,100")
    refused(wav(path, sound, code=0x55), "0x0055")
    refused(wav(path, sound, rate=0), "0 samples a second")
    refused(wav(path, sound, channels=0), "0 channels")
    refused(wav(path, sound, width=5), "broken")


def test_sound_that_holds_no_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    refused(wav(path, b"\0"), "holds no sound")
    refused(wav(path, bytes(3200)), "is silent")
    refused(wav(path, packed(np.array([0.1, np.nan]), FLOAT, 4), FLOAT, 4), "no numbers")
    refused(wav(path, b"\1" * (2 * 2000 * 121), rate=2000), "121 s long")
    monkeypatch.setattr(recording, "MAX_BYTES", 1000)
    refused(wav(path, packed(tone(), PCM, 2)), "MiB")


def test_every_cut_of_a_file_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    whole = wav(path, packed(tone(seconds=0.005), PCM, 2), code=EXTENSIBLE).read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(AudioError):
            read_wav(path)
