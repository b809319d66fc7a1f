"""The figures of a tiling report, from the plain data of `bluelm tile --stats --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.measure.svg import (
    Axis,
    dot,
    figure,
    line,
    path_through,
    rectangle,
    text,
    text_width,
)

WIDTH = 860.0
_BAR, _GAP = 20.0, 10.0
# A map of grids has at most so many columns and rows, each cell so wide; shares below are drawn without a number.
_MAP_SIDE, _CELL = 7, 27.0
_SHOWN = 0.005
REFERENCE = "relaxed"

Rules = Mapping[str, Mapping[str, Any]]


def _gutter(names: Sequence[str]) -> float:
    return max(text_width(name) for name in names) + 12


def _colour(rule: str) -> str:
    return "accent" if rule == REFERENCE else "plain"


def token_bars(rules: Rules) -> str:
    """Image tokens of a picture on average and the resolution they keep, a bar for each rule."""
    left, right = _gutter(list(rules)), 250.0
    axis = Axis.around([figures["mean_tokens"] for figures in rules.values()], left, WIDTH - right, from_zero=True)
    ours = rules[REFERENCE]["mean_tokens"]
    shapes = []
    for index, (rule, figures) in enumerate(rules.items()):
        top = index * (_BAR + _GAP)
        mean = figures["mean_tokens"]
        base = top + _BAR - 5
        shapes.append(text(left - 10, base, rule, "label", "end"))
        hint = f"{rule}: {figures['tokens']:,} tokens"
        shapes.append(rectangle(left, top, axis.at(mean) - left, _BAR, _colour(rule), hint))
        label = f"{mean:,.0f}" if rule == REFERENCE else f"{mean:,.0f} ({mean / ours:.2f} × relaxed)"
        kept = figures["mean_kept"]
        label += "" if kept is None else f", {kept:.1%} kept"
        shapes.append(text(axis.at(mean) + 8, base, label, "label"))
    return figure(WIDTH, len(rules) * (_BAR + _GAP), shapes, "Image tokens of a picture on average, by rule")


def comparison_bars(relaxed_vs: Mapping[str, Mapping[str, int]]) -> str:
    """For each other rule the share of pictures that relaxed gives a smaller, an equal, a larger grid."""
    left = _gutter(list(relaxed_vs))
    wide = WIDTH - left - 130
    kinds = (("smaller", "less"), ("equal", "same"), ("larger", "more"))
    shapes = [*_legend(left, kinds), text(WIDTH, 13, "percent", "small faint", "end")]
    for index, (rule, counts) in enumerate(relaxed_vs.items()):
        top = 30 + index * (_BAR + _GAP)
        shapes.append(text(left - 10, top + _BAR - 5, rule, "label", "end"))
        total, x = sum(counts.values()), left
        for name, css in kinds:
            share = counts[name] / total
            shapes.append(rectangle(x, top, share * wide, _BAR, css, f"{name}: {counts[name]:,} of {total:,}"))
            x += share * wide
        shares = " / ".join(f"{100 * counts[name] / total:.1f}" for name, _ in kinds)
        shapes.append(text(WIDTH, top + _BAR - 5, shares, "label", "end"))
    height = 30 + len(relaxed_vs) * (_BAR + _GAP)
    return figure(WIDTH, height, shapes, "How the relaxed rule's grids compare with those of the other rules")


def _legend(left: float, entries: Sequence[tuple[str, str]]) -> list[str]:
    shapes, x = [], left
    for name, css in entries:
        shapes += [rectangle(x, 2, 12, 12, css), text(x + 18, 13, name, "label")]
        x += 18 + text_width(name) + 24
    return shapes


def cost_bars(rules: Rules) -> str:
    """Seconds to encode the tiles and to read the tokens of all pictures, for rules whose tiles have a known cost."""
    known = {rule: figures for rule, figures in rules.items() if _seconds(figures) is not None}
    left, right = _gutter(list(known)), 130.0
    sums = [_seconds(figures) or 0.0 for figures in known.values()]
    axis = Axis.around(sums, left, WIDTH - right, from_zero=True)
    shapes = _legend(left, (("encoding tiles", "accent"), ("reading tokens", "second")))
    for index, (rule, figures) in enumerate(known.items()):
        top = 30 + index * (_BAR + _GAP)
        shapes.append(text(left - 10, top + _BAR - 5, rule, "label", "end"))
        x = left
        for key, css in (("encode_seconds", "accent"), ("prefill_seconds", "second")):
            seconds = figures[key] or 0.0
            end = x + axis.at(seconds) - axis.at(0)
            shapes.append(rectangle(x, top, end - x, _BAR, css, f"{key}: {seconds:,.1f} s"))
            x = end
        shapes.append(text(x + 8, top + _BAR - 5, spelt(_seconds(figures) or 0.0, max(sums)), "label"))
    return figure(WIDTH, 30 + len(known) * (_BAR + _GAP), shapes, "Seconds to encode and to read all pictures, by rule")


def _seconds(figures: Mapping[str, Any]) -> float | None:
    """All seconds of a rule; None where a part that others have is unknown."""
    encode, prefill = figures.get("encode_seconds"), figures.get("prefill_seconds")
    if encode is None and not figures["cuts_our_tiles"]:
        return None
    return None if encode is None and prefill is None else (encode or 0.0) + (prefill or 0.0)


def spelt(seconds: float, longest: float) -> str:
    """A time in the unit that suits the longest one beside it."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if longest >= 2 * size:
            return f"{seconds / size:,.2f} {unit}"
    return f"{seconds:.3g} s"


