"""Counters and histograms in Prometheus' text format (version 0.0.4), safe to write from any thread."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Literal


class Counter:
    """Values that only grow, by the value of one label, or one without.

    Args:
        name: of the metric.
        text: what it counts.
        label: name of the label; empty for none.
        labels: its values that are there from the start, at 0.
    """

    def __init__(self, name: str, text: str, label: str = "", labels: Sequence[str] = ()) -> None:
        self.name, self.text, self._label = name, text, label
        self._values: dict[str, float] = dict.fromkeys(labels if label else [""], 0)
        self._lock = threading.Lock()

    def add(self, value: float = 1, label: str = "") -> None:
        """Adds to one value."""
        with self._lock:
            self._values[label] = self._values.get(label, 0) + value

    def value(self, label: str = "") -> float:
        """One value."""
        with self._lock:
            return self._values.get(label, 0)

    def lines(self) -> Iterator[str]:
        """The metric as text."""
        yield from _head(self.name, self.text, "counter")
        with self._lock:
            values = sorted(self._values.items())
        for label, value in values:
            yield f"{self.name}{_labels(self._label, label)} {_number(value)}"


class Histogram:
    """How often values were at most so large.

    Args:
        name: of the metric.
        text: what is measured.
        bounds: rising.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text, self._bounds = name, text, tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Adds a value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def lines(self) -> Iterator[str]:
        """The metric as text."""
        yield from _head(self.name, self.text, "histogram")
        with self._lock:
            counts, total = list(self._counts), self._sum
        seen = 0
        for bound, count in zip((*self._bounds, None), counts, strict=True):
            seen += count
            name = "+Inf" if bound is None else _number(bound)
            yield f"{self.name}_bucket{_labels('le', name)} {seen}"
        yield f"{self.name}_sum {_number(total)}"
        yield f"{self.name}_count {seen}"


def gauge(name: str, text: str, value: float) -> Iterator[str]:
    """A value that may fall, as text."""
    yield from _head(name, text, "gauge")
    yield f"{name} {_number(value)}"


def _head(name: str, text: str, kind: Literal["counter", "gauge", "histogram"]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _labels(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{{name}="{escaped}"}}' if name else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
