"""The report of `bluelm tile --stats --report`: one HTML file with its figures inside, figures first, tables behind.

It needs nothing beside it, runs no script, and follows the reader's light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from stages.artifacts.errors import UsageError
from stages.measure.report_page import REPORT_FILE, render_page, section, write_page
from stages.measure.tiling_drawings import draw_cases
from stages.measure.tiling_figures import (
    alpha_curves,
    comparison_bars,
    cost_bars,
    enlargement_histograms,
    grid_maps,
    size_histograms,
    token_bars,
)
from stages.measure.tiling_report_tables import report_tables

_GENERATOR = "bluelm tile --report"
_MARK = f'content="{_GENERATOR}"'.encode()
_BEGINNING = 1024


def report_file(path: Path) -> Path:
    """Where a report goes: the file itself, or `report.html` in a folder."""
    return path if path.suffix.lower() in (".html", ".htm") else path / REPORT_FILE


def check_report_place(file: Path, force: bool) -> None:
    """Only a report is ever replaced without being asked.

    Raises:
        UsageError: something else is there.
    """
    try:
        with file.open("rb") as stream:
            ours = _MARK in stream.read(_BEGINNING)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(file, error) from error
    if not ours and not force:
        raise UsageError(
            f"{file} exists and is no report of bluelm.",
            "It would be overwritten.",
            "Name another file or folder with --report, or replace it with --force.",
        )


def write_report(file: Path, statistics: Mapping[str, Any], pictures: Sequence[Image.Image]) -> None:
    """Writes the report in one step: whoever looks sees the old one or the new one.

    Args:
        file: see `report_file`.
        statistics: what `bluelm tile --stats --json` prints.
        pictures: upright RGB, for the published cases; outlines are drawn without any.

    Raises:
        UsageError: it cannot be written.
    """
    content = render_report(statistics, pictures)
    try:
        write_page(file, content)
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> UsageError:
    return UsageError(f"{file} cannot be written: {error.strerror}.", "The report goes there.", "Choose another place.")


def render_report(statistics: Mapping[str, Any], pictures: Sequence[Image.Image]) -> str:
    """The report as HTML."""
    count, inputs = statistics["images"], ", ".join(statistics["inputs"])
    return render_page(
        _GENERATOR,
        f"How {count:,} pictures are tiled",
        f"{inputs}. {_settings(statistics)}",
        _figures(statistics, pictures),
        report_tables(statistics),
    )


def _settings(statistics: Mapping[str, Any]) -> str:
    config, costs = statistics["config"], statistics["costs"]
    grids = (
        f"grids of at most {config['max_tiles']} tiles"
        if config["max_tiles"]
        else f"grids up to {config['max_cols']}×{config['max_rows']}"
    )
    tile = f"{config['tile_size']} pixels and {config['tokens_per_tile']} tokens"
    told = f"Tiles of {tile}, {grids}, α\u00a0=\u00a0{config['alpha']:g}."
    if costs:
        parts = (("a tile", costs["seconds_per_tile"]), ("a token", costs["seconds_per_token"]))
        told += " " + ", ".join(f"{1000 * s:.4g} ms {name}" for name, s in parts if s) + f" ({costs['source']})."
    unread = statistics["unread"]["count"]
    return told + (f" {unread:,} pictures or rows could not be read and are left out." if unread else "")


def _figures(statistics: Mapping[str, Any], pictures: Sequence[Image.Image]) -> Iterator[str]:
    rules = statistics["rules"]
    counted = [rule for rule, figures in rules.items() if not figures["cuts_our_tiles"]]
    aside = (
        f" {', '.join(counted)}: counted as these models do it, with tiles and tokens of their own." if counted else ""
    )
    yield section(
        "Tokens",
        f"Image tokens of a picture on average, thumbnail included, and how much of its resolution they keep.{aside}",
        token_bars(rules),
    )
    if statistics["relaxed_vs"]:
        about = (
            "Pictures that the relaxed rule gives fewer, as many or more tokens than another: with tiles of one size, "
        )
        about += "a smaller, an equal or a larger grid."
        yield section("Relaxed against the others", about, comparison_bars(statistics["relaxed_vs"]))
    if statistics["costs"]:
        about = "All pictures once: encoding their tiles and reading their tokens before the first answer."
        yield section("What it costs", about, cost_bars(rules))
    about = (
        "Area of the canvas over that of the picture: above 1 it is enlarged, below 1 it loses detail. Edges of bins "
    )
    about += "below the bars, percent of pictures above."
    yield section("Enlargement", about, enlargement_histograms(rules))
    yield section(
        "Grids",
        "Percent of pictures: columns to the right, rows downwards; of large grids the commonest.",
        grid_maps(rules),
    )
    sweep, alpha = statistics["alpha_sweep"], statistics["config"]["alpha"]
    if sweep:
        about = (
            "The relaxed rule gives up a share α of the effective resolution for a leaner canvas; the larger dot is "
        )
        about += "the α of this report. α = 0 is left out here: it is another rule, which keeps the first large canvas."
        yield section("The threshold α", about, alpha_curves(sweep, rules, alpha))
    about = "What the shares above depend on most."
    yield section("The mix of sizes", about, size_histograms(statistics["longer_sides"], statistics["shapes"]))
    about = (
        "The paper's Figs. 3 and 9, to one scale, with candidates 1:1…3:3 and α = 0.1: tiles outlined, padding hatched."
    )
    yield section("The published cases", about, draw_cases(pictures))
