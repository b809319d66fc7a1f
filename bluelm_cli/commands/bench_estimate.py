"""`bluelm bench estimate`: flags -> stages.bench_estimate -> memory over time and seconds, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.options import Json, Recipe, Set


def estimate(
    model: Annotated[
        Path | None, typer.Argument(help="An exported model or a checkpoint, instead of --preset.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A shape: bluelm-v-3b (default) or tiny.")] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="With --preset: so many layers.")] = None,
    vision_layers: Annotated[int | None, typer.Option("--vision-layers", help="With --preset: of the tower.")] = None,
    picture: Annotated[
        list[str] | None, typer.Option("--picture", help="A picture's size, such as 768x1536 (repeatable).")
    ] = None,
    rule: Annotated[
        str | None, typer.Option("--rule", help="How pictures are cut; the model's own by default.")
    ] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="Threshold of the relaxed rule.")] = None,
    tiles: Annotated[int | None, typer.Option("--tiles", help="Tiles instead of pictures, 9 by default.")] = None,
    batch: Annotated[
        int | None, typer.Option("--tiles-per-batch", "--batch", help="Tiles a call of the tower, 1 by default.")
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option("--prompt-tokens", help="Tokens to read, pictures included, 2048 by default.")
    ] = None,
    chunk: Annotated[int | None, typer.Option("--chunk", help="Tokens per prefill call, 256 by default.")] = None,
    generate: Annotated[int | None, typer.Option("--generate", help="Tokens to write, 64 by default.")] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Inputs of quantized products: paper, mix (default), int8, float.")
    ] = None,
    weights: Annotated[
        int | None, typer.Option("--weight-bits", help="Of the language model's weights: 4 (default), 8, 16, 32.")
    ] = None,
    block: Annotated[int | None, typer.Option("--block", help="Weights that share a scale, 128 by default.")] = None,
    kv: Annotated[str | None, typer.Option("--kv", help="KV cache: int8 (default), float16, float32.")] = None,
    free_vision: Annotated[
        bool | None, typer.Option("--free-vision/--keep-vision", help="Free the tower after encoding (the default).")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="A described device, or a YAML file (repeatable); all that come with bluelm."),
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="Measured configurations to set beside the predictions.")
    ] = None,
    fit: Annotated[
        Path | None, typer.Option("--fit", help="Fit a device's constants on measured configurations.")
    ] = None,
    fit_on: Annotated[int | None, typer.Option("--fit-on", min=1, help="With --fit: only the first so many.")] = None,
    name: Annotated[str, typer.Option("--name", help="With --fit: what the device is called.")] = "this machine",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="With --fit: the YAML file to write.")] = None,
    recipe: Recipe = None,
    sets: Set = None,
    as_json: Json = False,
) -> None:
    """Say what memory, tokens and time a configuration will take, before anything runs.

    Memory is told stage by stage, with the tower freed or kept. Times are a roofline; where a device's speed is not
    known they are bounds, and what is unknown is listed. Nothing is loaded.

    Example: bluelm bench estimate --preset bluelm-v-3b --picture 768x1536 --chunk 128 --policy paper

    Example: bluelm bench estimate --fit records.jsonl --fit-on 4 --out here.yaml

    Example: bluelm bench estimate --records records.jsonl --device here.yaml
    """
    from stages import bench_estimate as verb
    from stages.artifacts.recipes import load_config

    if fit is not None:
        fitted = verb.fit(fit, name, fit_on=fit_on, out=out).as_dict()
        console.emit_json(fitted) if as_json else _show_fit(fitted)
        return
    flags = {
        "preset": preset,
        "layers": layers,
        "vision_layers": vision_layers,
        "picture": picture or None,
        "rule": rule,
        "alpha": alpha,
        "tiles": tiles,
        "tiles_per_batch": batch,
        "prompt_tokens": prompt_tokens,
        "chunk": chunk,
        "generate": generate,
        "policy": policy,
        "weight_bits": weights,
        "block": block,
        "kv": kv,
        "free_vision": free_vision,
        "device": device or None,
    }
    config = load_config(verb.EstimateConfig, recipe, sets or (), flags)
    made = verb.run(config, model).as_dict()
    rows = [] if records is None else [vars(row) for row in verb.predictions(records, config.device)]
    if as_json:
        console.emit_json(
            {**made, "records": [{**row, "error": row["predicted"] / row["measured"] - 1} for row in rows]}
        )
        return
    _show(made)
    if rows:
        _show_rows("predicted beside measured", rows)


def _show(made: Mapping[str, Any]) -> None:
    case, tokens = made["case"], made["tokens"]
    for one in made["pictures"]:
        grid = ":".join(map(str, one["grid"]))
        console.note(f"{one['width']}×{one['height']}: grid {grid}, {one['tiles']} tiles, {one['tokens']} tokens")
    title = (
        f"{made['model']}: {case['tiles']} tiles, {tokens['image']} image tokens of {tokens['prompt']}, "
        f"policy {case['policy']}, {case['kv']} KV"
    )
    columns = ["MB (10^6) at the peak of", *[one["device"] for one in made["devices"]]]
    stages = [one["stage"] for one in made["devices"][0]["memory"]]
    rows: list[list[Any]] = [
        [stage, *[round(one["memory"][index]["mb"]) for one in made["devices"]]] for index, stage in enumerate(stages)
    ]
    rows.append(["all of it", *[_peak(one) for one in made["devices"]]])
    rows += [[f"{stage}, s", *[_seconds(one, stage) for one in made["devices"]]] for stage in ("encode", "prefill")]
    rows.append(["decode, token/s", *[_rate(one) for one in made["devices"]]])
    if made["paper"] is not None:
        columns.append("the paper's phone, measured")
        paper = made["paper"]
        last = [round(paper["peak_mb"]), paper["encode"], paper["prefill"], paper["decode_tok_s"]]
        rows = [[*row, value] for row, value in zip(rows, [None] * len(stages) + last, strict=True)]
    console.emit_table(title, columns, rows)
    for one in made["devices"]:
        for unknown in one["unknown"]:
            console.note(f"{one['device']}: not known: {unknown}")


def _peak(one: Mapping[str, Any]) -> str:
    known = "" if one["runtime_memory_known"] else "≥ "
    fits = {None: "", True: "", False: ", does not fit"}[one["fits"]]
    return f"{known}{one['peak_mb']:.0f} ({one['peak_stage']}{fits})"


def _seconds(one: Mapping[str, Any], stage: str) -> str:
    found = next(part for part in one["seconds"] if part["stage"] == stage)
    if found["seconds"] is None:
        return "unknown"
    fitted = " (fitted on it)" if stage in one["fitted"] and "memory" not in one["fitted"] else ""
    return f"{'≥ ' if found['missing'] else ''}{found['seconds']:.3g}{fitted}"


def _rate(one: Mapping[str, Any]) -> str:
    if one["decode_tok_s"] is None:
        return "unknown"
    missing = next(part for part in one["seconds"] if part["stage"] == "decode")["missing"]
    return f"{'≤ ' if missing else ''}{one['decode_tok_s']:.3g}"


def _show_fit(fitted: Mapping[str, Any]) -> None:
    device = fitted["device"]
    values = {**{f"memory.{key}": value for key, value in (device["memory"] or {}).items()}, **device["speeds"]}
    rows = [[key, "not told apart" if value is None else f"{value:.4g}"] for key, value in values.items()]
    console.emit_table(f"{device['name']}, fitted on {fitted['fitted_on']} configurations", ["constant", "value"], rows)
    _show_rows("the others, predicted beside measured", [{**row, "label": row["case"]} for row in fitted["rows"]])


def _show_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    cells = [
        [row["label"], row["quantity"], f"{row['predicted']:.4g}", f"{row['measured']:.4g}", _error(row)]
        for row in rows
    ]
    console.emit_table(title, ["configuration", "quantity", "predicted", "measured", "error"], cells)


def _error(row: Mapping[str, Any]) -> str:
    return f"{100 * (row['predicted'] / row['measured'] - 1):+.1f} %"
