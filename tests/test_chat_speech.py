"""`chat --listen --speak`: a spoken question about a picture, answered aloud, with nothing from a network."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from stages.artifacts.errors import MissingExtraError

pytest.importorskip("pocketsphinx", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")
pytest.importorskip("espeakng_loader", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")

Bluelm = Callable[..., Any]
# A small grammar makes the tests quick, and shows that one's own is heard.
GRAMMAR = """#JSGF V1.0;
grammar few;
public <question> = what colour is the shape | what number do you see | how many circles are there | read the word;
"""
COLOURS = """#JSGF V1.0;
grammar colours;
public <colour> = red | green | blue | yellow | orange | purple | black | white;
"""
VOICE = "en-us+f3"


@pytest.fixture(scope="module")
def grammar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grammar") / "few.jsgf"
    path.write_text(GRAMMAR)
    return path


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A wav file of a sentence, said by espeak-ng."""
    from stages.device.speech.espeak import Espeak

    folder = tmp_path_factory.mktemp("said")

    def make(text: str) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.wav"
        sound = Espeak(VOICE).synthesize(text)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, sound.rate, 0, "NONE", ""))
            file.writeframes(sound.pcm16().tobytes())
        return path

    return make


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("circle") / "circle.png"
    picture = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(picture).ellipse((20, 20, 76, 76), fill=(220, 20, 20))
    picture.save(path)
    return path


def sound_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert file.getnchannels() == 1 and file.getsampwidth() == 2
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_a_spoken_question_is_answered_aloud_by_the_shipped_model(
    bluelm: Bluelm, said: Any, circle: Path, tmp_path: Path
) -> None:
    """With the shipped model and the shipped grammar: from wav to wav."""
    from stages.device.speech.grammar import parse_grammar
    from stages.device.speech.recording import read_wav
    from stages.device.speech.sphinx import Sphinx

    out = tmp_path / "answer.wav"
    question = said("What colour is the shape?")
    typed = bluelm("chat", "--image", circle, "--prompt", "What colour is the shape?").out
    done = bluelm("chat", "--image", circle, "--listen", question, "--speak-to", out)
    assert done.code == 0, done.err
    assert "Heard: What colour is the shape?" in done.err
    assert done.out == typed == "red\n"
    # Heard back, the answer is the one that was shown.
    colours = parse_grammar(COLOURS, "colours")
    assert Sphinx(colours).transcribe(read_wav(out)) == "Red?"


def test_a_question_about_a_number_goes_the_whole_way(bluelm: Bluelm, said: Any, circle: Path, tmp_path: Path) -> None:
    out = tmp_path / "answer.wav"
    question = said("Which number is printed here?")
    words = ("chat", "--image", circle, "--listen", question, "--speak-to", out, "--json")
    done = bluelm(*words)
    assert done.code == 0, done.err
    found = done.json()
    assert found["heard"] == "Which number is printed here?"
    assert found["answer"] and np.abs(sound_of(out)).max() > 1000


def test_a_grammar_of_ones_own_and_another_voice(
    bluelm: Bluelm, said: Any, circle: Path, grammar: Path, tmp_path: Path
) -> None:
    words = ("chat", "--image", circle, "--listen", said("What colour is the shape?"), "--grammar", grammar)
    lengths = []
    for voice in ("en-us", "de"):
        done = bluelm(*words, "--speak-to", tmp_path / "a.wav", "--voice", voice)
        assert (done.code, done.out) == (0, "red\n"), done.err
        assert "Heard: What colour is the shape?" in done.err
        lengths.append(len(sound_of(tmp_path / "a.wav")))
    assert lengths[0] != lengths[1] and min(lengths) > 4000


