"""What a training and a quantization go on from: the newest whole state or block, wherever the process died."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stages.workshop.quant.block_files import BlockFiles, DoneBlock
from stages.workshop.training.curve import LossCurve, read_curve
from stages.workshop.training.history import History
from stages.workshop.training.sample_report import SampleReport, read_totals, write_report
from stages.workshop.training.states import drop_states, mark_complete, newest_state
from tests.faults.exhaustive import Work, survive_everything
from tests.faults.test_written_files import of_file


def state(place: Path, step: int) -> None:
    """As the trainer writes one: its files, the marker, and then the older states go."""
    folder = place / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    for name in ("optimizer.pt", "model.safetensors"):
        (folder / name).write_bytes(bytes([step]) * 99)
    mark_complete(folder, step, History(LossCurve(every=1)))
    drop_states(place, 1)


def test_a_state_is_whole_or_the_one_before_it_is_there(tmp_path: Path) -> None:
    def look(place: Path) -> Any:
        found = newest_state(place)
        assert found is not None
        return found.step, {path.name: path.read_bytes() for path in found.path.iterdir() if path.suffix != ".json"}

    def again(place: Path) -> None:
        state(place, 2)
        for left in place.rglob(".*.partial"):
            left.unlink()

    survive_everything(Work(lambda place: state(place, 1), lambda place: state(place, 2), look, again=again), tmp_path)


def test_the_curve_and_the_report_of_rows(tmp_path: Path) -> None:
    def write(step: int) -> Any:
        def both(place: Path) -> None:
            LossCurve(every=1, steps=[step], losses=[0.5]).write(place)
            write_report(place, (f'{{"row": {row}}}\n' for row in range(3)), SampleReport(samples=step))

        return both

    def look(place: Path) -> Any:
        curve = read_curve(place)
        assert curve is not None
        return curve.steps, read_totals(place)["samples"]

    survive_everything(of_file(write(1), write(2), look, lambda found: found == ([2], 1)), tmp_path)


def test_a_quantized_block(tmp_path: Path) -> None:
    def write(place: Path) -> None:
        BlockFiles(place / "blocks").write(0, DoneBlock({"w": torch.arange(9)}, {1: torch.ones(2)}, {"error": 0.5}))

    def look(place: Path) -> Any:
        block = BlockFiles(place / "blocks").read(0)
        return None if block is None else (block.tensors["w"].tolist(), block.folds[1].tolist(), block.measured)

    survive_everything(of_file(None, write, look), tmp_path)
