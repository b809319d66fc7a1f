"""States count only when they are whole; the loss curve goes through them unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.workshop.training.curve import LossCurve, read_curve
from stages.workshop.training.states import MARKER, drop_others, mark_complete, newest_state


def state(root: Path, step: int) -> Path:
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * step)
    return folder


def test_the_newest_complete_state_is_taken(tmp_path: Path) -> None:
    curve = LossCurve(2, [2], [0.1 + 0.2], 1 / 3, 1)
    for step in (5, 20, 100):
        mark_complete(state(tmp_path, step), step, curve)
    state(tmp_path, 300)
    found = newest_state(tmp_path)
    assert found is not None
    assert (found.step, found.path.name, found.curve) == (100, "checkpoint-100", curve)
    drop_others(tmp_path, keep=found.path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-100"]


@pytest.mark.parametrize("damage", ["no marker", "short file", "missing file", "torn marker", "foreign marker"])
def test_a_damaged_state_is_no_state(damage: str, tmp_path: Path) -> None:
    folder = state(tmp_path, 7)
    mark_complete(folder, 7, LossCurve(2))
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
        (folder / MARKER).write_text(json.dumps({"step": 7, "files": {}, "curve": {"other": 1}}))
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