def test_a_conversation_listens_and_speaks(
    bluelm: Bluelm, tiny_onnx: Path, said: Any, grammar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.wav"
    lines = ["Hello?", f"/listen {said('Read the word.')}", f"/listen {tmp_path / 'none.wav'}", "/listen", "/exit"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    monkeypatch.setattr("stages.device.speech.listener.listen", lambda: (_ for _ in ()).throw(no_microphone()))
    done = bluelm("chat", tiny_onnx, "--grammar", grammar, "--speak-to", out, "--max-tokens", 3)
    assert done.code == 0, done.err
    assert "Heard: Read the word." in done.err
    assert "none.wav does not exist" in done.err and "Listening" in done.err and "'sounddevice'" in done.err
    assert len(done.out.splitlines()) >= 2
    sound_of(out)


def no_microphone() -> MissingExtraError:
    return MissingExtraError("sounddevice", "speech", "the microphone")


@pytest.mark.parametrize(
    ("typed", "asked"),
    [(b"\n", "Read the word."), (b"\x7f loudly.\n", "Read the word loudly."), (b"\x15\n", ""), (b"\x15\x04", "")],
)
def test_what_was_heard_can_be_corrected_and_declined(typed: bytes, asked: str) -> None:
    """At a pseudo-terminal: sent as it is, its end exchanged, emptied with Ctrl-U, ended with Ctrl-D."""
    ours, theirs = pty.openpty()
    code = "from bluelm_cli.speech import corrected; print('<' + corrected('Read the word.') + '>')"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.5)[0]:
                seen += os.read(ours, 4096).decode(errors="replace")

    until("ask> Read the word.")
    os.write(ours, typed)
    until(f"<{asked}>")
    assert child.wait(30) == 0
    os.close(ours)


def three_beats(done: Any, *words: str) -> None:
    assert (done.code, done.out) == (2, ""), done.out + done.err
    assert "Error: " in done.err and "Why: " in done.err and "Fix: " in done.err and "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_recordings_and_flags_that_cannot_work(bluelm: Bluelm, tiny_onnx: Path, tmp_path: Path, said: Any) -> None:
    path = tmp_path / "q.wav"
    three_beats(bluelm("chat", tiny_onnx, "--listen", path), "q.wav does not exist")
    path.write_bytes(b"not a wav")
    three_beats(bluelm("chat", tiny_onnx, "--listen", path), "no wav file", "ffmpeg")
    path.write_bytes(b"")
    three_beats(bluelm("chat", tiny_onnx, "--listen", path), "q.wav is empty")
    question = said("Read the word.")
    three_beats(bluelm("chat", tiny_onnx, "--listen", question, "--prompt", "What?"), "--listen with --prompt")
    both = ("--grammar", tmp_path / "g", "--dictation")
    three_beats(bluelm("chat", tiny_onnx, "--listen", question, *both), "--grammar and --dictation are given together")
    three_beats(bluelm("chat", tiny_onnx, "--listen", question, "--grammar", tmp_path / "g"), "g does not exist")
    three_beats(bluelm("chat", tiny_onnx, "--listen", question, "--asr", tmp_path), "no config.json")
    ask = ("chat", tiny_onnx, "--prompt", "What?", "--speak-to")
    three_beats(bluelm(*ask, tmp_path), "--speak-to", "is a folder")
    three_beats(bluelm(*ask, tmp_path / "a.wav", "--voice", "en-uss"), "no voice 'en-uss'", "Near it: en-us")
    three_beats(bluelm(*ask, tmp_path / "a.wav", "--voice", "none.onnx"), "none.onnx does not exist")
    three_beats(bluelm(*ask, tmp_path / "a.wav", "--set", "speech_rate=9"), "speech_rate is 9")
    three_beats(bluelm("chat", tiny_onnx, "--serve", 0, "--listen"), "--serve with")
    assert not (tmp_path / "a.wav").exists()


def test_words_that_nobody_can_pronounce(bluelm: Bluelm, tiny_onnx: Path, tmp_path: Path, said: Any) -> None:
    path = tmp_path / "g.jsgf"
    path.write_text("#JSGF V1.0;\ngrammar g;\npublic <a> = read the bluelm xqzt;\n")
    done = bluelm("chat", tiny_onnx, "--listen", said("Read the word."), "--grammar", path)
    three_beats(done, "g.jsgf", "no pronunciation of bluelm, xqzt")


@pytest.mark.parametrize(
    ("module", "words"), [("pocketsphinx", ("--listen", "q.wav")), ("espeakng_loader", ("--speak-to", "a.wav"))]
)
def test_a_missing_extra_says_what_to_install(
    bluelm: Bluelm, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch, module: str, words: tuple[str, str]
) -> None:
    from stages.device.speech import espeak

    espeak._library.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    question = () if words[0] == "--listen" else ("--prompt", "What?")
    three_beats(bluelm("chat", tiny_onnx, *words, *question), "is not installed", "pip install 'bluelm[speech]'")
