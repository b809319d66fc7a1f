"""The verdicts of `recipes/quantize_table.py`, on made questions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stages.evaluate.question_rows import QuestionRow

BLOCKS = (32, 64, 128)


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    path = Path(__file__).parents[2] / "recipes" / "quantize_table.py"
    spec = importlib.util.spec_from_file_location("quantize_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(kl: float, lost: int = 0) -> list[QuestionRow]:
    """200 questions of very different KL, the same in every cell but for a factor; some answers lost."""
    hard = np.random.default_rng(0).exponential(1.0, 200)
    return [
        QuestionRow(
            id=str(n), task="t", group=str(n // 2), tokens=2, same=2, kl=kl * float(hard[n]),
            first_right=True, second_right=n >= lost,
        )
        for n in range(200)
    ]  # fmt: skip


def test_paired_verdicts_see_what_two_intervals_hide(recipe: ModuleType) -> None:
    """GPTQ 5 % better at block 128 alone: intervals of either are 15 % wide, that of their difference is not."""
    questions = {recipe.Cell("rtn", block, 16): rows(1.0) for block in BLOCKS}
    questions |= {recipe.Cell("gptq", block, 16): rows(0.95 if block == 128 else 1.0) for block in BLOCKS}
    questions |= {recipe.Cell("awq", block, 16): rows(1.05 if block == 32 else 1.0, lost=40) for block in BLOCKS}
    costs = recipe.against_plain(questions)
    assert list(costs) == [cell for cell in questions if cell.method != "rtn"]
    gptq, awq = recipe.verdicts(costs)
    assert gptq == "gptq: not worse than rtn beyond its interval in any cell; better in KL at block 128 a16."
    assert awq == (
        "awq: worse than rtn beyond its interval at block 32 a16 (KL, exact answers), block 64 a16 (exact answers), "
        "block 128 a16 (exact answers); better in KL at none."
    )
    lines = list(recipe.comparison(costs))
    assert len(lines) == 4 + 6
    assert lines[6].startswith("| gptq | 128 | 16 | -") and lines[6].endswith("| better: KL |")
    assert "-20.00 (" in lines[7] and lines[7].endswith("| worse: KL, exact answers |")
    assert lines[4].endswith("| nothing |")


def test_a_cell_without_its_plain_one_is_left_out(recipe: ModuleType) -> None:
    cells = {recipe.Cell("rtn", 32, 16): rows(1.0), recipe.Cell("gptq", 32, 8): rows(1.0)}
    assert recipe.against_plain(cells) == {}
