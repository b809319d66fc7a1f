"""How many of the recipe's 24 questions are heard exactly."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pocketsphinx", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")
pytest.importorskip("espeakng_loader", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")


@pytest.mark.slow
@pytest.mark.parametrize("voice", ["en-us+f3", "en-us", "en-gb"])
def test_at_least_three_in_five_questions_are_heard_exactly(project_root: Path, voice: str) -> None:
    script = project_root / "recipes" / "speech.sh"
    done = subprocess.run([script, "--voices", voice, "--json"], capture_output=True, text=True, check=True)
    counted = json.loads(done.stdout)["counts"][voice]
    assert counted["grammar"]["questions"] == 24
    assert counted["grammar"]["exact"] >= 0.6 * 24
    assert counted["grammar"]["word_error"] < counted["dictation"]["word_error"]
