"""No library of ours reports its use to its makers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stages.artifacts.silence import SILENT

CODE = """
import os, sys
from bluelm_cli.app import main
try:
    main(["info", "--help"])
except SystemExit:
    pass
import huggingface_hub.constants as hub
from huggingface_hub.utils import build_hf_headers
sys.stderr.write(f"{hub.HF_HUB_DISABLE_TELEMETRY} {[os.environ[name] for name in %r]} {build_hf_headers(token=False)}")
"""


def test_libraries_are_told_before_they_are_imported(project_root: Path) -> None:
    chatty = {name: "1" if value == "0" else "0" for name, value in SILENT.items()}
    done = subprocess.run(
        [sys.executable, "-c", CODE % list(SILENT)],
        env={**os.environ, **chatty, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        cwd=project_root,
        check=True,
    )
    assert done.stderr.startswith(f"True {list(SILENT.values())}"), done.stderr
    assert "torch/" not in done.stderr  # the headers that would tell what is installed here


def test_ray_is_told_where_the_stage_is_called_without_the_terminal() -> None:
    code = (
        "import importlib.util, os, sys, types\n"
        "sys.modules['ray'] = types.ModuleType('ray')\n"
        "importlib.util.find_spec = lambda name: True\n"
        "from stages.workshop.corpus.tile_engines import _ray\n"
        "_ray()\nsys.stderr.write(os.environ['RAY_USAGE_STATS_ENABLED'])"
    )
    surroundings = {name: value for name, value in os.environ.items() if name not in SILENT}
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=True)
    assert done.stderr.endswith("0")


def test_the_trainer_reports_nowhere(project_root: Path) -> None:
    text = (project_root / "stages" / "workshop" / "training" / "machine.py").read_text(encoding="utf-8")
    assert "report_to=[]" in text
