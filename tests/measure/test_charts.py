"""Charts and the report: drawn to scale, whole without anything beside it, nothing foreign in it, PNG beside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from stages.device.runtime.timeline import Span as Ran
from stages.measure.bench_charts import fig5_chart, fig7_chart, fig8_chart, label_of, speed_charts, table5_chart
from stages.measure.bench_report import record_table, render_bench, write_bench_report
from stages.measure.chart_png import write_png
from stages.measure.charts import Bar, Bars, Chart, Panel, chart_table, draw, number
from stages.measure.findings import gain_finding
from stages.measure.records import Record, record_of
from stages.measure.report_page import standalone
from stages.measure.summary import Bench, summarise

SPANS = (Ran("patch", 0, 4, 0.0, 0.1), Ran("blocks", 0, 4, 0.1, 0.9), Ran("patch", 1, 4, 0.1, 0.2))
RECORDS = (
    record_of("encode", "<m>", [1.0, 1.2, 0.9], tokens=81, tiles=9, tiles_per_batch=1, n_prompt=81),
    record_of("encode", "<m>", [2.0, 2.2, 1.9], tokens=81, tiles=9, tiles_per_batch=4, n_prompt=81),
    record_of("prefill", "<m>", [4.0, 4.4, 3.6], tokens=2048, chunk=128, n_prompt=2048, kv="int8"),
    record_of("decode", "<m>", [0.5, 0.6, 0.4], tokens=8, n_gen=8, chunk=128, n_prompt=2048, kv="int8"),
)
CHARTS: tuple[Chart, ...] = (
    fig5_chart(SPANS, SPANS, 0.5, 0.25, 8),
    fig7_chart(RECORDS, 4),
    fig8_chart(RECORDS, 128),
    table5_chart([("Loading", "s", [Bar("ours", 1.0), Bar("the paper's phone", 0.47, "paper")]), ("None", "s", [])]),
    *speed_charts(RECORDS),
)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_a_chart_is_well_formed_and_stays_inside_its_box(chart: Chart) -> None:
    root = parsed(draw(chart))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    boxes = [element for element in root.iter() if element.tag == "rect"]
    assert boxes
    for box in boxes:
        x, y, w, h = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    assert root.attrib["aria-label"] == chart.title


def test_bars_are_as_long_as_their_values() -> None:
    chart = Bars(
        "x", "X", "", (Panel("p", "s", (Bar("a", 1.0), Bar("b", 2.5, low=2.0, high=3.0, samples=(2.0, 3.0)))),)
    )
    root = parsed(draw(chart))
    first, second = (float(box.attrib["width"]) for box in root.iter("rect"))
    assert second / first == pytest.approx(2.5, rel=1e-3)
    left = float(next(root.iter("rect")).attrib["x"])
    dots = [(float(dot.attrib["cx"]) - left) / first for dot in root.iter("circle")]
    assert dots == pytest.approx([2.0, 3.0], rel=1e-3)


def test_lanes_show_when_everything_ran() -> None:
    root = parsed(draw(CHARTS[0]))
    boxes = [(float(box.attrib["x"]), float(box.attrib["width"])) for box in root.iter("rect")]
    # Patch 0, patch 1, blocks, prefill, decode; then the same vision spans again.
    assert len(boxes) == 8
    left, scale = boxes[0][0], (boxes[1][0] - boxes[0][0]) / 0.1
    assert [(x - left) / scale for x, _ in boxes[:5]] == pytest.approx([0.0, 0.1, 0.1, 0.9, 1.4], abs=0.01)


def test_the_claimed_setting_stands_out() -> None:
    classes = [box.attrib["class"] for box in parsed(draw(CHARTS[1])).iter("rect")]
    assert classes == ["accent", "second"]


def test_what_a_chart_shows_stands_in_its_table() -> None:
    columns, rows = chart_table(CHARTS[2])
    assert columns[2] == "value" and [row[1] for row in rows] == ["t128", "t128/t1"]
    assert rows[0][2] == "4" and rows[1][2] == "16" and rows[0][4] == "3.6 – 4.4"
    assert len(chart_table(CHARTS[0])[1]) == 8


def test_panels_without_values_are_left_out() -> None:
    assert isinstance(CHARTS[3], Bars) and [panel.title for panel in CHARTS[3].panels] == ["Loading"]
    assert speed_charts(()) == ()


def test_numbers_are_read_without_exponents() -> None:
    assert [number(value) for value in (0.0341, 2.06, 365.2, 22799.0)] == ["0.0341", "2.06", "365", "22,799"]


@pytest.fixture
def bench() -> Bench:
    finding = gain_finding("a claim", "5.3", [1.0] * 7, [2.0] * 7, ("this", "that"))
    summary = summarise("<m>", RECORDS, {"runs": 3, "chunk": None}, figure="fig8", findings=[finding])
    return Bench(RECORDS, summary, CHARTS[:3])


def test_the_report_stands_alone(bench: Bench) -> None:
    page = render_bench(bench)
    assert "<script" not in page and "<m>" not in page and "&lt;m&gt;" in page
    assert not re.search(r"(?:src|href)=|url\(|@import|https?://", page)
    assert page.index("<svg") < page.index("<h2>Tables</h2>") and page.count("<svg") == 3
    assert "prefers-color-scheme: dark" in page and "The paper&#x27;s finding holds here" in page
    for name in re.findall(r"var\((--[a-z-]+)\)", page):
        assert page.count(f"{name}: ") == 2, f"{name} lacks a light or a dark value"
    shown = set(re.findall(r'class="([a-z -]+)"', "".join(draw(chart) for chart in bench.charts)))
    for css in {word for classes in shown for word in classes.split()} - {"label", "rule"}:
        assert f"svg .{css} " in page or f".{css}," in page, f"{css} has no colour"


def test_every_record_stands_in_the_report(bench: Bench) -> None:
    columns, rows = record_table(bench.summary.rows)
    assert len(rows) == len(RECORDS) and "pipeline" not in columns and "KV" in columns
    assert rows[2][columns.index("tok/s")] == "512"


def test_a_report_is_written_with_its_figures(bench: Bench, tmp_path: Path) -> None:
    write_bench_report(tmp_path, bench)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"report.html", *(f"{name}.{kind}" for name in ("fig5", "fig7", "fig8") for kind in ("svg", "png"))}
    root = parsed((tmp_path / "fig7.svg").read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    with Image.open(tmp_path / "fig7.png") as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24) or ()) > 10
    again = tmp_path / "again.png"
    write_png(again, CHARTS[1])
    assert again.read_bytes() == (tmp_path / "fig7.png").read_bytes()


def test_a_figure_alone_brings_its_style() -> None:
    svg = standalone(draw(CHARTS[1]))
    assert parsed(svg) is not None and "prefers-color-scheme: dark" in svg


def test_labels_tell_records_apart() -> None:
    peer = record_of("decode", "m", [1.0], tokens=1, engine="llama.cpp", n_prompt=2048, chunk=512, threads=2)
    assert label_of(peer) == "llama.cpp, 2,048 tokens, t512, 2 threads"
    flat = record_of("encode", "m", [1.0], tokens=1, tiles=9, tiles_per_batch=4, pipeline=False, policy="mix")
    assert label_of(flat) == "mix, 9 tiles, 4 a batch, not overlapped"
    assert isinstance(flat, Record)
