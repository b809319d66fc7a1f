"""How phone screens are drawn: colours, bars, rows, switches, buttons, bubbles and icons as typst code, in `em`."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.workshop.corpus.rendering.typeset import TOO_WIDE, quoted

# Shows a screen, unless its parts are higher than it: typst would draw them over one another.
_FITTED = (
    "#let fitted(parts, shown) = layout(room => { let found = measure(width: room.width, parts); "
    f"if found.height > room.height + 0.01pt {{ panic({quoted(TOO_WIDE)}) }}; shown }})\n"
)


@dataclass(frozen=True)
class Theme:
    """Colours "#rrggbb": behind everything, of raised parts, of text, of lesser text and lines, of what stands out."""

    background: str
    surface: str
    ink: str
    faint: str
    accent: str
    on_accent: str
    rounded: float


def draw_theme(rng: np.random.Generator) -> Theme:
    """A light or a dark theme with an accent of any hue."""
    hue, rounded = rng.random(), float(rng.choice([0.15, 0.5, 0.9]))
    if rng.random() < 0.3:
        accent = _hex(hue, rng.uniform(0.3, 0.6), rng.uniform(0.75, 0.95))
        return Theme(_hex(hue, 0.15, 0.08), _hex(hue, 0.15, 0.2), "#f0f0f0", "#a0a0a0", accent, "#101010", rounded)
    accent = _hex(hue, rng.uniform(0.6, 0.95), rng.uniform(0.35, 0.6))
    background = _hex(hue, rng.uniform(0, 0.06), rng.uniform(0.93, 1.0))
    return Theme(background, _hex(hue, 0.08, 0.9), "#181818", "#6a6a6a", accent, "#ffffff", rounded)


def _hex(hue: float, saturation: float, value: float) -> str:
    return "#" + "".join(f"{round(255 * level):02x}" for level in colorsys.hsv_to_rgb(hue, saturation, value))


def screen(theme: Theme, clock: str, parts: Sequence[str], foot: str = "") -> str:
    """A whole screen: the status bar, parts from top to bottom, and one that stands at the bottom."""
    upper = f"grid(columns: 1fr, {', '.join([_status(theme, clock), *parts])})"
    if not foot:
        return f"{_FITTED}#fitted({upper}, {upper})"
    shown = f"grid(columns: 1fr, rows: (1fr, auto), {upper}, {foot})"
    return f"{_FITTED}#fitted(grid(columns: 1fr, {upper}, {foot}), {shown})"


def _status(theme: Theme, clock: str) -> str:
    faint = f"rgb({quoted(theme.faint)})"
    bars = "; ".join(
        f"box(width: 0.16em, height: {0.25 + 0.18 * step:.2f}em, fill: {faint}); h(0.08em)" for step in range(4)
    )
    battery = f"box(width: 1.3em, height: 0.7em, radius: 0.15em, stroke: 0.06em + {faint}, inset: 0.1em, "
    battery += f"box(width: 70%, height: 100%, fill: {faint}))"
    return (
        f"block(width: 100%, inset: (x: 0.6em, y: 0.25em), grid(columns: (1fr, auto), align: horizon, "
        f"{_text(clock)}, {{ {bars}; h(0.4em); {battery} }}))"
    )


def title_bar(theme: Theme, title: str, style: str) -> str:
    """The bar with a screen's title: "filled", "plain" or "large"."""
    fill = f"rgb({quoted(theme.accent)})" if style == "filled" else "none"
    ink = theme.on_accent if style == "filled" else theme.ink
    size = "1.3em" if style == "large" else "1.1em"
    heading = f'text(fill: rgb({quoted(ink)}), size: {size}, weight: "bold", {quoted(title)})'
    arrow = (
        f"box(width: 0.55em, height: 0.8em, {{ let pen = 0.12em + rgb({quoted(ink)}); "
        "place(line(start: (100%, 0%), end: (0%, 50%), stroke: pen)); "
        "place(line(start: (0%, 50%), end: (100%, 100%), stroke: pen)) })"
    )
    inside = heading if style == "large" else f"{{ {arrow}; h(0.7em); {heading} }}"
    return f"block(width: 100%, fill: {fill}, inset: (x: 0.6em, y: 0.45em), {inside})"


def list_row(theme: Theme, name: str, detail: str, style: str, fill: str) -> str:
    """An item with a detail: "beside", "below" or "pictured" (below, with a round initial)."""
    faint = f"text(fill: rgb({quoted(theme.faint)}), {quoted(detail)})"
    if style == "beside":
        inside = f"grid(columns: (1fr, auto), column-gutter: 0.6em, align: (left, right), {_text(name)}, {faint})"
    else:
        inside = f"stack(spacing: 0.2em, {_text(name)}, {faint})"
    if style == "pictured":
        initial = f"text(fill: white, {quoted(name[0])})"
        disc = f"circle(radius: 1em, stroke: none, fill: rgb({quoted(fill)}), align(center + horizon, {initial}))"
        inside = f"grid(columns: (auto, 1fr), column-gutter: 0.6em, align: horizon, {disc}, {inside})"
    return _row(theme, inside)


def switch_row(theme: Theme, name: str, on: bool, style: str) -> str:
    """A setting with a "switch", a "box" or the words "on" and "off" ("words")."""
    state = {"switch": _switch, "box": _check, "words": _on_off}[style](theme, on)
    inside = "grid(columns: (1fr, auto), column-gutter: 0.6em, align: (left + horizon, right + horizon), "
    return _row(theme, f"{inside}{_text(name)}, {state})")


