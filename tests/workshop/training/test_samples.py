"""Samples: what is learned, and what becomes of rows that are too long, with the limit at every position."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from stages.device.imaging.geometry import Size
from stages.device.imaging.rules import RULES
from stages.device.imaging.spec import TilingSpec
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.row import Place, Row, Turn
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.training.pictures import Tiled, coarser_budget, plan_tiled
from stages.workshop.training.sample_report import SampleReport, read_totals, write_report
from stages.workshop.training.samples import Sample, SampleBuilder, TooLong

PER_TILE = 4


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> BlueLMVProcessor:
    return load_checkpoint(checkpoint)[1]


@dataclass
class Grids:
    """A tile source without pictures: each has the sizes of grids that its name lists, the largest first."""

    seen: list[Tiled] = field(default_factory=list)

    def tile_count(self, tiled: Tiled) -> int:
        return max(count for count in self._counts(tiled) if tiled.most is None or count <= tiled.most)

    def coarser(self, tiled: Tiled) -> Tiled | None:
        smaller = [count for count in self._counts(tiled) if count < self.tile_count(tiled)]
        return Tiled(tiled.picture, max(smaller)) if smaller else None

    def holds(self, tiled: Tiled) -> bool:
        raise AssertionError(tiled)

    def tiles_of(self, tiled: Tiled) -> torch.Tensor:
        raise AssertionError(tiled)

    def _counts(self, tiled: Tiled) -> list[int]:
        return [int(count) for count in Path(tiled.picture.name).stem.split("-")]


def talk(pictures: list[str], *texts: str) -> Row:
    """A conversation: question, answer, question, answer, …"""
    turns = tuple(Turn("assistant" if number % 2 else "user", text) for number, text in enumerate(texts))
    found = tuple(PictureFile(Path("/nowhere"), f"{name}.png") for name in pictures)
    return Row("a", turns, found, place=Place(Path("/nowhere/set.jsonl"), 7, "line"))


ROWS = {
    "one picture": talk(["5-3-1"], "<image>\nSay red.", "red " * 5),
    "text": talk([], "Say red.", "red " * 5, "Say blue.", "blue"),
    "two pictures in two turns": talk(["3-1", "2-1"], "<image>\nSay red.", "red", "<image>\nSay blue.", "blue blue"),
    "three at once": talk(["3-2-1", "3-2-1", "1"], "<image><image><image>\nSay red.", "red"),
}


def build(
    processor: BlueLMVProcessor, row: Row, limit: int, too_long: TooLong = "cut_text"
) -> tuple[Sample | None, SampleReport]:
    builder = SampleBuilder(processor.prompts, PER_TILE, limit, Grids(), too_long)
    return builder.build(row), builder.report


def whole(processor: BlueLMVProcessor, row: Row) -> Sample:
    sample, report = build(processor, row, 10_000)
    assert sample is not None
    assert not report.cases
    return sample


def test_labels_are_the_answers_and_nothing_else(processor: BlueLMVProcessor) -> None:
    sample, _ = build(processor, talk(["2"], "<image>\nSay red.", "red", "Say red.", "blue blue"), 128)
    assert sample is not None
    text = "<|im_start|>user\n<image>Say red.<|im_end|>\n<|im_start|>assistant\n"
    expected = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    slot = expected.index(processor.image_token_id)
    assert sample.ids[: len(expected) + 7].tolist() == [
        *expected[:slot],
        *[processor.image_token_id] * 8,
        *expected[slot + 1 :],
    ]
    said = [processor.tokenizer.decode(sample.ids[sample.is_answer])]
    assert said == ["red<|im_end|>blue blue<|im_end|>"]
    assert sample.tiles == 2


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("too_long", ["cut_text", "shrink_tiling", "drop"])
def test_no_limit_cuts_inside_a_picture(name: str, too_long: TooLong, processor: BlueLMVProcessor) -> None:
    """LLaMA-Factory#9075: every limit from 1 on; slots and tiles always agree, and nothing is lost in silence."""
    full = whole(processor, ROWS[name])
    fates = []
    for limit in range(1, full.length + 2):
        sample, report = build(processor, ROWS[name], limit, too_long)
        cases = report.cases or []
        if limit >= full.length:
            assert not cases
        else:
            assert [(case.row, case.place, case.tokens) for case in cases] == [("a", "set.jsonl, line 7", full.length)]
            fates.append(cases[0].fate)
            assert cases[0].kept == (0 if sample is None else sample.length)
        assert report.rows == 1
        assert report.left_out == (sample is None)
        assert len(report.warnings(limit)) == len(cases)
        if sample is not None:
            slots = int((sample.ids == processor.image_token_id).sum())
            counts = [Grids().tile_count(picture) for picture in sample.pictures]
            assert slots == sum(counts) * PER_TILE == sample.tiles * PER_TILE
            assert len(sample.pictures) == len(ROWS[name].pictures)
            assert sample.length <= limit
            assert sample.is_answer[1:].any()
    # From short to long, fates come in the order of what is left; each mode has its own.
    allowed = {
        "cut_text": ["pictures_too_long", "nothing_to_learn", "cut"],
        "shrink_tiling": ["too_long", "shrunk"],
        "drop": ["too_long"],
    }[too_long]
    assert fates == sorted(fates, key=allowed.index)


