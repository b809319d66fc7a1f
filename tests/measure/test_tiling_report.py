"""The report: whole without anything beside it, its figures drawn from the figures, and nothing foreign overwritten."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.errors import UsageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.sizes import SizeCounter, SizedPicture
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.statistics import Statistics
from stages.device.imaging.sweep import AlphaSweep
from stages.measure.svg import Axis
from stages.measure.tiling_costs import TilingCosts, with_costs
from stages.measure.tiling_drawings import draw_cases
from stages.measure.tiling_figures import alpha_curves, comparison_bars, grid_maps, spelt, token_bars
from stages.measure.tiling_report import check_report_place, render_report, report_file, write_report

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
SPEC = TilingSpec(max_cols=3, max_rows=3)
COSTS = TilingCosts(0.2, 0.001)


def statistics(costs: TilingCosts | None = COSTS, sizes: int = 200) -> dict[str, Any]:
    draw = np.random.default_rng(1)
    counter = SizeCounter()
    for number, size in enumerate(draw.integers(30, 2000, (sizes, 2)).tolist()):
        counter.add(SizedPicture(Size(*size), f"<b>{number}</b>.png", number + 1))
    block = counter.take()
    sums, sweep = Statistics(SPEC), AlphaSweep(SPEC, (0.0, 0.1, 0.2))
    sums.add(block)
    sweep.add(block)
    figures = sums.as_dict()
    if costs:
        with_costs(figures["rules"], costs, [rule for rule, of in figures["rules"].items() if of["cuts_our_tiles"]])
    config = {"tile_size": 384, "tokens_per_tile": 196, "max_cols": 3, "max_rows": 3, "max_tiles": None, "alpha": 0.1}
    return figures | {
        "alpha_sweep": sweep.as_rows(),
        "costs": costs and costs.as_dict(),
        "unread": {"count": 1, "first": ["x.png is empty"]},
        "inputs": ["a & b.csv"],
        "config": config,
    }


def picture(colour: str = "teal") -> Image.Image:
    return Image.new("RGB", (600, 450), colour)


class Tags(HTMLParser):
    """All tags with their attributes, and whether they close as they open."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(page: str) -> Tags:
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    return parser


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter() if node.tag == "text"]


def rectangles(svg: str, css: str) -> list[dict[str, str]]:
    return [node.attrib for node in ET.fromstring(svg).iter("rect") if node.get("class") == css]


def test_a_report_needs_nothing_beside_it(tmp_path: Path) -> None:
    page = render_report(statistics(), [picture()])
    found = tags(page).found
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in found}
    links = [value for _, attributes in found for key, value in attributes.items() if key in ("href", "src")]
    assert links
    assert all(value is not None and value.startswith(("#", "data:image/jpeg;base64,")) for value in links)
    assert "url(" not in page.replace("url(#hatch)", "")
    assert "prefers-color-scheme: dark" in page


def test_figures_come_first_and_are_whole(tmp_path: Path) -> None:
    page = render_report(statistics(), [picture()])
    figures = SVG.findall(page)
    assert len(figures) == 8
    assert page.rindex("</svg>") < page.index("<table>")
    for svg in figures:
        root = ET.fromstring(svg)
        assert root.get("aria-label")
        assert root.get("viewBox")
    without = SVG.findall(render_report(statistics(costs=None) | {"alpha_sweep": None}, []))
    assert len(without) == 6


def test_what_others_wrote_is_text_and_no_markup() -> None:
    page = render_report(statistics(), [])
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "a &amp; b.csv" in page
    assert "x.png is empty" in page


def test_colours_that_figures_use_are_in_the_style() -> None:
    page = render_report(statistics(), [picture()])
    used = {name for _, attributes in tags(page).found for name in (attributes.get("class") or "").split()}
    style = page[page.index("<style>") : page.index("</style>")]
    # "label" is the usual size and colour of text.
    assert {name for name in used if f".{name}" not in style} <= {"label"}
    names = set(re.findall(r"var\((--[a-z-]+)\)", style))
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        assert names <= set(re.findall(r"(--[a-z-]+):", block))