def _row(theme: Theme, inside: str) -> str:
    line = f"(bottom: 0.04em + rgb({quoted(theme.faint)}).transparentize(60%))"
    return f"block(width: 100%, inset: (x: 0.6em, y: 0.35em), stroke: {line}, {inside})"


def _switch(theme: Theme, on: bool) -> str:
    fill = theme.accent if on else theme.faint
    place = "right" if on else "left"
    knob = "circle(radius: 0.42em, stroke: none, fill: white)"
    return (
        f"box(width: 2em, height: 1.1em, radius: 0.55em, inset: 0.13em, fill: rgb({quoted(fill)}), "
        f"align({place} + horizon, {knob}))"
    )


def _check(theme: Theme, on: bool) -> str:
    accent, faint = (f"rgb({quoted(colour)})" for colour in (theme.accent, theme.faint))
    if not on:
        return f"box(width: 1em, height: 1em, radius: 0.15em, stroke: 0.08em + {faint})"
    pen = f"0.13em + rgb({quoted(theme.on_accent)})"
    return (
        f"box(width: 1em, height: 1em, radius: 0.15em, fill: {accent}, {{ "
        f"place(line(start: (20%, 50%), end: (42%, 78%), stroke: {pen})); "
        f"place(line(start: (42%, 78%), end: (82%, 22%), stroke: {pen})) }})"
    )


def _on_off(theme: Theme, on: bool) -> str:
    ink = theme.accent if on else theme.faint
    return f"text(fill: rgb({quoted(ink)}), {quoted('On' if on else 'Off')})"


def button(theme: Theme, label: str, filled: bool, wide: bool) -> str:
    """A button that stands out, or one that does not."""
    fill, ink = (f"rgb({quoted(theme.accent)})", theme.on_accent) if filled else ("none", theme.ink)
    width = "width: 100%, " if wide else ""
    return (
        f"box({width}inset: (x: 0.7em, y: 0.4em), radius: {theme.rounded}em, fill: {fill}, "
        f"stroke: 0.06em + rgb({quoted(theme.accent)}), align(center, text(fill: rgb({quoted(ink)}), {quoted(label)})))"
    )


def dialog(theme: Theme, heading: str, text: str, buttons: Sequence[str], stacked: bool) -> str:
    """A card in the middle of what it covers."""
    strong = f'text(weight: "bold", size: 1.1em, {quoted(heading)})'
    columns = "1fr" if stacked else f"({', '.join(['1fr'] * len(buttons))},)"
    row = f"grid(columns: {columns}, column-gutter: 0.5em, row-gutter: 0.4em, {', '.join(buttons)})"
    return (
        f"block(width: 100%, inset: 0.7em, block(width: 100%, fill: rgb({quoted(theme.surface)}), inset: 0.8em, "
        f"radius: {theme.rounded}em, stack(spacing: 0.6em, {strong}, {_text(text)}, {row})))"
    )


def bubble(theme: Theme, text: str, clock: str, mine: bool) -> str:
    """A message with its time, on the right where it is the phone's owner's."""
    fill, ink = (theme.accent, theme.on_accent) if mine else (theme.surface, theme.ink)
    side = "right" if mine else "left"
    inside = f"stack(spacing: 0.15em, text({quoted(text)}), align(right, text(size: 0.9em, {quoted(clock)})))"
    return (
        f"block(width: 100%, inset: (x: 0.5em, y: 0.2em), align({side}, box(inset: (x: 0.5em, y: 0.3em), "
        f"radius: {theme.rounded}em, fill: rgb({quoted(fill)}), {{ set text(fill: rgb({quoted(ink)})); {inside} }})))"
    )


def icons(theme: Theme, names: Sequence[str], across: int, fills: Sequence[str], round_ones: bool) -> str:
    """Apps in rows, each a coloured tile with its initial above its name."""
    radius = "1.1em" if round_ones else f"{min(theme.rounded, 0.6)}em"
    cells = []
    for name, fill in zip(names, fills, strict=True):
        initial = f"align(center + horizon, text(fill: white, size: 1.2em, {quoted(name[0])}))"
        tile = f"box(width: 2.2em, height: 2.2em, radius: {radius}, fill: rgb({quoted(fill)}), {initial})"
        cells.append(f"align(center, stack(spacing: 0.3em, {tile}, {_text(name)}))")
    columns = f"({', '.join(['1fr'] * across)},)"
    return f"block(width: 100%, inset: 0.4em, grid(columns: {columns}, row-gutter: 0.8em, {', '.join(cells)}))"


def entry_bar(theme: Theme, label: str) -> str:
    """The bar at the bottom: a field to write in, and a button."""
    field = f"box(width: 100%, height: 1.7em, radius: {theme.rounded}em, fill: rgb({quoted(theme.surface)}))"
    return (
        f"block(width: 100%, inset: 0.4em, grid(columns: (1fr, auto), column-gutter: 0.4em, align: horizon, "
        f"{field}, {button(theme, label, True, False)}))"
    )


def gap(height: float) -> str:
    """Room above what follows, in em."""
    return f"v({height:.2f}em)"


def draw_fills(rng: np.random.Generator, count: int) -> list[str]:
    """Colours for icons on which white letters can be read."""
    return [_hex(rng.random(), rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.65)) for _ in range(count)]


def _text(text: str) -> str:
    return f"text({quoted(text)})"
