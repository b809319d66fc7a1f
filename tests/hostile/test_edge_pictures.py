"""Real pictures that broke other programs: each is taken or refused, within 1 GiB and ten seconds of work."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

MEMORY = 1 << 30
SECONDS = 10  # of the processor: a busy machine takes longer


def pictures(data_dir: Path) -> list[Path]:
    found = sorted(path for path in (data_dir / "img_edge").iterdir() if path.name != "SOURCE.txt")
    assert len(found) > 40
    return found


ALL_IN_ONE = """
import json, resource, sys
from pathlib import Path
from stages.artifacts.errors import ImageError
from stages.device.imaging.loading import load_image
taken = {}
for name in sys.argv[1:]:
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    try:
        load_image(Path(name))
        taken[name] = True
    except ImageError as error:
        taken[name] = False
    assert sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before < %d, name
print(json.dumps({"taken": taken, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10}))
"""


def limited() -> None:
    """In the child: no more address space than that."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def test_all_are_taken_or_refused_in_one_process(data_dir: Path, project_root: Path) -> None:
    import json

    words = [sys.executable, "-c", ALL_IN_ONE % SECONDS, *map(str, pictures(data_dir))]
    done = subprocess.run(words, capture_output=True, text=True, cwd=project_root, preexec_fn=limited, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["peak"] < MEMORY
    assert 10 < sum(told["taken"].values()) < len(told["taken"])


@pytest.mark.slow
def test_each_through_the_command_line(data_dir: Path, project_root: Path, tmp_path: Path) -> None:
    codes = {}
    for path in pictures(data_dir):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = [sys.executable, "-m", "bluelm_cli", "tile", str(path), "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=project_root, env=environment, preexec_fn=limited, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        codes[path.name] = done.returncode
        assert done.returncode in (0, 2), done.stderr
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS, path.name
        assert "Traceback" not in done.stderr
    assert {0, 2} == set(codes.values())
