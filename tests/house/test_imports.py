"""The house's directions: who may import whom, read from the code itself, with no list of exceptions."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "onnx", "onnxruntime")

# Each part and the parts it may import, itself included. A verb is a file directly in stages/.
ARTIFACTS = ("stages.artifacts",)
IMAGING = ("stages.device.imaging", *ARTIFACTS)
CONTRACT = ("stages.device.contract", *IMAGING)
PROMPT = ("stages.device.prompt", *CONTRACT)
DEVICE_PUBLIC = PROMPT
RUNTIME = ("stages.device.runtime", *DEVICE_PUBLIC)
SERVE = ("stages.device.serve", *RUNTIME)
SPEECH = ("stages.device.speech", *RUNTIME)
MODEL = ("stages.workshop.model", *DEVICE_PUBLIC)
CORPUS = ("stages.workshop.corpus", *MODEL)
QUANT = ("stages.workshop.quant", *CORPUS)
TRAINING = ("stages.workshop.training", *QUANT)
GRAPH = ("stages.workshop.graph", *QUANT)
NPU = ("stages.workshop.npu", *GRAPH)
DIRECTIONS = {
    "stages.artifacts": ARTIFACTS,
    "stages.device.imaging": IMAGING,
    "stages.device.prompt": PROMPT,
    "stages.device.contract": CONTRACT,
    "stages.device.runtime": RUNTIME,
    "stages.device.serve": SERVE,
    "stages.device.speech": SPEECH,
    "stages.workshop.model": MODEL,
    "stages.workshop.corpus": CORPUS,
    "stages.workshop.quant": QUANT,
    "stages.workshop.training": TRAINING,
    "stages.workshop.graph": GRAPH,
    "stages.workshop.npu": NPU,
    "stages.workshop.speech": ("stages.workshop.speech", *ARTIFACTS),
    "stages.measure": ("stages.measure", *RUNTIME),
    "stages.evaluate": ("stages.evaluate", "stages.measure", *RUNTIME),
}
NOUNS = (*DIRECTIONS, "stages.measure", "stages.evaluate")


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


def imported(path: Path, top_level_only: bool = False) -> list[str]:
    """Full names of all modules a file imports; relative imports count as a mistake of their own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


@pytest.mark.parametrize("part", DIRECTIONS)
def test_imports_go_one_way(part: str) -> None:
    for path in modules(part.replace(".", "/")):
        for name in imported(path):
            if within(name, "stages") or within(name, "bluelm_cli"):
                assert any(within(name, allowed) for allowed in DIRECTIONS[part]), f"{path} imports {name}"


def test_every_noun_folder_has_its_directions() -> None:
    folders = {path.parent for path in modules("stages") if path.parent != ROOT / "stages"}
    for folder in folders:
        name = folder.relative_to(ROOT).as_posix().replace("/", ".")
        container = name in ("stages.device", "stages.workshop")
        assert container or any(within(name, part) for part in DIRECTIONS), f"{name} has no directions"


def test_verbs_never_import_one_another_nor_the_terminal() -> None:
    verbs = sorted((ROOT / "stages").glob("*.py"))
    for path in verbs:
        for name in imported(path):
            assert not within(name, "bluelm_cli"), f"{path} imports {name}"
            if within(name, "stages"):
                assert any(within(name, noun) for noun in NOUNS), f"{path} imports {name}"


def test_device_never_imports_the_workshops_libraries() -> None:
    for path in modules("stages/device"):
        for name in imported(path):
            assert not any(within(name, heavy) for heavy in ("torch", "transformers", "onnx")), f"{path} imports {name}"


def test_only_the_terminal_prints_and_knows_typer_and_rich() -> None:
    for path in modules("stages"):
        for name in imported(path):
            assert not any(within(name, library) for library in ("typer", "rich")), f"{path} imports {name}"
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_commands_import_verbs_and_libraries_only_when_they_run() -> None:
    for path in modules("bluelm_cli"):
        for name in imported(path, top_level_only=True):
            light = any(within(name, f"stages.artifacts.{module}") for module in ("errors", "events", "silence"))
            assert light or not within(name, "stages"), f"{path} imports {name} at import"
            assert not any(within(name, heavy) for heavy in (*HEAVY, "numpy", "PIL")), f"{path} imports {name}"


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom bluelm_cli.app import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"loaded = [name for name in {(*HEAVY, 'numpy', 'PIL', 'pydantic')!r} if name in sys.modules]\n"
        "sys.stderr.write(','.join(loaded))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == ""
    assert "quantize" in done.stdout
