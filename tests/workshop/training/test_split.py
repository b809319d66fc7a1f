"""Parts taken out of a checkpoint join to the same model again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bluelm_cli.app import app
from stages.artifacts.errors import BluelmError
from stages.artifacts.manifest import read_manifest
from stages.split import SplitConfig, run
from stages.workshop.model.checkpoint import load_model
from stages.workshop.training.parts import FromParts


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3)])
def test_split_and_joined_is_the_same(checkpoint: Path, tmp_path: Path, dtype: str, tolerance: float) -> None:
    for part in ("tower", "language"):
        list(run(SplitConfig.model_validate({"part": part, "dtype": dtype}), checkpoint, tmp_path / part))
    source = FromParts(tmp_path / "tower", tmp_path / "language")
    outline = source.outline(())
    joined, whole = source.load(outline, 0), load_model(checkpoint, torch.float32)
    found, wanted = joined.state_dict(), whole.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if not name.startswith("multi_modal_projector."):
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance * 1e-3)
    assert joined.config.tile_size == whole.config.tile_size
    assert read_manifest(tmp_path / "tower").kind == "tower"
    assert read_manifest(tmp_path / "language").kind == "language-model"


def test_the_command_is_up_to_date_the_second_time(checkpoint: Path, tmp_path: Path) -> None:
    out, asked = tmp_path / "language", ["split", str(checkpoint), "--part", "language", "--out"]
    for _ in range(2):
        result = CliRunner().invoke(app, [*asked, str(out), "--json"])
        assert result.exit_code == 0 and '"part": "language"' in result.output
    assert "up to date" in result.stderr
    with pytest.raises(BluelmError, match="checkpoint"):
        list(run(SplitConfig(part="tower"), out, tmp_path / "again"))