def enlargement_histograms(rules: Rules) -> str:
    """How much larger than the picture its canvas is: shares of pictures, a panel for each rule."""
    wide, tall, across = 410.0, 128.0, 2
    shapes = []
    highest = max(
        bin["images"] / _images(figures) for figures in rules.values() for bin in figures["enlargement_histogram"]
    )
    for index, (rule, figures) in enumerate(rules.items()):
        left, top = (index % across) * (wide + 40), (index // across) * (tall + 26)
        mean = figures["mean_enlargement"]
        mean = f"mean ×{mean:.2f}" if mean < 100 else f"mean ×{mean:,.0f}"
        shapes.append(text(left, top + 13, rule, "label strong"))
        shapes.append(text(left + wide, top + 13, mean, "small", "end"))
        bins = figures["enlargement_histogram"]
        shapes += _histogram(bins, _images(figures), left, top + 20, wide, tall - 38, highest, _colour(rule), "×")
    rows = -(-len(rules) // across)
    return figure(WIDTH, rows * (tall + 26), shapes, "Canvas area over picture area, by rule")


def size_histograms(longer: Sequence[Mapping[str, Any]], shapes_of: Sequence[Mapping[str, Any]]) -> str:
    """The mix of sizes: longer sides and shapes of all pictures."""
    wide, tall = 410.0, 128.0
    total = sum(bin["images"] for bin in longer)
    shapes = []
    for left, bins, title in ((0.0, longer, "longer side, pixels"), (wide + 40, shapes_of, "longer over shorter side")):
        highest = max(bin["images"] for bin in bins) / total
        shapes.append(text(left, 13, title, "label strong"))
        shapes += _histogram(bins, total, left, 20, wide, tall - 38, highest, "plain", "")
    return figure(WIDTH, tall, shapes, "The mix of sizes")


def _images(figures: Mapping[str, Any]) -> int:
    return sum(bin["images"] for bin in figures["enlargement_histogram"])


def _histogram(
    bins: Sequence[Mapping[str, Any]],
    total: int,
    left: float,
    top: float,
    width: float,
    height: float,
    highest: float,
    css: str,
    unit: str,
) -> list[str]:
    """Bars of equal width, each with its share above and the lower edge of its bin below."""
    step = width / len(bins)
    floor = top + height
    shapes = []
    for index, bin in enumerate(bins):
        share = bin["images"] / total
        tall = share / highest * (height - 14)
        x = left + index * step
        to = "more" if bin["to"] is None else f"{bin['to']:g}"
        hint = f"{unit}{bin['from']:g} to {to}: {bin['images']:,} pictures ({share:.2%})"
        shapes.append(rectangle(x + 1, floor - tall, step - 2, tall, css, hint))
        if share >= _SHOWN:
            shapes.append(text(x + step / 2, floor - tall - 3, f"{100 * share:.0f}%", "tiny", "middle"))
        shapes.append(text(x + 1, floor + 12, f"{unit}{bin['from']:g}", "tiny faint"))
    return [line(left, floor, left + width, floor, "rule"), *shapes]


def alpha_curves(points: Sequence[Mapping[str, float]], rules: Rules, alpha: float) -> str:
    """Tokens and effective resolution of the relaxed rule against α, with LLaVA-NeXT's beside it."""
    tall = 250.0
    shapes = []
    panels = (("mean_tokens", "tokens a picture", 0.0), ("mean_kept", "effective resolution kept", WIDTH / 2 + 10))
    # At α = 0 the rule is another one (see the note): it would hide what happens between the others.
    shown = [point for point in points if point["alpha"] > 0] or points
    for key, title, left in panels:
        start, end = left + 52, left + WIDTH / 2 - 20
        beside = rules.get("llava-next", {}).get(key)
        values = [point[key] for point in shown] + ([beside] if beside is not None else [])
        across = Axis.around([point["alpha"] for point in shown], start, end, from_zero=True)
        upright = Axis.around(values, tall - 40, 34, from_zero=False)
        shapes.append(text(left, 14, title, "label strong"))
        for tick in upright.ticks():
            shapes.append(line(start, upright.at(tick), end, upright.at(tick), "grid"))
            label = f"{tick:.4g}" if key == "mean_kept" else f"{tick:,.5g}"
            shapes.append(text(start - 6, upright.at(tick) + 4, label, "small faint", "end"))
        shapes += [text(across.at(t), tall - 22, f"{t:.3g}", "small faint", "middle") for t in across.ticks()]
        shapes.append(text((start + end) / 2, tall - 4, "α", "label", "middle"))
        if beside is not None:
            shapes.append(line(start, upright.at(beside), end, upright.at(beside), "dashed"))
            shapes.append(text(end, upright.at(beside) - 5, "llava-next", "small faint", "end"))
        curve = [(across.at(point["alpha"]), upright.at(point[key])) for point in shown]
        shapes.append(path_through(curve, "curve"))
        for point, (x, y) in zip(shown, curve, strict=True):
            chosen = abs(point["alpha"] - alpha) < 1e-9
            hint = f"α = {point['alpha']:g}: {point['mean_tokens']:,.1f} tokens, {point['mean_kept']:.2%} kept"
            shapes.append(dot(x, y, "chosen" if chosen else "point", hint))
    return figure(WIDTH, tall, shapes, "Tokens and effective resolution against α")


def grid_maps(rules: Rules) -> str:
    """Which grids each rule chooses: share of pictures, columns across and rows down; of large grids the commonest."""
    shares = {rule: _grids(figures["grids"]) for rule, figures in rules.items() if figures["cuts_our_tiles"]}
    shapes, left, top, tallest = [], 0.0, 0.0, 0.0
    for rule, of_rule in shares.items():
        small = max(max(grid) for grid in of_rule) <= _MAP_SIDE
        drawn, wide, tall = _map(of_rule, left, top) if small else _commonest(of_rule, left, top)
        wide = max(wide, text_width(rule))
        if left and left + wide > WIDTH:
            left, top, tallest = 0.0, top + tallest + 16, 0.0
            drawn, _, tall = _map(of_rule, left, top) if small else _commonest(of_rule, left, top)
        shapes += [text(left, top + 13, rule, "label strong"), *drawn]
        tallest = max(tallest, tall)
        left += wide + 30
    return figure(WIDTH, top + tallest + 4, shapes, "Grids chosen, percent of pictures")


def _map(shares: Mapping[tuple[int, int], float], left: float, top: float) -> tuple[list[str], float, float]:
    """A cell for each grid, with the width and height of all of them."""
    cols, rows = max(col for col, _ in shares), max(row for _, row in shares)
    shapes = [text(left + 18 + (c - 0.5) * _CELL, top + 30, str(c), "tiny faint", "middle") for c in _upto(cols)]
    shapes += [text(left + 8, top + 34 + (r - 0.35) * _CELL, str(r), "tiny faint", "middle") for r in _upto(rows)]
    for (col, row), share in sorted(shares.items()):
        x, y = left + 18 + (col - 1) * _CELL, top + 34 + (row - 1) * _CELL
        shapes.append(
            f'<rect x="{x + 1:g}" y="{y + 1:g}" width="{_CELL - 2:g}" height="{_CELL - 2:g}" class="accent" '
            f'fill-opacity="{0.12 + 0.6 * share:.3f}"><title>{col}:{row} for {share:.2%}</title></rect>'
        )
        if share >= _SHOWN:
            shapes.append(text(x + _CELL / 2, y + _CELL / 2 + 4, f"{100 * share:.0f}", "tiny", "middle"))
    return shapes, 18 + cols * _CELL, 34 + rows * _CELL


def _commonest(shares: Mapping[tuple[int, int], float], left: float, top: float) -> tuple[list[str], float, float]:
    """A bar for each of the commonest grids, with the width and height of all of them."""
    ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    shapes = []
    for index, ((col, row), share) in enumerate(ranked[:_MAP_SIDE]):
        y = top + 26 + index * 20
        shapes.append(text(left + 34, y + 11, f"{col}:{row}", "small", "end"))
        shapes.append(rectangle(left + 40, y, 1 + 60 * share / ranked[0][1], 14, "accent", f"{share:.2%}"))
        shapes.append(text(left + 46 + 60 * share / ranked[0][1], y + 11, f"{100 * share:.0f}", "tiny"))
    more = len(ranked) - _MAP_SIDE
    if more > 0:
        shapes.append(text(left, top + 38 + _MAP_SIDE * 20, f"and {more} other grids", "small faint"))
    return shapes, 125.0, 44 + _MAP_SIDE * 20.0


def _upto(last: int) -> range:
    return range(1, last + 1)


def _grids(counts: Mapping[str, int]) -> dict[tuple[int, int], float]:
    total = sum(counts.values())
    return {(int(c), int(r)): n / total for (c, r), n in ((name.split(":"), n) for name, n in counts.items())}
