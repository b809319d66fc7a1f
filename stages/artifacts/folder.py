"""Artifact folders: opened with a kind in mind, written beside their target and put in place in one step.

A kill leaves the old folder or the new one, never half of either: files are written into `.NAME.partial`, which gets
its manifest last and is then renamed or exchanged.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.artifacts.atomic_file import is_partial, sync_tree, write_atomically
from stages.artifacts.digest import digest_file, digest_folder, digest_json
from stages.artifacts.errors import ArtifactError
from stages.artifacts.exchange import put_in_place, recover
from stages.artifacts.guarding import disk_errors, lock_path, locked, refuse_here
from stages.artifacts.kinds import KINDS, MADE_BY
from stages.artifacts.manifest import (
    MANIFEST_FILE,
    RUN_FILE,
    FileEntry,
    Manifest,
    Parent,
    check_name,
    installed_versions,
    read_manifest,
)

_SPEC_FILE = ".spec.json"


@dataclass(frozen=True)
class ArtifactSpec:
    """What a stage is about to make: same spec, same artifact."""

    kind: str
    stage: str
    config: dict[str, Any]
    seed: int | None = None
    parents: tuple[Parent, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown artifact kind {self.kind!r}")

    @property
    def fingerprint(self) -> str:
        """sha256 of inputs and configuration."""
        return digest_json(_comparable(self.kind, self.stage, self.config, self.seed, self.parents))


@dataclass
class Draft:
    """A folder being written.

    `metrics` enter the manifest; `run` (times, rates) and the files named in `outside` stay outside the digest.
    """

    path: Path
    resumed: bool
    metrics: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Artifact:
    """An opened folder; `manifest` is None for a plain transformers folder."""

    path: Path
    kind: str
    manifest: Manifest | None

    @property
    def digest(self) -> str:
        if self.manifest is not None:
            return self.manifest.digest
        return digest_folder(self.path)


def open_artifact(path: Path, *kinds: str) -> Artifact:
    """Opens a folder that must be of one of these kinds.

    Raises:
        ArtifactError: missing, broken, or of another kind; the message names the command that makes the right one.
    """
    recover(path)
    make = "Make one with: " + ", or ".join(MADE_BY[kind] for kind in kinds)
    wanted = " or ".join(kinds)
    if not path.exists():
        raise ArtifactError(f"{path} does not exist.", f"This command needs an artifact of kind {wanted}.", make)
    if not path.is_dir():
        raise ArtifactError(f"{path} is a file.", f"This command needs a folder of kind {wanted}.", make)
    if not (path / MANIFEST_FILE).is_file():
        if "checkpoint" in kinds and (path / "config.json").is_file():
            return Artifact(path, "checkpoint", None)
        raise ArtifactError(
            f"{path} holds no {MANIFEST_FILE}.", f"This command needs an artifact of kind {wanted}.", make
        )
    manifest = read_manifest(path)
    if manifest.kind not in kinds:
        raise ArtifactError(
            f"{path} is of kind {manifest.kind}, written by bluelm {manifest.stage}.",
            f"This command needs an artifact of kind {wanted}.",
            make,
        )
    _check_files(path, manifest)
    return Artifact(path, manifest.kind, manifest)


def up_to_date(out: Path, spec: ArtifactSpec, force: bool = False) -> Manifest | None:
    """The manifest of an output that these inputs and this configuration already made, or None to make it.

    Raises:
        ArtifactError: something else is there and `force` is not set (the message names the difference), or the
            target is the current folder or one above it.
    """
    refuse_here(out)
    recover(out)
    if not os.path.lexists(out):
        return None
    fix = "Choose another --out, or replace it with --force."
    if not (out / MANIFEST_FILE).is_file():
        if out.is_dir() and not any(out.iterdir()):
            return None
        raise ArtifactError(
            f"{out} exists and is not an artifact of bluelm.",
            "Replacing it would lose what is there.",
            "Choose another --out.",
        )
    if force:
        return None
    manifest = read_manifest(out)
    difference = _difference(manifest, spec)
    if difference is not None:
        raise ArtifactError(f"{out} exists and differs: {difference}.", "It will not be overwritten silently.", fix)
    _check_files(out, manifest)
    _sweep(out)
    return manifest


def _sweep(out: Path) -> None:
    """Removes what a run that was killed at its very end left beside a whole artifact."""
    partial, lock = _partial_of(out), lock_path(out)
    if not (partial.exists() or lock.exists() or (out / _SPEC_FILE).exists()):
        return
    with contextlib.suppress(ArtifactError, OSError), locked(out):  # another writer's are its own
        (out / _SPEC_FILE).unlink(missing_ok=True)
        if not (partial / _SPEC_FILE).exists():  # else work on another specification that can go on
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def create(out: Path, spec: ArtifactSpec, *, force: bool = False, resumable: bool = False) -> Iterator[Draft]:
    """Writes an artifact: yields a draft folder and puts it in place when the block ends without an error.

    Args:
        out: the target folder.
        spec: what is made.
        force: replace an existing artifact.
        resumable: keep the partial folder after an error or a kill, and hand it back for the same spec.

    Raises:
        ArtifactError: another process writes the same target, something is in the way, or the disk is full.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100  (resolve() would follow a link at the target itself)
    up_to_date(out, spec, force=force)
    partial = _partial_of(out)
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    with disk_errors(out), locked(out):
        up_to_date(out, spec, force=force)  # again: another writer may have ended between the check and the lock
        resumed = _prepare(partial, spec, resumable)
        draft = Draft(path=partial, resumed=resumed)
        try:
            yield draft
            _finish(draft, spec, started, time.perf_counter() - clock)
            if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
                out.rmdir()
            put_in_place(partial, out)
            # Not before: a kill while the files are hashed must find the work resumable.
            (out / _SPEC_FILE).unlink(missing_ok=True)
        except BaseException:
            if not resumable:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def _partial_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def _prepare(partial: Path, spec: ArtifactSpec, resumable: bool) -> bool:
    """Makes the partial folder; True where an earlier run's is taken over."""
    marker = partial / _SPEC_FILE
    if resumable and marker.is_file() and marker.read_text(encoding="utf-8") == spec.fingerprint:
        return True
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    if resumable:
        marker.write_text(spec.fingerprint, encoding="utf-8")
    return False


