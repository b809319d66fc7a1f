"""`report.html` of a quantized folder, its figures as SVG files, and the report's sentence as markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.measure.charts import Bar, Bars, Panel, draw
from stages.measure.report_page import note, render_page, section, standalone, table, write_page

PAGE_FILE, SENTENCE_FILE, FIGURES = "report.html", "report.md", "figures"
WORST = 24
MB = 1e6


def write_pages(report: Mapping[str, Any], folder: Path, title: str) -> None:
    """Writes report.html, report.md and figures/*.svg.

    Args:
        report: the content of report.json.
        folder: where to.
        title: of the page.
    """
    charts = list(figures(report))
    (folder / FIGURES).mkdir(exist_ok=True)
    for chart in charts:
        (folder / FIGURES / f"{chart.name}.svg").write_text(standalone(draw(chart)), encoding="utf-8")
    drawn = [note(report["sentence"], "finding"), *(section(one.title, one.about, draw(one)) for one in charts)]
    page = render_page("bluelm quantize", title, _facts(report), drawn, tables(report))
    write_page(folder / PAGE_FILE, page)
    (folder / SENTENCE_FILE).write_text(f"{report['sentence']}\n", encoding="utf-8")


def figures(report: Mapping[str, Any]) -> Iterator[Bars]:
    """Bytes, what each part and layer costs alone, and errors of layers; those that were measured."""
    yield Bars(
        "bytes",
        "Bytes by part",
        "Each part of the checkpoint, before and after; scales and float tensors included.",
        tuple(
            Panel(f"{part['part']}: {part['bits_per_weight']:.2f} bits a weight", "MB", _before_after(part))
            for part in report["parts"]
        ),
    )
    fidelity = report["fidelity"]
    rows = fidelity["sensitivity"] if fidelity else []
    for name, title, chosen in (
        ("sensitivity", "One part quantized at a time", [row for row in rows if ".layers." not in row["part"]]),
        ("sensitivity-layers", "One layer quantized at a time", [row for row in rows if ".layers." in row["part"]]),
    ):
        if chosen:
            about = "KL divergence from the float model over the assistant's tokens, with 95 % intervals."
            yield Bars(name, title, about, (Panel("KL divergence", "nats a token", tuple(_sensitivity(chosen))),))
    layers = [layer for layer in report["layers"] if layer["output_error"] is not None]
    worst = sorted(layers, key=lambda layer: layer["output_error"], reverse=True)[:WORST]
    if worst:
        yield Bars(
            "layers",
            "Layers with the largest output error",
            "Mean of ‖Wx − Ŵx‖ / ‖Wx‖ over inputs of the calibration prompts, weights rounded alone.",
            (
                Panel(
                    "relative error", "%", tuple(Bar(_short(one["name"]), 100 * one["output_error"]) for one in worst)
                ),
            ),
        )
    positions = fidelity["kv_positions"] if fidelity else []
    if positions:
        panels = (
            Panel(f"{side}s", "%", tuple(Bar(_range(row), 100 * row[f"{side}_error"]) for row in positions))
            for side in ("key", "value")
        )
        about = "What INT8 does to keys and values of one long conversation, by position."
        yield Bars("kv-positions", "The KV cache at long positions", about, tuple(panels))


def tables(report: Mapping[str, Any]) -> Iterator[str]:
    """All figures of the report in words and numbers."""
    fidelity = report["fidelity"]
    if fidelity:
        columns = ["figure", "value", "95 % interval"]
        yield table("Quantized beside float", columns, _fidelity_rows(fidelity), ["figure"])
    if fidelity and fidelity["sensitivity"]:
        columns = ["part", "same next token", "KL", "exact answers, points"]
        yield table("One part at a time", columns, _sensitivity_rows(fidelity["sensitivity"]), ["part"])
    columns = ["part", "MB before", "MB after", "bits a weight"]
    yield table("Parts", columns, _part_rows([*report["parts"], report["total"]]), ["part"])
    memory = report["memory"]
    if memory:
        rows = [[name, f"{size:.1f}"] for name, size in (*memory["parts"].items(), ("peak", memory["peak_mb"]))]
        title = f"Predicted memory at {memory['context']} positions: {memory['stage']}"
        yield table(title, ["part", "MB"], rows, ["part"])
    columns = ["layer", "weights", "rounded by", "weight error", "output error", "inputs", "INT8 input error"]
    yield table("Layers", columns, _layer_rows(report["layers"]), ["layer", "weights", "rounded by", "inputs"])


def _sensitivity_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for row in rows:
        share, points = _percent(row["top1_agreement"]), f"{100 * row['exact_difference']:+.2f}"
        yield [row["part"], share, f"{row['kl']:.3g}", points]


def _part_rows(parts: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for part in parts:
        sizes = [f"{part[key] / MB:.3f}" for key in ("bytes_before", "bytes_after")]
        yield [part["part"], *sizes, f"{part['bits_per_weight']:.3f}"]


def _layer_rows(layers: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for one in layers:
        errors = [_percent(one[key]) for key in ("weight_error", "output_error")]
        how = [one["scheme"], one["method"] or ""]
        yield [one["name"], *how, *errors, one["activations"], _percent(one["int8_input_error"])]


def _facts(report: Mapping[str, Any]) -> str:
    calibration = report["calibration"]
    return f"Calibrated with {calibration['samples']} prompts, {calibration['tokens']} tokens."


def _fidelity_rows(fidelity: Mapping[str, Any]) -> Iterator[list[str]]:
    for scope, name in (("answers", "the assistant's tokens"), ("text", "all text")):
        found = fidelity[scope]
        if found is None:
            continue
        yield [f"same next token, {name} ({found['tokens']})", _percent(found["top1_agreement"]),
               " – ".join(_percent(bound) for bound in found["top1_interval"])]  # fmt: skip
        yield [f"KL, {name}", f"{found['kl']:.3g}", " – ".join(f"{bound:.3g}" for bound in found["kl_interval"])]
        perplexity = found["perplexity"]
        yield [f"perplexity, {name}", f"{perplexity['float']:.4f} → {perplexity['quantized']:.4f}", ""]
    exact = fidelity["exact_match"]
    low, high = exact["interval"]
    yield [f"exact answers ({exact['questions']})", f"{_percent(exact['float'])} → {_percent(exact['quantized'])}",
           f"{100 * low:+.2f} – {100 * high:+.2f} points"]  # fmt: skip


def _before_after(part: Mapping[str, Any]) -> tuple[Bar, Bar]:
    return Bar("before", part["bytes_before"] / MB, "plain"), Bar("after", part["bytes_after"] / MB)


def _errors(layers: Sequence[Mapping[str, Any]]) -> Iterator[Bar]:
    for layer in layers:
        yield Bar(_short(layer["name"]), 100 * layer["output_error"])


def _sensitivity(rows: Sequence[Mapping[str, Any]]) -> Iterator[Bar]:
    for row in rows:
        low, high = row["kl_interval"]
        yield Bar(_short(row["part"]), row["kl"], low=low, high=high)


def _short(name: str) -> str:
    for long, short in (("language_model.model.layers.", "llm "), ("vision_tower.encoder.layers.", "vit ")):
        name = name.replace(long, short)
    return name


def _range(row: Mapping[str, Any]) -> str:
    return f"{row['first']} – {row['last']}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
