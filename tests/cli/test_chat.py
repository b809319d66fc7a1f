"""`bluelm chat` on the command line: JSON, streams, conversations on a pipe and on a terminal, errors."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bluelm_cli.conversation import picture_path, printable
from stages.artifacts.folder import ArtifactSpec, create
from stages.device.contract import names

Bluelm = Callable[..., Any]
QUICK = ("--max-tokens", 6, "--threads", 1)
PROMISED = {
    *("answer", "image_tokens", "prompt_tokens", "generated_tokens", "first_token_s", "decode_tok_s", "peak_rss_mb"),
}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "a photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def variant(tiny_onnx: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with something changed, its manifest in order."""

    def make(change: Callable[[Path], None]) -> Path:
        with create(tmp_path / "variant", ArtifactSpec("onnx", "export", {})) as draft:
            for file in tiny_onnx.iterdir():
                if file.name not in ("artifact.json", "run.json"):
                    (draft.path / file.name).write_bytes(file.read_bytes())
            change(draft.path)
        return tmp_path / "variant"

    return make


def edited(part: str, **values: Any) -> Callable[[Path], None]:
    """Changes `device.json`."""

    def change(folder: Path) -> None:
        path = folder / names.DEVICE_CONFIG_FILE
        config = json.loads(path.read_text())
        config[part].update(values)
        path.write_text(json.dumps(config))

    return change


def three_beats(done: Any, *words: str) -> None:
    assert (done.code, done.out) == (2, ""), done.out + done.err
    assert "Error: " in done.err and "Why: " in done.err and "Fix: " in done.err and "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_json_has_the_promised_fields(bluelm: Bluelm, tiny_onnx: Path, photo: Path) -> None:
    done = bluelm("chat", tiny_onnx, "--image", photo, "--image", photo, "--prompt", "What?", "--json", *QUICK)
    assert done.code == 0, done.err
    found = done.json()
    assert found.keys() >= PROMISED
    assert found["image_tokens"] == 2 * 7 * 16
    assert found["prompt_tokens"] > found["image_tokens"]
    assert isinstance(found["answer"], str)
    for name in ("first_token_s", "decode_tok_s", "peak_rss_mb", "load_s"):
        assert found[name] > 0, name
    assert [image["reused"] for image in found["images"]] == [False, True]


def test_the_answer_and_nothing_else_is_on_stdout(bluelm: Bluelm, tiny_onnx: Path, photo: Path) -> None:
    words = ("chat", tiny_onnx, "--image", photo, "--prompt", "What?", *QUICK)
    answer = bluelm(*words, "--json").json()["answer"]
    done = bluelm(*words)
    assert done.code == 0
    assert done.out == printable(answer) + "\n"


