"""`bluelm quantize`: stdout carries the result, errors exit with 2."""

import json
import sys

import pytest


def test_json_is_the_report(bluelm, checkpoint, corpus, tmp_path):
    done = bluelm("quantize", checkpoint, "--data", corpus, "--out", tmp_path / "q", "--samples", 3, "--json")
    assert done.code == 0, done.err
    told = done.json()
    report = json.loads((tmp_path / "q" / "report.json").read_text())
    assert told == {"out": (tmp_path / "q").as_posix(), **report}
    assert told["calibration"]["samples"] == 3
    assert {"name", "part", "shape", "scheme", "weight_error", "output_error", "bytes_before", "bytes_after"} <= set(
        told["layers"][0]
    )
    assert told["total"]["bits_per_weight"] == pytest.approx(
        8 * told["total"]["bytes_after"] / told["total"]["weights"], rel=1e-12
    )
    again = bluelm("quantize", checkpoint, "--data", corpus, "--out", tmp_path / "q", "--samples", 3, "--json")
    assert (again.code, again.json()) == (0, told)
    assert "is up to date" in again.err


def test_the_table_shows_parts_and_the_worst_layers(bluelm, checkpoint, corpus, tmp_path):
    done = bluelm("quantize", checkpoint, "--data", corpus, "--out", tmp_path / "q")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "q" / "report.json").read_text())
    worst = max(report["layers"], key=lambda layer: layer["output_error"] or 0)
    assert worst["name"] in done.out
    for part in (*report["parts"], report["total"]):
        assert f"{part['bits_per_weight']:.3f}" in done.out


def test_dry_run_lists_every_tensor_and_reads_no_weights(bluelm, checkpoint, tmp_path):
    # Only the headers: a file cut right after its header is enough.
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    weights = (tmp_path / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(weights[:8], "little")
    (tmp_path / "model.safetensors").write_bytes(weights[:header])
    done = bluelm("quantize", tmp_path, "--dry-run", "--json")
    assert done.code == 0, done.err
    told = done.json()
    names = set(json.loads(weights[8:header])) - {"__metadata__"}
    assert {tensor["name"] for tensor in told["tensors"]} == names
    schemes = {tensor["name"]: tensor["scheme"] for tensor in told["tensors"]}
    assert schemes["language_model.model.layers.1.mlp.up_proj.weight"] == "int4 groups of 32"
    assert schemes["vision_tower.encoder.layers.0.mlp.fc1.weight"] == "int8"
    assert schemes["vision_tower.encoder.layers.0.mlp.fc1.bias"] == "float"
    assert schemes["vision_tower.embeddings.patch_embedding.weight"] == "float"
    assert sum(tensor["bytes_after"] for tensor in told["tensors"]) == told["total"]["bytes_after"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    table = bluelm("quantize", tmp_path, "--dry-run")
    assert "vision_tower.embeddings.patch_embedding.weight" in table.out


def test_dry_run_names_what_the_export_quantizes(bluelm, tied_checkpoint):
    told = bluelm("quantize", tied_checkpoint, "--dry-run", "--json").json()
    assert told["at_export"] == {"language_model.lm_head": "int8", "language_model.model.embed_tokens": "int8"}
    stored = {tensor["name"]: tensor for tensor in told["tensors"]}["language_model.model.embed_tokens.weight"]
    assert (stored["scheme"], stored["at_export"]) == ("float", "int8")
    assert stored["bytes_after"] == stored["bytes_before"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "rules=[{modules: nothing.*, weights: int8}]"], "'nothing.*', matches no module"),
        (["--set", "rules=[]"], "rules"),
        (["--set", "sampels=3"], "Did you mean 'samples'?"),
        (["--set", "kv=int4"], "kv"),
        (["--recipe", "nowhere.yaml"], "There is no recipe nowhere.yaml"),
        (["--dtype", "float8"], "dtype"),
        ([], "--data is missing"),
    ],
)
def test_mistakes_exit_with_2_and_write_nothing(bluelm, checkpoint, tmp_path, words, message):
    done = bluelm("quantize", checkpoint, "--out", tmp_path / "q", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Why:" in done.err
    assert "Fix:" in done.err
    assert list(tmp_path.iterdir()) == []


def test_out_and_the_right_kind_are_needed(bluelm, checkpoint, corpus, tmp_path):
    assert "--out is missing" in bluelm("quantize", checkpoint, "--data", corpus).err
    wrong = bluelm("quantize", corpus, "--data", corpus, "--out", tmp_path / "q")
    assert (wrong.code, "bluelm finetune" in wrong.err) == (2, True)
    missing = bluelm("quantize", tmp_path / "none", "--data", corpus, "--out", tmp_path / "q")
    assert (missing.code, "does not exist" in missing.err) == (2, True)


def test_help_has_an_example_and_imports_no_torch(project_root):
    import subprocess

    code = (
        "import sys\nfrom bluelm_cli.app import main\n"
        "try:\n    main(['quantize', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'compressed_tensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project_root, check=True)
    assert "Example: bluelm quantize" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