def _finish(draft: Draft, spec: ArtifactSpec, started: datetime.datetime, seconds: float) -> None:
    """Hashes the files and writes `run.json` and, last, `artifact.json`."""
    files = {}
    for entry in sorted(draft.path.rglob("*")):
        name = entry.relative_to(draft.path).as_posix()
        if is_partial(entry) and entry.is_file():
            entry.unlink()  # what a killed run left behind
        elif entry.is_file() and name not in {RUN_FILE, MANIFEST_FILE, _SPEC_FILE, *draft.outside}:
            check_name(entry)
            files[name] = FileEntry(size=entry.stat().st_size, sha256=digest_file(entry))
    manifest = Manifest(
        kind=spec.kind,
        stage=spec.stage,
        config=spec.config,
        seed=spec.seed,
        versions=installed_versions(),
        parents=spec.parents,
        files=files,
        metrics=draft.metrics,
    )
    run = {"started": started.isoformat(timespec="seconds"), "seconds": round(seconds, 3), **draft.run}
    run_file = draft.path / RUN_FILE
    run_file.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    # Libraries that write through temporary files leave them to their owner alone, whatever the umask says.
    usual = stat.S_IMODE(run_file.stat().st_mode)
    for file in (draft.path / name for name in files):
        file.chmod(stat.S_IMODE(file.stat().st_mode) | usual)
    write_atomically(draft.path / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
    # Before the old artifact goes the new one must be on the disk, or a power cut could leave neither.
    sync_tree(draft.path)


def _check_files(path: Path, manifest: Manifest) -> None:
    """Names the files that are missing or of another size than the manifest says."""
    for name, entry in manifest.files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != entry.size:
            state = "is missing" if not file.is_file() else f"has {file.stat().st_size} bytes, not {entry.size}"
            raise ArtifactError(
                f"{file} {state}.",
                f"The artifact {path} was damaged after it was written.",
                f"Make it again: {MADE_BY.get(manifest.kind, 'bluelm ' + manifest.stage)} --force",
            )


def _comparable(
    kind: str, stage: str, config: dict[str, Any], seed: int | None, parents: tuple[Parent, ...]
) -> dict[str, Any]:
    return {
        "kind": kind,
        "stage": stage,
        "config": config,
        "seed": seed,
        "parents": [parent.digest for parent in parents],
    }


def _difference(manifest: Manifest, spec: ArtifactSpec) -> str | None:
    """What differs between what is on disk and what would be made, in words; None where nothing does."""
    old = _comparable(manifest.kind, manifest.stage, manifest.config, manifest.seed, manifest.parents)
    new = _comparable(spec.kind, spec.stage, spec.config, spec.seed, spec.parents)
    if digest_json(old) == digest_json(new):
        return None
    for key in ("kind", "stage", "seed"):
        if old[key] != new[key]:
            return f"{key} is {old[key]}, not {new[key]}"
    if old["parents"] != new["parents"]:
        names = ", ".join(parent.path for parent in spec.parents) or "none"
        return f"it was made from other inputs than {names}"
    return _first_difference(manifest.config, spec.config, "")


def _first_difference(old: Any, new: Any, where: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    return f"{where} is {old}, not {new}"