def test_bars_are_as_long_as_the_values_they_show() -> None:
    rules = statistics()["rules"]
    bars = rectangles(token_bars(rules), "accent") + rectangles(token_bars(rules), "plain")
    lengths = sorted(float(bar["width"]) for bar in bars)
    means = sorted(of["mean_tokens"] for of in rules.values())
    np.testing.assert_allclose(np.array(lengths) / lengths[-1], np.array(means) / means[-1], atol=1e-4)
    vs = {"llava-next": {"smaller": 1, "equal": 2, "larger": 1}}
    widths = {css: float(rectangles(comparison_bars(vs), css)[-1]["width"]) for css in ("less", "same", "more")}
    assert widths["same"] == pytest.approx(2 * widths["less"], abs=0.02)
    assert "25.0 / 50.0 / 25.0" in texts(comparison_bars(vs))


def test_the_curve_marks_the_alpha_of_the_report_and_leaves_zero_out() -> None:
    found = statistics()
    root = ET.fromstring(alpha_curves(found["alpha_sweep"], found["rules"], 0.1))
    dots = [node.get("class") for node in root.iter("circle")]
    assert dots == ["chosen", "point"] * 2
    assert "llava-next" in ["".join(node.itertext()) for node in root.iter("text")]


def test_large_grids_are_listed_and_small_ones_mapped() -> None:
    rules = {
        "relaxed": {"cuts_our_tiles": True, "grids": {"1:1": 3, "2:4": 1}},
        "internvl-1.5": {"cuts_our_tiles": True, "grids": {f"{n}:1": n for n in range(1, 13)}},
    }
    shown = texts(grid_maps(rules))
    assert "12:1" in shown
    assert "and 5 other grids" in shown
    assert "75" in shown


def test_the_published_cases_are_drawn_with_their_grids() -> None:
    svg = draw_cases([])
    shown = texts(svg)
    # A row each: relaxed, llava-next, internvl-1.5.
    canvases = [text for text in shown if re.fullmatch(r"\d:\d, \d+×\d+", text)]
    assert canvases == [
        *("1:1, 384×384", "2:2, 768×768", "1:1, 384×384"),
        *("1:1, 384×384", "1:1, 384×384", "5:1, 1920×384"),
        *("1:1, 384×384", "1:2, 384×768", "1:1, 384×384"),
        *("2:1, 768×384", "2:1, 768×384", "5:1, 1920×384"),
    ]
    assert "6 tiles, 1,176 tokens, ×25.5 area" in shown
    assert len(rectangles(svg, "wash")) == 12


def test_real_pictures_take_the_outlines_place() -> None:
    svg = draw_cases([picture("red"), picture("blue")])
    root = ET.fromstring(svg)
    assert [symbol.get("viewBox") for symbol in root.iter("symbol")] == [
        *("0 0 394 390", "0 0 380 76", "0 0 380 393", "0 0 500 102")
    ]
    assert len(list(root.iter("use"))) == 12
    assert not rectangles(svg, "wash")


def test_only_a_report_is_replaced(tmp_path: Path) -> None:
    file = report_file(tmp_path / "deep" / "folder")
    assert file == tmp_path / "deep" / "folder" / "report.html"
    for _ in range(2):
        check_report_place(file, force=False)
        write_report(file, statistics(), [])
    assert sorted(file.parent.iterdir()) == [file]
    other = tmp_path / "mine.html"
    other.write_text("<html>my page</html>")
    with pytest.raises(UsageError, match=r"mine\.html exists and is no report"):
        check_report_place(report_file(other), force=False)
    check_report_place(other, force=True)
    with pytest.raises(UsageError, match=r"mine\.html/report\.html cannot be written"):
        write_report(other / "report.html", statistics(), [])


@pytest.mark.parametrize("values", [(0.99, 1.0), (3.0, 3.0), (0.0, 0.0), (1, 1234), (-5, 5), (1e-9, 2e-9)])
def test_an_axis_holds_its_values_between_round_ticks(values: tuple[float, ...]) -> None:
    for from_zero in (False, True):
        axis = Axis.around(values, 10, 110, from_zero=from_zero)
        assert all(10 - 1e-6 <= axis.at(value) <= 110 + 1e-6 for value in values)
        assert 2 <= len(axis.ticks()) <= 8
        assert axis.at(axis.low) == 10
        assert axis.at(axis.high) == 110


def test_times_are_told_in_the_unit_of_the_longest() -> None:
    assert spelt(90, 90) == "90 s"
    assert spelt(90, 600) == "1.50 min"
    assert spelt(3600, 72000) == "1.00 h"
    assert spelt(86400, 864000) == "1.00 days"
