"""Random weights: which ones, where they stay, and when they are written again."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import pytest

from stages.artifacts.events import result_of
from stages.bench import BenchConfig
from stages.bench import run as bench
from stages.measure import random_models
from stages.measure.random_models import BenchModel, ModelChoice, Policy, fit_together, open_models, random_model
from stages.workshop.quant.activation_policy import FIXED_POLICIES


def test_the_policies_are_the_workshops() -> None:
    assert set(get_args(Policy)) == set(FIXED_POLICIES)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the writer was asked for; it writes nothing."""
    asked: list[dict[str, Any]] = []

    def write(what: str, settings: dict[str, Any], folder: Path, title: str) -> None:
        assert (what, folder.is_dir()) == ("random", True)
        asked.append(settings)

    monkeypatch.setattr(random_models, "write_by_workshop", write)
    return asked


def test_kept_weights_are_used_again(
    written: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = ModelChoice(preset="tiny", layers=1)
    with random_model(choice, "mix", tmp_path) as first, random_model(choice, "mix", tmp_path) as again:
        assert first == again and len(written) == 1
    assert first.is_dir()
    with random_model(choice, "paper", tmp_path) as other, random_model(choice, None, tmp_path) as default:
        assert len({first, other, default}) == 3 and len(written) == 3
    # Other code, other weights; a writing that was broken off is begun anew.
    monkeypatch.setattr(random_models, "code_digest", lambda: "changed")
    first.with_name(first.name + ".partial").mkdir()
    with random_model(choice, "mix", tmp_path) as renewed:
        assert renewed == first and len(written) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in (first, other, default))


def test_without_keep_nothing_stays(written: list[dict[str, Any]]) -> None:
    with random_model(ModelChoice(preset="tiny")) as folder:
        assert folder.is_dir() and written[0]["policy"] is None
    assert not folder.exists()


def test_models_are_told_when_they_do_not_fit(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        events = open_models(ModelChoice(), ModelChoice().source(tiny_onnx), None, stack)
        with pytest.raises(StopIteration) as stop:
            next(events)
    model: BenchModel = stop.value.value[0]
    size = sum(file.stat().st_size for file in tiny_onnx.iterdir())
    assert fit_together([model], available=0)
    assert fit_together([model, model], available=3 * size) and not fit_together([model, model], available=2 * size)


@pytest.mark.parametrize("together", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_policies_are_run_in_turns_where_they_fit(
    together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.device.runtime.decoder import Decoder

    order: list[Decoder] = []
    plain = Decoder.prefill

    def watched(self: Decoder, embeds: Any, **more: Any) -> Any:
        if len(embeds) > 1:
            order.append(self)
        return plain(self, embeds, **more)

    monkeypatch.setattr(Decoder, "prefill", watched)
    monkeypatch.setattr("stages.measure.bench_job.fit_together", lambda models: together)
    sizes = {"prompt_tokens": (8, 24), "generate": 2, "runs": 2, "warmup": 0, "threads": 1, "tiles": (1, 2)}
    config = BenchConfig(preset="tiny", layers=1, policy=("mix", "paper"), ceilings=False, **sizes)  # type: ignore[arg-type]
    summary = result_of(bench(config, None, keep=tmp_path))
    names = dict(zip(dict.fromkeys(order), "ab", strict=True))
    assert "".join(names[one] for one in order) == ("abababab" if together else "aaaabbbb")
    rows = [(row["test"], row["policy"], row["n_prompt"], row["tiles"]) for row in summary.rows]
    assert rows.count(("prefill", "mix", 24, None)) == rows.count(("decode", "paper", 8, None)) == 1
    assert {tiles for test, _, _, tiles in rows if test == "encode"} == {1, 2}
    assert {row["forms"] for row in summary.rows if row["test"] == "load"} == {None}
    assert all(row["gop_s"] and row["ceiling_share"] is None for row in summary.rows if row["test"] == "prefill")
    assert summary.ceilings is None and summary.peak_stage in ("load", "encode", "text")
