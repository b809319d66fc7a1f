"""Decisions a second on one core, over distinct random sizes and with no cache of them. See decision_speed.sh.

Each rule over all sizes at once (`decide_many`), the same rule one size after the other, and transformers' own
functions for the two rules it has, in turns. What is slow is timed on a part of the sizes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from transformers.image_processing_utils import select_best_resolution
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from stages.device.imaging.geometry import Size
from stages.device.imaging.many import decide_many
from stages.device.imaging.rules import COUNTED, RULES
from stages.device.imaging.spec import TilingSpec

BOXES = ((3, 3), (4, 4))
LONGEST, SEED = 5000, 7


def distinct_sizes(count: int) -> np.ndarray:
    """Widths and heights [2, count], uniform to 5000 pixels, no two alike, in random order."""
    source = np.random.default_rng(SEED)
    packed = np.unique(source.integers(0, LONGEST**2, 2 * count))
    packed = source.permutation(packed)[:count]
    assert len(packed) == count
    return np.stack([packed // LONGEST + 1, packed % LONGEST + 1])


def contenders(sizes: np.ndarray, few: np.ndarray, spec: TilingSpec) -> dict[str, tuple[int, Callable[[], object]]]:
    """What is timed, by name: how many sizes it decides about, and the call."""
    tile, pairs = spec.tile_size, [Size(*pair) for pair in few.T.tolist()]
    canvases = [
        (rows * tile, cols * tile) for cols in range(1, spec.max_cols + 1) for rows in range(1, spec.max_rows + 1)
    ]
    found: dict[str, tuple[int, Callable[[], object]]] = {}
    for rule in RULES:
        found[f"{rule}, many at once"] = sizes.shape[1], lambda rule=rule: decide_many(rule, *sizes, spec)
    for rule, each in RULES.items():
        found[f"{rule}, one by one"] = len(pairs), lambda each=each: [each.choose(pair, spec) for pair in pairs]
    for scheme in COUNTED:
        found[f"{scheme}, counted"] = few.shape[1], lambda scheme=scheme: decide_many(scheme, *few, spec)
    found["transformers select_best_resolution"] = (
        len(pairs),
        lambda: [select_best_resolution((pair.height, pair.width), canvases) for pair in pairs],
    )
    found["transformers get_optimal_tiled_canvas"] = (
        len(pairs),
        lambda: [get_optimal_tiled_canvas(pair[::-1], (tile, tile), 1, spec.tile_budget) for pair in pairs],
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=5_000, help="sizes for what decides one by one")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    gc.freeze()  # the heap of torch and transformers is none of the rules' business
    sizes = distinct_sizes(words.sizes)
    few = sizes[:, : words.few]
    boxes = {f"{cols}x{rows}": contenders(sizes, few, TilingSpec(max_cols=cols, max_rows=rows)) for cols, rows in BOXES}
    rates: dict[str, dict[str, list[float]]] = {box: {} for box in boxes}
    for _ in range(words.turns):
        for box, calls in boxes.items():
            for name, (count, call) in calls.items():
                start = time.perf_counter()
                call()
                rates[box].setdefault(name, []).append(count / (time.perf_counter() - start))
    medians = {name: {box: statistics.median(rates[box][name]) for box in boxes} for name in next(iter(rates.values()))}
    if words.json:
        lines = [json.dumps({"sizes": words.sizes, "turns": words.turns, "sizes_per_second": medians})]
    else:
        lines = [f"sizes a second, medians of {words.turns} turns: {words.sizes:,} distinct, {words.few:,} one by one"]
        for name, by_box in medians.items():
            lines.append(f"{name:40}" + "".join(f"{box:>6}: {rate:12,.0f}" for box, rate in by_box.items()))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
