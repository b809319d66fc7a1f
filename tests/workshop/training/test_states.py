"""States count only when they are whole; the loss curve goes through them unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.workshop.training.curve import LossCurve, read_curve
from stages.workshop.training.history import History, Step
from stages.workshop.training.states import MARKER, drop_states, mark_complete, newest_state


def state(root: Path, step: int) -> Path:
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * step)
    return folder


def step(number: int) -> Step:
    """A step whose figures are no round numbers."""
    return Step(number, 0.1 + 0.2 * number, 1 / 3, {1e-3: 7e-4, 1e-4: 7e-5}, 90, 10, 120, 0.7, None)


def test_the_newest_complete_state_is_taken_with_its_history(tmp_path: Path) -> None:
    history = History(LossCurve(2))
    for number in (1, 2, 3):
        history.add(step(number))
    for number in (5, 20, 100):
        mark_complete(state(tmp_path, number), number, history)
    state(tmp_path, 300)
    found = newest_state(tmp_path)
    assert found is not None
    assert (found.step, found.path.name, found.history) == (100, "checkpoint-100", history)


def test_old_and_half_written_states_go_and_the_newest_stay(tmp_path: Path) -> None:
    for number in (9, 10, 100, 20):
        mark_complete(state(tmp_path, number), number, History(LossCurve(2)))
    state(tmp_path, 300)
    drop_states(tmp_path, keep=3)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100", "checkpoint-20"]
    drop_states(tmp_path, keep=1)
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-100"]


@pytest.mark.parametrize("damage", ["no marker", "short file", "missing file", "torn marker", "foreign marker"])
def test_a_damaged_state_is_no_state(damage: str, tmp_path: Path) -> None:
    folder = state(tmp_path, 7)
    mark_complete(folder, 7, History(LossCurve(2)))
    assert newest_state(tmp_path) is not None
    if damage == "no marker":
        (folder / MARKER).unlink()
    elif damage == "short file":
        (folder / "model.safetensors").write_bytes(b"x")
    elif damage == "missing file":
        (folder / "model.safetensors").unlink()
    elif damage == "torn marker":
        (folder / MARKER).write_text((folder / MARKER).read_text()[:20])
    else:
        (folder / MARKER).write_text(json.dumps({"step": 7, "files": {}, "history": {"other": 1}}))
    assert newest_state(tmp_path) is None


def test_no_folder_is_no_state(tmp_path: Path) -> None:
    assert newest_state(tmp_path / "absent") is None


def test_the_curve_holds_the_mean_of_every_window(tmp_path: Path) -> None:
    curve = LossCurve(3)
    assert [curve.add(step, loss) for step, loss in enumerate([3.0, 4.0, 8.0, 1.0], start=1)] == [None, None, 5.0, None]
    assert curve.close(4) == 1.0
    assert curve.close(4) is None
    assert (curve.steps, curve.losses, curve.first, curve.last) == ([3, 4], [5.0, 1.0], 5.0, 1.0)
    curve.write(tmp_path)
    assert read_curve(tmp_path) == curve
    assert read_curve(tmp_path / "absent") is None
