"""Writes our side of a comparison, in an environment that has bluelm with torch.

    python write_ours.py decoder FOLDER LAYERS POLICY      random weights in the shape of bluelm-v-3b
    python write_ours.py shape FILE LAYERS                 that shape as JSON, for the peers' writers
    python write_ours.py vit FOLDER LAYERS                 one SigLIP with connector: torch, ONNX, and our two forms

The vision tower's weights are drawn once, so that every contender computes the same function and errors mean something:

    FOLDER/vit.safetensors   float32            FOLDER/vit.onnx   their export
    FOLDER/rounded.safetensors                  the weights after rounding to INT8: errors beyond it are activations'
    FOLDER/int8, FOLDER/int16                   our graphs, by the precision of their activations
    FOLDER/tiles.npy                            uint8 [tiles, 3, S, S]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from vit_model import PRESET, BothFeatures, vit_config, vit_model

LARGEST_PICTURE = 16  # tiles
SMALL_CONTEXT = 64


def decoder(folder: Path, layers: int, policy: str) -> None:
    """A whole exported folder; its vision tower has one layer, nothing here looks at it."""
    from stages.workshop.graph.random_model import write_random_model

    folder.mkdir(parents=True)
    for _ in write_random_model(PRESET, folder, layers=layers, vision_layers=1, policy=policy):
        pass


def shape(file: Path, layers: int) -> None:
    """What a peer must know to write the same decoder."""
    from stages.workshop.model.presets import model_preset

    preset = model_preset(PRESET)
    values = {
        "layers": layers,
        "hidden": preset.text_width,
        "mlp": preset.text_mlp,
        "heads": preset.text_heads,
        "kv_heads": preset.text_kv_heads,
        "vocab": preset.vocab_size,
    }
    file.write_text(json.dumps(values), encoding="utf-8")


def vit(folder: Path, layers: int) -> None:
    """The vision side in all its forms."""
    import torch
    from safetensors.torch import save_file

    from stages.device.contract.device_config import PromptSpec
    from stages.device.imaging.presets import imaging_preset
    from stages.workshop.graph.device_files import device_config, write_device_files
    from stages.workshop.graph.graphs import GraphOptions, write_graphs
    from stages.workshop.graph.patch_embed import Normalization

    folder.mkdir(parents=True)
    config, model = vit_config(layers), vit_model(layers)
    save_file(_vision_state(model), folder / "vit.safetensors")
    tile = config.vision_config.image_size
    tiles = np.random.default_rng(0).integers(0, 256, (LARGEST_PICTURE, 3, tile, tile), dtype=np.uint8)
    np.save(folder / "tiles.npy", tiles)
    with torch.no_grad():
        torch.onnx.export(
            BothFeatures(model).eval(),
            (torch.randn(2, 3, tile, tile),),
            str(folder / "vit.onnx"),
            dynamo=True,
            external_data=True,
            verbose=False,
            output_names=["vit_features", "image_features"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("tiles", min=1, max=LARGEST_PICTURE)}},
        )
    options = GraphOptions(max_context=SMALL_CONTEXT)
    prompt = PromptSpec(image_token="<image>", image_token_id=config.image_token_id, eos_token_ids=())
    device = device_config(PRESET, config, imaging_preset(PRESET), prompt, options)
    pictures = Normalization(device.vision.image_mean, device.vision.image_std)
    for activations in ("int8", "int16"):
        (folder / activations).mkdir()
        write_device_files(folder / activations, device, options, None)
        source = RoundedWeights(model.state_dict(), activations)
        embedding = _result(write_graphs(source, config, folder / activations, options, pictures))
        device.written(embedding).write(folder / activations)
    model.load_state_dict({**model.state_dict(), **source.rounded})
    save_file(_vision_state(model), folder / "rounded.safetensors")


class RoundedWeights:
    """A torch model's weights as a source of graphs: vision Linears INT8 per channel, all else float."""

    def __init__(self, state: dict, activations: str) -> None:
        self.state, self.activations = state, activations
        self.rounded: dict = {}

    def linear(self, name: str, rows: int, columns: int, *, bias: bool):
        import torch

        from stages.device.contract import int8_channels
        from stages.workshop.graph.linear import Linear

        weight = self.state[f"{name}.weight"].numpy()
        offset = self.state[f"{name}.bias"].numpy() if bias else None
        if name.startswith("language_model"):
            return Linear(weight, offset)
        quantized = int8_channels.quantize(weight)
        self.rounded[f"{name}.weight"] = torch.from_numpy(int8_channels.dequantize(quantized))
        return Linear(quantized, offset, activations=self.activations)

    def tensor(self, name: str, shape: tuple[int, ...]):
        return self.state[name].numpy().reshape(shape)


def _result(steps):
    """What a generator returns after all its progress."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def _vision_state(model) -> dict:
    state = model.state_dict()
    return {name: value.contiguous() for name, value in state.items() if not name.startswith("language_model")}


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    {"decoder": decoder, "shape": shape, "vit": vit}[what](Path(where), int(rest[0]), *rest[1:])
