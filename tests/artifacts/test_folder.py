"""Artifact folders: same inputs give the same bytes, a kill leaves the old or the new, differences are named."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.artifacts.errors import ArtifactError
from stages.artifacts.exchange import aside_path, put_in_place, recover
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.manifest import parent_of, read_manifest


def spec_of(kind: str = "corpus", seed: int = 0, **config: object) -> ArtifactSpec:
    return ArtifactSpec(kind=kind, stage="data render", config=dict(config), seed=seed)


def write(out: Path, spec: ArtifactSpec, text: str = "content", **how: bool) -> None:
    with create(out, spec, **how) as draft:
        (draft.path / "a.txt").write_text(text)
        draft.metrics["length"] = len(text)
        draft.run["rate"] = time.perf_counter()


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_same_inputs_give_byte_identical_artifacts(tmp_path: Path) -> None:
    write(tmp_path / "one", spec_of(count=3))
    write(tmp_path / "two", spec_of(count=3))
    assert (tmp_path / "one/artifact.json").read_bytes() == (tmp_path / "two/artifact.json").read_bytes()
    assert (tmp_path / "one/run.json").read_bytes() != (tmp_path / "two/run.json").read_bytes()
    assert open_artifact(tmp_path / "one", "corpus").digest == open_artifact(tmp_path / "two", "corpus").digest
    assert leftovers(tmp_path) == []


def test_files_that_a_library_wrote_for_its_owner_alone_are_as_readable_as_all_others(tmp_path: Path) -> None:
    with create(tmp_path / "out", spec_of()) as draft:
        (draft.path / "weights.bin").write_bytes(b"w")
        (draft.path / "weights.bin").chmod(0o600)
        (draft.path / "run.sh").write_text("#!/bin/sh\n")
        (draft.path / "run.sh").chmod(0o700)
    usual = (tmp_path / "out/run.json").stat().st_mode
    assert (tmp_path / "out/weights.bin").stat().st_mode == usual
    assert (tmp_path / "out/run.sh").stat().st_mode == usual | 0o700


def test_digest_follows_content_and_parents_but_not_the_parents_path(tmp_path: Path) -> None:
    write(tmp_path / "one", spec_of(), "x")
    write(tmp_path / "two", spec_of(), "y")
    assert parent_of(tmp_path / "one").digest != parent_of(tmp_path / "two").digest
    (tmp_path / "one").rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "moved").digest == parent_of(tmp_path / "moved").digest


def test_up_to_date_only_for_the_same_spec(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert up_to_date(out, spec_of(count=3)) is None
    write(out, spec_of(count=3, nested={"alpha": 0.1}))
    assert up_to_date(out, spec_of(count=3, nested={"alpha": 0.1})) is not None
    with pytest.raises(ArtifactError, match=r"nested.alpha is 0.1, not 0.2") as caught:
        up_to_date(out, spec_of(count=3, nested={"alpha": 0.2}))
    assert "--force" in caught.value.fix
    with pytest.raises(ArtifactError, match="seed is 0, not 1"):
        up_to_date(out, spec_of(seed=1, count=3, nested={"alpha": 0.1}))
    assert up_to_date(out, spec_of(count=4), force=True) is None


def test_other_inputs_are_named(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("1")
    spec = ArtifactSpec("tiles", "tile", {}, parents=(parent_of(source),))
    write(tmp_path / "out", spec)
    source.write_text("2")
    with pytest.raises(ArtifactError, match=r"other inputs than .*in\.txt"):
        up_to_date(tmp_path / "out", ArtifactSpec("tiles", "tile", {}, parents=(parent_of(source),)))


def test_an_error_keeps_the_old_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, spec_of(), "old")
    with pytest.raises(RuntimeError), create(out, spec_of(count=2), force=True) as draft:
        (draft.path / "a.txt").write_text("half")
        raise RuntimeError
    assert (out / "a.txt").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_force_replaces_whole_folders(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with create(out, spec_of()) as draft:
        (draft.path / "only-old.txt").write_text("x")
    write(out, spec_of(count=2), "new", force=True)
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "artifact.json", "run.json"]
    assert leftovers(tmp_path) == []


def test_force_never_replaces_a_foreign_folder(tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_text("x")
    with pytest.raises(ArtifactError, match="not an artifact"):
        write(out, spec_of(), force=True)
    assert (out / "holiday.jpg").exists()


def test_resumable_work_is_handed_back_for_the_same_spec_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), create(out, spec_of(count=1), resumable=True) as draft:
        assert not draft.resumed
        (draft.path / "shard-0").write_text("done")
        raise KeyboardInterrupt
    with create(out, spec_of(count=1), resumable=True) as draft:
        assert draft.resumed
        assert (draft.path / "shard-0").read_text() == "done"
    with pytest.raises(KeyboardInterrupt), create(out, spec_of(count=2), force=True, resumable=True):
        raise KeyboardInterrupt
    with create(out, spec_of(count=3), force=True, resumable=True) as draft:
        assert not draft.resumed
        assert not (draft.path / "shard-0").exists()


KILLED = """
import os, signal, sys, time
from pathlib import Path
from stages.artifacts.folder import ArtifactSpec, create
with create(Path(sys.argv[1]), ArtifactSpec("corpus", "data render", {"count": 2}), force=True) as draft:
    (draft.path / "a.txt").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_writer_leaves_the_old_artifact(tmp_path: Path, project_root: Path, number: int) -> None:
    out = tmp_path / "out"
    write(out, spec_of(), "old")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, out], cwd=project_root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    with pytest.raises(ArtifactError, match="being written by another bluelm"):
        write(out, spec_of(count=2), force=True)
    process.send_signal(number)
    process.wait()
    assert open_artifact(out, "corpus").manifest is not None
    assert (out / "a.txt").read_text() == "old"
    write(out, spec_of(count=2), "new", force=True)
    assert (out / "a.txt").read_text() == "new"
    assert leftovers(tmp_path) == []


