"""`bluelm info`: what an artifact is, where it came from, and in what two of them differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.options import Json
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.artifacts.manifest import Manifest

MEBIBYTE = 1 << 20


def info(
    paths: Annotated[list[Path], typer.Argument(help="One artifact folder, or two to compare.")],
    as_json: Json = False,
) -> None:
    """Show an artifact's kind, lineage and sizes; of two artifacts, what differs.

    Example: bluelm info build/model-int4

    Example: bluelm info build/model-float build/model-int4
    """
    from stages.artifacts.lineage import differences, read_any

    if len(paths) > 2:
        raise UsageError(
            f"{len(paths)} folders were given.", "info shows one artifact or compares two.", "Give one or two folders."
        )
    manifests = [read_any(path) for path in paths]
    if len(manifests) == 2:
        found = differences(*manifests)
        if as_json:
            console.emit_json({"differences": [vars(item) for item in found]})
        else:
            rows = [[item.name, str(item.first), str(item.second)] for item in found]
            console.emit_table(f"{len(found)} differences", ["what", str(paths[0]), str(paths[1])], rows)
    elif as_json:
        console.emit_json(_as_dict(paths[0], manifests[0]))
    else:
        _show(paths[0], manifests[0])


def _as_dict(path: Path, manifest: Manifest) -> dict[str, Any]:
    from stages.artifacts.lineage import lineage

    return {
        "path": path.as_posix(),
        "digest": manifest.digest,
        "bytes": manifest.size,
        **manifest.model_dump(mode="json"),
        "lineage": [vars(step) for step in lineage(manifest, path)],
    }


def _show(path: Path, manifest: Manifest) -> None:
    from stages.artifacts.lineage import lineage

    rows: list[list[Any]] = [
        ["kind", manifest.kind],
        ["written by", f"bluelm {manifest.stage}"],
        ["digest", manifest.digest],
        ["seed", manifest.seed],
        ["size", f"{manifest.size / MEBIBYTE:.2f} MiB in {len(manifest.files)} files"],
    ]
    rows += [[f"metrics: {name}", _short(value)] for name, value in manifest.metrics.items()]
    rows += [[f"config: {name}", _short(value)] for name, value in manifest.config.items()]
    rows += [[f"version: {name}", value] for name, value in manifest.versions.items()]
    console.emit_table(str(path), ["what", "value"], rows)
    steps = lineage(manifest, path)
    if steps:
        lines = [["  " * (step.depth - 1) + step.path, step.kind, step.digest[:12], step.state] for step in steps]
        console.emit_table("made from", ["input", "kind", "digest", "now"], lines)
    largest = sorted(manifest.files.items(), key=lambda item: -item[1].size)[:12]
    console.emit_table("largest files", ["file", "bytes"], [[name, entry.size] for name, entry in largest])


def _short(value: Any, limit: int = 200) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
