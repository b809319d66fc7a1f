"""Compiles parts of a model at a preset's full shape, random weights: what the whole would take on a phone's NPU.

    nice -n 19 python recipes/npu_shape.py --preset bluelm-v-3b --soc snapdragon-8-gen-3 --qnn-python QNN/bin/python

Two ViT blocks with the connector and one decoder layer (prefill and decode in one binary), the patch embedding and the
head are written, calibrated with random numbers and compiled. The blocks' share of the whole is counted up by the
weights in it. Compile times are this machine's; a simulator's run times mean nothing and are not taken.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stages.device.imaging.presets import imaging_preset
from stages.export_npu import open_observer
from stages.workshop.graph.graphs import model_shape
from stages.workshop.graph.patch_embed import Normalization
from stages.workshop.graph.random_weights import RandomWeights
from stages.workshop.graph.rotary import rotary_tables
from stages.workshop.model.presets import model_preset, preset_config
from stages.workshop.npu import calibration, files, graphs
from stages.workshop.npu.checker import refusals
from stages.workshop.npu.chips import chip_of
from stages.workshop.npu.compiler import GROUPS, HtpProcess
from stages.workshop.npu.graphs import NpuModel

VISION_BLOCKS, DECODER_LAYERS = 2, 1


def main() -> None:
    """Writes, compiles, prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="bluelm-v-3b")
    parser.add_argument("--soc", action="append", default=None)
    parser.add_argument("--qnn-python", type=Path)
    parser.add_argument("--capacity", type=int, default=2048)
    parser.add_argument("--keep", type=Path, help="keep graphs and binaries here")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="npu-shape-") as scratch:
        folder = flags.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sys.stdout.write(json.dumps(measured(flags, folder), indent=2) + "\n")


def measured(flags: argparse.Namespace, folder: Path) -> dict[str, object]:
    """What each binary took."""
    config = preset_config(flags.preset, text_layers=DECODER_LAYERS, vision_layers=VISION_BLOCKS)
    shape = model_shape(config, flags.capacity)
    imaging = imaging_preset(flags.preset)
    pictures = Normalization(imaging.image_mean, imaging.image_std)
    model = NpuModel(RandomWeights(tied=True), shape, pictures, 1, 128, flags.capacity)
    started = time.perf_counter()
    calibrated = random_ranges(model, config, folder)
    for _ in graphs.write_quantized(model, calibrated, folder):
        pass
    whole = model_preset(flags.preset)
    report: dict[str, object] = {
        "preset": flags.preset,
        "capacity": flags.capacity,
        "write_s": round(time.perf_counter() - started, 1),
        "refused": sum(len(refusals(folder / graphs.file_of(graph))) for graph in graphs.ROOTS),
        "qdq_bytes": {path.name: path.stat().st_size for path in sorted(folder.glob("*.data"))},
        "int4_weights_a_layer": 2 * shape.decoder.hidden * (shape.decoder.query_rows + shape.decoder.kv_rows)
        + 3 * shape.decoder.hidden * shape.decoder.mlp,
        "layers_of_the_whole": {"vision": whole.vision_layers, "decoder": whole.text_layers},
    }
    for soc in flags.soc or ["snapdragon-8-gen-3"]:
        place = folder / soc
        place.mkdir(exist_ok=True)
        seconds: dict[str, float] = {}
        with HtpProcess(flags.qnn_python) as htp:
            for group in GROUPS:
                paths = {graph: folder / graphs.file_of(graph) for graph in group}
                for graph, taken in htp.compile(chip_of(soc), paths, place).items():
                    seconds[graph] = round(taken, 1)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        sizes = {path.name: path.stat().st_size for path in sorted(place.glob("*.bin"))}
        report[soc] = {"compile_s": seconds, "bytes": sizes, "compiler_peak_mb": peak // 1024}
    return report


def random_ranges(model: NpuModel, config: object, folder: Path) -> graphs.Calibrated:
    """Ranges of one prompt of random tiles and tokens."""
    decoder, rng = model.shape.decoder, np.random.default_rng(0)
    side, tokens = model.shape.vision.tile_size, model.shape.vision.tokens
    table = rng.standard_normal((64, decoder.hidden), dtype=np.float32)
    rotary = files.whole_rotary(rotary_tables(config.text_config, model.capacity))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        writing = graphs.write_observers(model, Path(scratch))
        while True:
            try:
                next(writing)
            except StopIteration as done:
                watched = done.value
                break
        opened = calibration.open_observers(Path(scratch), open_observer)
        observer = calibration.Observer(model, watched, opened, table, rotary, 3)
        tiles = rng.integers(0, 256, (1, 3, side, side), dtype=np.uint8)
        prompt = calibration.Prompt([5] * 8 + [3] * tokens + list(range(4, 40)), tiles)
        list(observer.read([prompt]))
        return observer.calibrated(None)


if __name__ == "__main__":
    main()