def test_a_kill_between_the_two_moves_is_undone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, spec_of(), "old")
    out.rename(aside_path(out))
    assert open_artifact(out, "corpus").manifest is not None
    assert (out / "a.txt").read_text() == "old"


def test_two_moves_where_folders_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.artifacts.exchange._exchange", lambda first, second: False)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    put_in_place(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new"]
    recover(tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_the_wrong_kind_names_the_command_that_makes_the_right_one(tmp_path: Path) -> None:
    write(tmp_path / "out", spec_of())
    with pytest.raises(ArtifactError, match="is of kind corpus") as caught:
        open_artifact(tmp_path / "out", "onnx")
    assert "bluelm export" in caught.value.fix
    with pytest.raises(ArtifactError, match="does not exist"):
        open_artifact(tmp_path / "none", "onnx")


def test_a_plain_transformers_folder_is_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert open_artifact(tmp_path, "checkpoint").manifest is None
    with pytest.raises(ArtifactError, match=r"no artifact\.json"):
        open_artifact(tmp_path, "onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": 3}, "kind"),
        ({"schema_version": 99}, "schema version 99"),
        ({"files": {"../../etc/passwd": {"size": 1, "sha256": ""}}}, "outside the folder"),
        ({"files": {"/etc/passwd": {"size": 1, "sha256": ""}}}, "outside the folder"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_tampered_manifest_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write(tmp_path / "out", spec_of())
    path = tmp_path / "out/artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=message):
        open_artifact(tmp_path / "out", "corpus")


def test_damage_is_named(tmp_path: Path) -> None:
    write(tmp_path / "out", spec_of())
    (tmp_path / "out/a.txt").write_text("longer than it was")
    with pytest.raises(ArtifactError, match=r"a\.txt has 18 bytes, not 7"):
        open_artifact(tmp_path / "out", "corpus")
    (tmp_path / "out/a.txt").unlink()
    with pytest.raises(ArtifactError, match=r"a\.txt is missing"):
        open_artifact(tmp_path / "out", "corpus")


def test_a_full_disk_is_the_users_problem(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, spec_of(), "old")
    with pytest.raises(ArtifactError, match="No space left on device") as caught:  # noqa: SIM117
        with create(out, spec_of(count=2), force=True):
            # The kernel's own full device: every write to it fails with ENOSPC.
            Path("/dev/full").write_text("x")
    assert "Free some space" in caught.value.fix
    assert (out / "a.txt").read_text() == "old"


def test_a_refused_write_is_the_users_problem_but_a_refused_read_elsewhere_is_not(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="Permission denied"), create(tmp_path / "out", spec_of()) as draft:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(draft.path / "a.txt"))
    with pytest.raises(PermissionError), create(tmp_path / "out", spec_of()):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere/picture.png")