def test_the_prompt_comes_from_stdin(bluelm: Bluelm, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = bluelm("chat", tiny_onnx, "--prompt", "Hello there", "--json", *QUICK).json()
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello there\n"))
    piped = bluelm("chat", tiny_onnx, "--prompt", "-", "--json", *QUICK).json()
    assert (piped["answer"], piped["prompt_tokens"]) == (direct["answer"], direct["prompt_tokens"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    three_beats(bluelm("chat", tiny_onnx, "--prompt", "-"), "nothing on stdin")


def test_help_shows_a_worked_example(bluelm: Bluelm) -> None:
    done = bluelm("chat", "--help")
    assert done.code == 0 and 'bluelm chat --image photo.png --prompt "What is this?"' in " ".join(done.out.split())


def test_flags_that_cannot_work(bluelm: Bluelm, tiny_onnx: Path, tmp_path: Path) -> None:
    ask = ("chat", tiny_onnx, "--prompt", "What?")
    three_beats(bluelm("chat", tiny_onnx, "--json"), "--json without --prompt")
    three_beats(bluelm(*ask, "--temperature", -1, "--top-p", 0, "--chunk", 0), "3 problems", "top-p", "chunk")
    three_beats(bluelm("chat", tiny_onnx, "--prompt", " "), "question is empty")
    three_beats(bluelm(*ask, "--set", "temprature=1"), "temperature")
    three_beats(bluelm(*ask, "--features", tmp_path), "holds no artifact.json", "bluelm encode")


def test_bad_pictures_are_told_together(bluelm: Bluelm, tiny_onnx: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo.read_bytes()[:20000])
    words = [word for path in (tmp_path / "text.png", photo, cut, tmp_path) for word in ("--image", path)]
    three_beats(bluelm("chat", tiny_onnx, *words, "--prompt", "What?", *QUICK), "3 problems", "text.png", "cut.png")


def test_models_that_cannot_be_used(bluelm: Bluelm, variant: Any, tmp_path: Path, monkeypatch: Any) -> None:
    with create(tmp_path / "quantized", ArtifactSpec("quantized", "quantize", {})):
        pass
    ask = ("--prompt", "What?", *QUICK)
    three_beats(bluelm("chat", tmp_path / "quantized", *ask), "kind quantized", "bluelm export CHECKPOINT")
    three_beats(bluelm("chat", tmp_path / "none", *ask), "does not exist", "bluelm export")
    monkeypatch.setattr("stages.device.runtime.shipped.recipes_folder", lambda: tmp_path)
    three_beats(bluelm("chat", *ask), "carries no demo model", "make demo")


def test_no_model_means_the_shipped_one(
    bluelm: Bluelm, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").symlink_to(tiny_onnx)
    monkeypatch.setattr("stages.device.runtime.shipped.recipes_folder", lambda: tmp_path)
    assert bluelm("chat", "--prompt", "What?", *QUICK).code == 0


@pytest.mark.parametrize("file", names.GRAPH_FILES)
def test_missing_and_corrupt_graphs(bluelm: Bluelm, variant: Any, photo: Path, file: str) -> None:
    ask = ("--image", photo, "--prompt", "What?", *QUICK)
    broken = variant(lambda folder: (folder / file).write_bytes(b"\x00" * 50))
    three_beats(bluelm("chat", broken, *ask), file, "bluelm export")
    (broken / file).unlink()
    three_beats(bluelm("chat", broken, *ask), f"{file} is missing", "bluelm export")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("decoder", {"num_layers": 2}, "decoder.onnx: the input past_key_values.1.key is missing"),
        ("decoder", {"hidden_size": 32}, "device.json and the graph describe different models"),
        ("decoder", {"num_layers": "many"}, "device.json: decoder.num_layers"),
        ("vision", {"tile_size": 56}, "patch_embed.onnx: the input pixel_values"),
        ("prompt", {"image_token": "<picture>"}, "no token '<picture>'"),
    ],
)
def test_a_tampered_configuration(
    bluelm: Bluelm, variant: Any, photo: Path, part: str, values: Any, message: str
) -> None:
    model = variant(edited(part, **values))
    three_beats(bluelm("chat", model, "--image", photo, "--prompt", "What?", *QUICK), message)


def test_a_conversation_that_does_not_fit(bluelm: Bluelm, variant: Any, photo: Path) -> None:
    model = variant(edited("decoder", max_context=64))
    done = bluelm("chat", model, "--image", photo, "--prompt", "What?", *QUICK)
    three_beats(done, "tokens; this model holds 64")


def test_a_model_that_computes_nan(bluelm: Bluelm, variant: Any) -> None:
    import onnx

    def poison(folder: Path) -> None:
        path = folder / names.EMBEDDING_FILE
        graph = onnx.load(path)
        output = graph.graph.output[0].name
        for node in graph.graph.node:
            node.output[:] = ["clean" if name == output else name for name in node.output]
        graph.graph.initializer.append(onnx.helper.make_tensor("nan", onnx.TensorProto.FLOAT, [1], [float("nan")]))
        graph.graph.node.append(onnx.helper.make_node("Add", ["clean", "nan"], [output]))
        path.unlink()
        onnx.save(graph, path)

    three_beats(bluelm("chat", variant(poison), "--prompt", "What?", *QUICK), "NaN", "bluelm export")


# --- conversations on a pipe


def piped(bluelm: Bluelm, monkeypatch: pytest.MonkeyPatch, lines: list[str], *words: Any) -> Any:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    return bluelm("chat", *words, *QUICK)


def test_a_scripted_conversation(bluelm: Bluelm, tiny_onnx: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = bluelm("chat", tiny_onnx, "--image", photo, "--prompt", "What?", *QUICK).out
    lines = [
        f"/image {photo}",
        "/images",
        "What?",
        "",
        "/images",
        "Sure?",
        "/stats",
        "/reset",
        "/images",
        "/exit",
        "no",
    ]
    done = piped(bluelm, monkeypatch, lines, tiny_onnx)
    assert done.code == 0, done.err
    assert done.out.startswith(single)
    assert "not asked about yet" in done.err
    assert f"{photo}: 3:2, 7 tiles, 112 tokens" in done.err
    assert "2 answers" in done.err and "reused" in done.err
    assert "No pictures yet" in done.err.split("Forgotten")[1]
    assert "no" not in done.err.splitlines()  # what follows /exit is not read


def test_a_bad_picture_does_not_end_a_conversation(
    bluelm: Bluelm, tiny_onnx: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo.read_bytes()[:20000])
    lines = [
        "/image none.png",
        "Hello?",
        f"/image {cut}",
        "What?",
        "Still there?",
        "/bogus",
        "/image",
        "/help",
        "/stats",
    ]
    done = piped(bluelm, monkeypatch, lines, tiny_onnx, "--image", tmp_path / "first.png")
    assert done.code == 0, done.err
    for words in ("first.png does not exist", "none.png does not exist", "cut.png is a broken picture"):
        assert words in done.err
    assert "The question was not answered." in done.err
    assert "2 answers" in done.err
    assert "/bogus is neither a command nor a picture" in done.err
    assert "Which picture?" in done.err and "/reset " in done.err


def test_a_dropped_path_names_a_picture(
    bluelm: Bluelm, tiny_onnx: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in (str(photo), f"'{photo}'", str(photo).replace(" ", "\\ ")):
        done = piped(bluelm, monkeypatch, [line, "/images"], tiny_onnx)
        assert f"{photo}: " in done.err, line
    long = "x" * 5000
    assert "cannot" not in piped(bluelm, monkeypatch, [f"/{long}"], tiny_onnx).err


def test_an_overflow_does_not_end_a_conversation(
    bluelm: Bluelm, variant: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = variant(edited("decoder", max_context=150))
    done = piped(bluelm, monkeypatch, [f"/image {photo}", "x" * 200, "/reset", "Hello?", "/stats"], model)
    assert done.code == 0
    assert "this model holds 150" in done.err and "1 answers" in done.err


def test_printable_keeps_the_terminal_to_itself() -> None:
    assert printable("a\x1b[2Jb\r\x07\n\tç你🙂\x9b1m") == "a[2Jb\n\tç你🙂1m"


def test_picture_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    spaced = tmp_path / "a b.png"
    spaced.write_bytes(b"")
    for words in (str(spaced), f'"{spaced}"', "~/a b.png", "~/a\\ b.png"):
        assert picture_path(words) == spaced, words
    assert picture_path("it's unfinished") == Path("it's unfinished")


# --- a conversation on a terminal


class Person:
    """Types into a pseudo-terminal and reads what appears there."""

    def __init__(self, words: list[str]) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "bluelm_cli", "chat", *words]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env={**os.environ, "TERM": "dumb"}
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, words: str, seconds: float = 60) -> str:
        """What appeared up to and with these words, from where the last wait ended."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < end, f"waited for {words!r}, saw {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
                except OSError:
                    raise AssertionError(f"it ended before {words!r}: {self.seen!r}") from None
        found, _, self.seen = self.seen.partition(words)
        return found + words

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C: the terminal would send it to the program in front."""
        self.process.send_signal(signal.SIGINT)

    def code(self) -> int:
        """The exit code, once it has ended; output is read on, so that it can."""
        end = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < end
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
                except OSError:
                    break
        return self.process.wait(60)


@pytest.fixture
def person() -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def sit_down(*words: object) -> Person:
        people.append(Person([str(word) for word in words]))
        return people[-1]

    yield sit_down
    for each in people:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        os.close(each.master)


def test_a_person_at_a_terminal(person: Any, variant: Any, photo: Path) -> None:
    endless = variant(edited("prompt", eos_token_ids=[]))  # answers until it is stopped
    user = person(endless, "--threads", 1, "--max-tokens", 3000)
    user.wait_for("> ")
    user.type(f"/image {photo}\n")
    user.wait_for("is being encoded")
    user.wait_for("> ")
    user.type("What?\n")
    user.wait_for("What?")
    time.sleep(1.0)
    user.interrupt()
    user.wait_for("Ctrl-C again")
    user.wait_for("> ")
    user.type("/images\n")
    user.wait_for("7 tiles")
    user.wait_for("> ")
    user.interrupt()
    user.wait_for("Ctrl-C again")
    user.interrupt()
    assert user.code() == 0
    assert "Traceback" not in user.seen


def test_ctrl_d_ends_and_figures_follow_an_answer(person: Any, tiny_onnx: Path) -> None:
    user = person(tiny_onnx, "--threads", 1, "--max-tokens", 3)
    user.wait_for("> ")
    user.type("Hello\n")
    user.wait_for("first token")
    user.wait_for("> ")
    user.type("\x04")
    assert user.code() == 0
