"""Artifact folders: dying before, in and after every write, sync and rename leaves the old or the new, never half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.atomic_file import atomic_file, write_atomically
from stages.artifacts.errors import ArtifactError
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from tests.faults.exhaustive import Work, survive_everything
from tests.faults.points import Points


def spec_of(count: int) -> ArtifactSpec:
    return ArtifactSpec("corpus", "data render", {"count": count}, seed=0)


def write(out: Path, count: int, **how: bool) -> None:
    """As every verb does it: nothing where the same is there, a draft otherwise."""
    if up_to_date(out, spec_of(count), force=how.get("force", False)) is not None:
        return
    with create(out, spec_of(count), **how) as draft:
        shard = draft.path / "shards"
        shard.mkdir(exist_ok=True)
        if not (shard / "0.bin").exists():
            write_atomically(shard / "0.bin", b"%d" % count * 9, durable=False)
        with (draft.path / "rows.txt").open("w") as stream:
            stream.write(f"row {count}\n")
        draft.metrics["count"] = count


def look(place: Path) -> dict[str, bytes] | None:
    """Every file of the artifact but the one with times; None where there is nothing."""
    out = place / "out"
    try:
        artifact = open_artifact(out, "corpus")
    except ArtifactError:
        assert not out.exists() or not any(out.iterdir())
        return None
    assert artifact.manifest is not None
    named = {*artifact.manifest.files, "artifact.json"}
    return {name: (out / name).read_bytes() for name in sorted(named)}


def nothing(place: Path) -> None:
    """Prepares nothing."""


@pytest.mark.parametrize("resumable", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_new_artifact(tmp_path: Path, resumable: bool) -> None:
    work = Work(nothing, lambda place: write(place / "out", 1, resumable=resumable), look)
    done = survive_everything(work, tmp_path)
    assert min(done.values()) > 10 and done["die"] > 30


@pytest.mark.parametrize("resumable", [pytest.param(False, marks=pytest.mark.slow), True])
def test_one_that_replaces_another(tmp_path: Path, resumable: bool) -> None:
    work = Work(
        prepare=lambda place: write(place / "out", 1),
        write=lambda place: write(place / "out", 2, force=True, resumable=resumable),
        look=look,
    )
    assert survive_everything(work, tmp_path)["die"] > 35


@pytest.mark.slow
def test_one_that_replaces_another_where_folders_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.artifacts.exchange._exchange", lambda first, second: False)
    work = Work(
        prepare=lambda place: write(place / "out", 1),
        write=lambda place: write(place / "out", 2, force=True),
        look=look,
    )
    assert survive_everything(work, tmp_path)["die"] > 35


def test_one_in_the_place_of_an_empty_folder(tmp_path: Path) -> None:
    work = Work(lambda place: (place / "out").mkdir(), lambda place: write(place / "out", 1), look)
    survive_everything(work, tmp_path)


def test_what_a_kill_at_the_very_end_leaves_goes_with_the_next_run_even_without_force(tmp_path: Path) -> None:
    def again(place: Path) -> None:
        try:
            write(place / "out", 2)
        except ArtifactError:  # the old one is still there
            write(place / "out", 2, force=True)

    work = Work(
        prepare=lambda place: write(place / "out", 1),
        write=lambda place: write(place / "out", 2, force=True, resumable=True),
        look=look,
        again=again,
    )
    survive_everything(work, tmp_path)


def test_work_on_another_specification_is_not_swept_away(tmp_path: Path) -> None:
    write(tmp_path / "out", 1)
    with pytest.raises(KeyboardInterrupt), create(tmp_path / "out", spec_of(2), force=True, resumable=True) as draft:
        (draft.path / "hours").write_text("of work")
        raise KeyboardInterrupt
    write(tmp_path / "out", 1)
    assert (tmp_path / ".out.partial" / "hours").read_text() == "of work"


def test_nothing_goes_before_what_follows_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut: names may reach the disk before contents do, unless they are made to wait."""
    write(tmp_path / "out", 1)
    seen: list[tuple[str, str]] = []

    class Traced(Points):
        def around(self, operation: str, call: Any) -> Any:
            def wrapped(*args: Any, **named: Any) -> Any:
                at = f"/proc/self/fd/{args[0]}" if operation == "fsync" else str(args[0])
                seen.append((operation, str(Path(at).resolve() if operation == "fsync" else at)))
                return call(*args, **named)

            return wrapped

    with pytest.MonkeyPatch.context() as patch:
        Traced().patch(patch)
        write(tmp_path / "out", 2, force=True)
    draft = tmp_path / ".out.partial"
    at = next(index for index, (operation, _) in enumerate(seen) if operation == "exchange")
    synced = {path for operation, path in seen[:at] if operation == "fsync"}
    inside = ("", "rows.txt", "run.json", "artifact.json", "shards", "shards/0.bin")
    assert {str(draft / name) if name else str(draft) for name in inside} <= synced
    assert seen[at + 1] == ("fsync", str(tmp_path))  # the exchange itself, before the old files go
    assert {"unlink", "rmdir"} & {operation for operation, _ in seen[at + 2 :]}


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("before", [b"", b"old"])
def test_a_file(tmp_path: Path, before: bytes, durable: bool) -> None:
    def prepare(place: Path) -> None:
        if before:
            (place / "file").write_bytes(before)

    def read(place: Path) -> bytes | None:
        return (place / "file").read_bytes() if (place / "file").exists() else None

    def again(place: Path) -> None:
        for left in place.glob(".*.partial"):  # in an artifact, `create` does this
            left.unlink()
        write_atomically(place / "file", "new\n" * 99)

    def work(place: Path) -> None:
        with atomic_file(place / "file", durable=durable) as part, part.open("w") as stream:
            stream.write("new\n" * 99)

    survive_everything(Work(prepare, work, read, again=again), tmp_path)
