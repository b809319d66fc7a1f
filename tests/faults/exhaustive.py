"""One piece of work, and all the ways in which it can be cut short: what is checked after each."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.errors import BluelmError
from tests.faults.points import CODE_OF_DEATH, NEEDS_ROOM, How, Points

HOWS: tuple[How, ...] = ("die", "interrupt", "full")


@dataclass(frozen=True)
class Work:
    """Something that is written.

    Attributes:
        prepare: makes what was there before, in an empty folder.
        write: the work.
        look: what a reader finds; it raises where a reader would.
        partly: whether a reader may find another part of the work, as of work that goes on; old and new otherwise.
        again: what is done after a fault; the work itself where None.
    """

    prepare: Callable[[Path], None]
    write: Callable[[Path], None]
    look: Callable[[Path], Any]
    partly: Callable[[Any], bool] | None = None
    again: Callable[[Path], None] | None = None


def leftovers(folder: Path) -> list[str]:
    """Hidden files: drafts, locks, what was moved aside."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


def survive_everything(work: Work, folder: Path) -> Counter[str]:
    """Fails at each point in each way; afterwards old or new is there, and the next run ends as if nothing had been.

    Returns:
        how many faults of each kind were injected.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # the disk is not what is tested
        patch.setattr("stages.artifacts.folder.installed_versions", dict)  # looked up anew for each artifact
        return _at_every_point(work, folder)


def _at_every_point(work: Work, folder: Path) -> Counter[str]:
    place, before = folder / "place", folder / "before"
    before.mkdir(parents=True)
    work.prepare(before)
    old, new, points = _fault_free(work, before, place)
    assert len(points) > 4
    done: Counter[str] = Counter()
    for how in HOWS:
        for at in _worth(how, points):
            _anew(before, place)
            where = f"{how} at point {at}"
            if not _run(work, place, Points(at, how)):
                continue  # a point where a full disk does nothing
            done[how] += 1
            found = work.look(place)
            assert found in (old, new) or (work.partly is not None and work.partly(found)), where
            if how == "full":
                assert not [name for name in leftovers(place) if name.endswith(".lock")], where
            (work.again or work.write)(place)
            assert work.look(place) == new, where
            assert leftovers(place) == [], where
    return done


def _fault_free(work: Work, before: Path, place: Path) -> tuple[Any, Any, list[tuple[str, str]]]:
    """What is there before and after the undisturbed work, and how many points it passes."""
    _anew(before, place)
    old, counting = work.look(place), Points()
    with pytest.MonkeyPatch.context() as patch:
        counting.patch(patch)
        work.write(place)
    new = work.look(place)
    assert old != new and leftovers(place) == []
    return old, new, counting.seen


def _worth(how: How, points: list[tuple[str, str]]) -> list[int]:
    """Points that differ: nothing happens on the disk between the end of a call and the next one."""
    last = len(points) - 1
    skipped = {"die": "after", "interrupt": "before", "full": "after"}[how]
    return [
        at
        for at, (operation, moment) in enumerate(points)
        if (moment != skipped or (at == last and how == "die")) and (how != "full" or operation in NEEDS_ROOM)
    ]


def _anew(before: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(before, place)


def _run(work: Work, place: Path, points: Points) -> bool:
    """Whether the work was hit."""
    if points.how == "die":
        return _in_child(work, place, points)
    with pytest.MonkeyPatch.context() as patch:
        points.patch(patch)
        try:
            work.write(place)
        except KeyboardInterrupt:
            assert points.how == "interrupt"
        except (OSError, BluelmError) as error:
            assert points.how == "full", error
    return points.failed


def _in_child(work: Work, place: Path, points: Points) -> bool:
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                points.patch(patch)
                work.write(place)
            os._exit(0)
        finally:
            os._exit(1)  # an error of the work itself
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, CODE_OF_DEATH), code
    return code == CODE_OF_DEATH