def test_an_error_while_the_files_are_hashed_keeps_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("stages.artifacts.folder.digest_file", refuse)
        with pytest.raises(ArtifactError, match="No space left"):
            write(out, spec_of(), resumable=True)
    with create(out, spec_of(), resumable=True) as draft:
        assert draft.resumed
        assert (draft.path / "a.txt").read_text() == "content"
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "artifact.json", "run.json"]
    assert list(read_manifest(out).files) == ["a.txt"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", [".", "..", "/", "", "../here", "../link/here"])
def test_the_current_folder_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(here)
    for force in (False, True):
        with pytest.raises(ArtifactError, match="is the current folder or one above it") as caught:
            up_to_date(Path(name), spec_of(), force=force)
        assert "--out" in caught.value.fix
        with pytest.raises(ArtifactError, match="is the current folder or one above it"):
            write(Path(name), spec_of(), force=force)
    assert list(here.iterdir()) == []
    write(Path("inside"), spec_of())
    monkeypatch.chdir(here / "inside")
    assert open_artifact(Path(), "corpus").path == Path()
    recover(Path("/"))
    assert aside_path(Path()) == here / ".inside.bluelm-old"


def test_a_writer_of_another_spec_that_ended_first_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.artifacts import folder

    out = tmp_path / "out"
    taken = folder.locked

    def late(target: Path) -> object:
        monkeypatch.setattr(folder, "locked", taken)
        write(out, spec_of(count=1), "first")
        return taken(target)

    monkeypatch.setattr(folder, "locked", late)
    with pytest.raises(ArtifactError, match="count is 1, not 2"):
        write(out, spec_of(count=2), "second")
    assert (out / "a.txt").read_text() == "first"
    assert leftovers(tmp_path) == []


def test_a_link_to_an_empty_folder_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "empty")
    write(tmp_path / "out", spec_of())
    assert (tmp_path / "out/a.txt").is_file()
    assert list((tmp_path / "empty").iterdir()) == []


def _raised_from(cause: Exception) -> Exception:
    """What a library raises that tells nothing of the system's error it met."""
    error = RuntimeError("could not save")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("42160 requested and 26844 written"), "No space left"),
        (RuntimeError("I/O error: File too large (os error 27)"), "File too large"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left"),
        (RuntimeError("I/O error: Read-only file system (os error 30)"), "Read-only"),
        (OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"), "No space left"),
        (ValueError("[Errno 28] No space left on device: 'x'"), "No space left"),
        (_raised_from(OSError(errno.ENOSPC, "No space left on device")), "No space left"),
    ],
)
def test_a_disk_that_refuses_in_the_words_of_libraries(tmp_path: Path, error: Exception, words: str) -> None:
    with pytest.raises(ArtifactError, match=words), create(tmp_path / "out", spec_of()):
        raise error
    assert leftovers(tmp_path) == []


def test_a_disk_error_that_was_dealt_with_explains_no_later_one(tmp_path: Path) -> None:
    def fail() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("another thing") from None

    with pytest.raises(RuntimeError, match="another thing"), create(tmp_path / "out", spec_of()):
        fail()