def test_cut_text_keeps_everything_before_the_limit(processor: BlueLMVProcessor) -> None:
    full = whole(processor, ROWS["one picture"])
    last_slot = max(index for index, token in enumerate(full.ids) if token == processor.image_token_id)
    for limit in range(1, full.length):
        sample, report = build(processor, ROWS["one picture"], limit)
        learns = full.is_answer[1:limit].any()
        assert (sample is not None) == learns
        if sample is not None:
            assert sample.ids.tolist() == full.ids[:limit].tolist()
            assert sample.is_answer.tolist() == full.is_answer[:limit].tolist()
        else:
            fate = "pictures_too_long" if limit <= last_slot else "nothing_to_learn"
            assert report.fates == {fate: 1}


def test_shrinking_takes_the_fewest_tiles_away_and_leaves_the_text_alone(processor: BlueLMVProcessor) -> None:
    """The picture with the most tiles goes first; of equal ones the first."""
    row = ROWS["three at once"]
    full = whole(processor, row)
    text = full.length - 7 * PER_TILE
    found = {}
    for limit in range(text + 3 * PER_TILE, full.length):
        sample, report = build(processor, row, limit, "shrink_tiling")
        assert sample is not None
        counts = tuple(Grids().tile_count(picture) for picture in sample.pictures)
        assert report.cases is not None
        assert report.cases[0].tiles == (7, sum(counts))
        found[(limit - text) // PER_TILE] = counts
        assert sample.ids[sample.is_answer].tolist() == full.ids[full.is_answer].tolist()
    assert found == {6: (2, 3, 1), 5: (2, 2, 1), 4: (1, 2, 1), 3: (1, 1, 1)}
    assert build(processor, row, text + 3 * PER_TILE - 1, "shrink_tiling")[0] is None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [Size(1600, 1600), Size(1080, 2400), Size(3000, 400), Size(30, 20)])
@pytest.mark.parametrize("box", [{"max_cols": 4, "max_rows": 4}, {"max_cols": 2, "max_rows": 3}, {"max_tiles": 12}])
def test_coarser_grids_lead_to_one_tile_and_stay_in_the_box(rule: str, size: Size, box: dict[str, int]) -> None:
    spec = TilingSpec(rule=rule, **box)
    most, grids = None, [plan_tiled(size, spec, None).grid]
    while (most := coarser_budget(size, spec, most)) is not None:
        grid = plan_tiled(size, spec, most).grid
        assert grid.area < grids[-1].area
        if "max_cols" in box:
            assert grid.cols <= box["max_cols"]
            assert grid.rows <= box["max_rows"]
        grids.append(grid)
    assert grids[-1].area == 1


def test_the_report_names_every_case_and_ends_with_the_totals(processor: BlueLMVProcessor, tmp_path: Path) -> None:
    builder = SampleBuilder(processor.prompts, PER_TILE, 36, Grids(), "cut_text")
    for number in range(9):
        turns = (Turn("user", "Say red."), Turn("assistant", "red " * (30 if number else 1)))
        builder.build(Row(f"row{number}", turns, place=Place(Path("x/set.json"), number)))
    report = builder.report
    assert report.warnings(36) == [
        "8 samples were cut at their end to 36 tokens: row1, row2, row3, row4, row5 and 3 more"
    ]
    write_report(tmp_path, (case.line() for case in report.cases or ()), report)
    *cases, last = [json.loads(line) for line in (tmp_path / "data_report.jsonl").read_text().splitlines()]
    assert [case["row"] for case in cases] == [f"row{number}" for number in range(1, 9)]
    assert cases[0] == {
        "row": "row1",
        "fate": "cut",
        "place": "set.json, row 1",
        "tokens": cases[0]["tokens"],
        "kept": 36,
    }
    assert last == {"totals": report.as_dict()}
    assert read_totals(tmp_path) == report.as_dict()
    assert report.as_dict()["samples"] == 9
    assert report.as_dict()["cut"] == 8
