"""Times cutting in pairs on one core: ours, and transformers' LlavaNextImageProcessorPil. See tile_speed.sh.

Both read the same file each time and choose the same canvas (LLaVA-NeXT's rule over the same grids), so they make the
same tiles; a picture of one tile gets a thumbnail from theirs only, which is not counted for either. Theirs ends as
float32 [tiles, 3, S, S], as its users get it; ours as uint8, which is normalized when it is encoded, timed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from stages.device.imaging.crop import Colour, Scaler, normalize, pillow_scaled
from stages.device.imaging.cutting import cut_picture
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import load_image
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.workshop.corpus.torch_scaling import torch_scaled

MEAN, STD, PAD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), Colour(127, 127, 127)
SUFFIXES = (".jpg", ".jpeg", ".png")
CLASSES = ("JPEG, sides >= 4x", "JPEG, pixels >= 4x", "JPEG near", "PNG")


@dataclass
class Sums:
    """One class: what was cut, and the seconds of each way, a list for each round."""

    pictures: int = 0
    tiles: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    mean: float = 0.0
    percentile: float = 0.0


@dataclass(frozen=True)
class Case:
    """A picture in one tiling."""

    path: Path
    most: int
    tiling: Tiling
    kind: str


def pictures(inputs: list[Path]) -> list[Path]:
    """The JPEG and PNG files that can be read whole."""
    found = [path for path in inputs if path.is_file()]
    found += sorted(path for folder in inputs if folder.is_dir() for path in folder.rglob("*"))
    kept = []
    for path in found:
        if path.suffix.lower() in SUFFIXES:
            try:
                load_image(path)
            except Exception as error:
                sys.stderr.write(f"left out: {error}\n")
            else:
                kept.append(path)
    return kept


def cases(paths: list[Path], grids: list[int], side: int) -> list[Case]:
    """Every picture in every tiling, with its class."""
    made = []
    for path in paths:
        with Image.open(path) as image:
            kind = image.format
        size = Size(*load_image(path).size)
        for most in grids:
            tiling = plan_tiling(size, spec(most, side))
            times = min(size.width / tiling.scaled.width, size.height / tiling.scaled.height)
            name = "PNG" if kind == "PNG" else CLASSES[0 if times >= 4 else 1 if times >= 2 else 2]
            made.append(Case(path, most, tiling, name))
    return made


def spec(most: int, side: int) -> TilingSpec:
    return TilingSpec(rule="llava-next", max_cols=most, max_rows=most, tile_size=side)


def theirs(most: int, side: int) -> LlavaNextImageProcessorPil:
    """transformers' processor over the same canvases."""
    square = {"height": side, "width": side}
    pinpoints = [[rows * side, cols * side] for cols in range(1, most + 1) for rows in range(1, most + 1)]
    return LlavaNextImageProcessorPil(
        image_grid_pinpoints=pinpoints, size=square, crop_size=square, image_mean=list(MEAN), image_std=list(STD)
    )


def plain(image: Image.Image, tiling: Tiling) -> np.ndarray:
    """The tiles by Pillow's resize, paste and crop alone: uint8 [tiles, 3, S, S]."""
    canvas = Image.new("RGB", tiling.canvas, PAD)
    canvas.paste(image.resize(tiling.scaled, Image.Resampling.BICUBIC), tiling.picture[:2])
    side = (tiling.tile_size, tiling.tile_size)
    cut = [image.resize(side, Image.Resampling.BICUBIC)] if tiling.has_thumbnail else []
    cut += [canvas.crop(box) for box in tiling.boxes]
    return np.stack([np.moveaxis(np.asarray(tile), 2, 0) for tile in cut])


def timed(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def measure(all_cases: list[Case], side: int, rounds: int) -> dict[str, Sums]:
    """Every case by every way in turn, round by round."""
    sums = {name: Sums() for name in CLASSES}
    processors = {case.most: theirs(case.most, side) for case in all_cases}

    def ways(case: Case) -> dict[str, Callable[[], object]]:
        def ours(exact: bool = False, scaler: Scaler = pillow_scaled) -> np.ndarray:
            plan = lambda size: plan_tiling(size, spec(case.most, side))  # noqa: E731
            return cut_picture(case.path, case.path.name, plan, PAD, exact=exact, scaler=scaler).tiles

        return {
            "transformers": lambda: processors[case.most](Image.open(case.path).convert("RGB"), return_tensors="np"),
            "ours": ours,
            "ours, torch": lambda: ours(scaler=torch_scaled),
            "ours, exact": lambda: ours(exact=True),
            "ours, normalized": lambda: normalize(ours(), MEAN, STD),
        }

    for case in all_cases:
        kept = sums[case.kind]
        expected = plain(load_image(case.path), case.tiling)
        kept.pictures += 1
        kept.tiles += case.tiling.tiles
        for way in ("ours", "ours, torch"):
            difference = np.abs(np.asarray(ways(case)[way](), np.int16) - expected)
            kept.mean = max(kept.mean, float(difference.mean()))
            kept.percentile = max(kept.percentile, float(np.percentile(difference, 99)))
    for number in range(rounds):
        for kept in sums.values():
            for name in ("transformers", "ours", "ours, torch", "ours, exact", "ours, normalized"):
                kept.seconds[name].append(0.0)
        for case in all_cases:
            for name, do in ways(case).items():
                sums[case.kind].seconds[name][number] += timed(do)
    return sums


def report(sums: dict[str, Sums]) -> dict[str, dict[str, float]]:
    """Tiles per second by class and way (median round), medians of the rounds' ratios, and the worst differences."""
    made: dict[str, dict[str, float]] = {}
    for name, kept in sums.items():
        if kept.pictures:
            rates = {way: kept.tiles / statistics.median(times) for way, times in kept.seconds.items()}
            made[name] = {
                "pictures": kept.pictures,
                "tiles": kept.tiles,
                **{way: round(rate, 1) for way, rate in rates.items()},
                "ratio": ratio(kept, "ours"),
                "ratio, torch": ratio(kept, "ours, torch"),
                "worst mean difference": round(kept.mean, 2),
                "worst 99th percentile": kept.percentile,
            }
    return made


def ratio(kept: Sums, way: str) -> float:
    """How many times as many tiles per second as transformers."""
    pairs = zip(kept.seconds["transformers"], kept.seconds[way], strict=True)
    return round(statistics.median(theirs_s / ours_s for theirs_s, ours_s in pairs), 2)


def main() -> None:
    """Reads the arguments, measures, prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--max-grids", default="1,2,4", help="largest grids, N for N×N (default: 1,2,4)")
    parser.add_argument("--tile", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    grids = [int(word) for word in given.max_grids.split(",")]
    made = report(measure(cases(pictures(given.pictures), grids, given.tile), given.tile, given.rounds))
    if given.json:
        sys.stdout.write(json.dumps(made, indent=2) + "\n")
        return
    columns = list(next(iter(made.values())))
    lines = ["| class | " + " | ".join(columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{v[column]:g}" for column in columns) + " |" for name, v in made.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
