"""The shipped model on 64-bit Arm: the same tokens as here, from the same files (recipes/arm64.sh, qemu-user)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# Not a word of these questions is a special one: what the shipped model makes of them is compared, not judged.
QUESTIONS = ("What colour is the shape?", "What shape is it?")
PICTURES = (
    "photos/skimage/coffee.png",
    "photos/skimage/astronaut.png",
    "photos/exif/Portrait_1.jpg",
    "photos/exif/Landscape_0.jpg",
)
LIMIT_S = 1800


@pytest.fixture(scope="module")
def arm_python(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Arm Python: that of BLUELM_ARM64 (a folder that recipes/arm64.sh made), or one made now."""
    given = os.environ.get("BLUELM_ARM64")
    folder = Path(given) if given else tmp_path_factory.mktemp("arm64")
    if not given and (shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None):
        pytest.skip("the Arm Python is unpacked from Debian's packages: no apt-get here; give one in BLUELM_ARM64")
    made = subprocess.run(
        [project_root / "recipes" / "arm64.sh", folder],
        env={**os.environ, "BLUELM_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if made.returncode:
        pytest.skip(f"recipes/arm64.sh cannot set it up here: {made.stderr.strip().splitlines()[-1:]}")
    return folder / "python"


@pytest.mark.slow
def test_arm_gives_the_tokens_that_are_given_here(
    arm_python: Path, project_root: Path, data_dir: Path, tmp_path: Path
) -> None:
    found = {}
    for python in (Path(sys.executable), arm_python):
        out = tmp_path / f"{len(found)}.npz"
        words = [python, project_root / "recipes" / "device_tokens.py", project_root / "recipes" / "demo"]
        words += [data_dir / picture for picture in PICTURES]
        for question in QUESTIONS:
            words += ["--question", question]
        environment = {**os.environ, "PYTHONPATH": str(project_root)}
        subprocess.run([*words, "--out", out], check=True, env=environment, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
        found[python] = dict(np.load(out))
    here, there = found.values()
    assert here.keys() == there.keys()
    assert sum(name.startswith("tokens") for name in here) == len(PICTURES) * len(QUESTIONS)
    for name, values in here.items():
        if name.startswith("tokens"):
            np.testing.assert_array_equal(there[name], values)
            continue
        # INT8 kernels add in another order there, and an ulp decides which step a number takes.
        assert np.linalg.norm(there[name] - values) <= 5e-2 * np.linalg.norm(values), name
