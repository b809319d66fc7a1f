"""The static graphs three ways: QDQ on the CPU provider, a numpy decoder written out by hand, and torch in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from stages.device.contract import names
from stages.device.contract.npu_config import read_npu_config
from stages.device.contract.static_activations import Encoding, round_static, unround_static
from stages.device.imaging.crop import normalize
from stages.device.runtime.static_model import StaticModel, cpu_graphs
from stages.export_npu import open_observer
from stages.workshop.graph.checkpoint_weights import CheckpointWeights
from stages.workshop.graph.decoder import MODEL
from stages.workshop.graph.reference import checkpoint_reference
from stages.workshop.npu import graphs
from stages.workshop.npu.decoder import SHARE, kv_encoding
from tests.export_npu.conftest import Exported


class NumpyDecoder:
    """The decoder of one call by the contract alone: every value rounded by its encoding, products in float64."""

    def __init__(self, exported: Exported, feeds: dict[str, np.ndarray]) -> None:
        self.shape, self.weights = exported.model.shape.decoder, exported.model.weights
        self.seen, self.scales = exported.calibrated.encodings["prefill"], exported.calibrated.kv_scales
        self.mask = exported.calibrated.mask
        self.feeds = feeds
        self.present: dict[str, np.ndarray] = {}

    def to(self, x: np.ndarray, key: str | Encoding) -> np.ndarray:
        encoding = key if isinstance(key, tuple) else self.seen[key]
        return unround_static(round_static(x.astype(np.float32), encoding), encoding)

    def linear(self, x: np.ndarray, source: str, key: str, rows: int, columns: int) -> np.ndarray:
        weight = self.weights.linear(source, rows, columns, bias=False).dequantized()
        return self.to(x.astype(np.float64) @ weight.astype(np.float64).T, f"{key}/MatMul")

    def norm(self, x: np.ndarray, source: str, key: str) -> np.ndarray:
        gain = self.weights.tensor(source, (self.shape.hidden,))
        span = max(gain.max(), 0) - min(gain.min(), 0)
        encoding = Encoding(float(np.float32(span / 65535)), int(np.rint(-min(gain.min(), 0) / (span / 65535))))
        wide = x.astype(np.float64)
        scaled = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + self.shape.epsilon) * self.to(gain, encoding)
        return self.to(scaled, f"{key}/RMSNormalization")

    def heads(self, x: np.ndarray, count: int) -> np.ndarray:
        return x.reshape(1, -1, count, self.shape.head_dim).transpose(0, 2, 1, 3)

    def rotary(self, x: np.ndarray, key: str) -> np.ndarray:
        half = self.shape.head_dim // 2
        unit = Encoding(1 / 32767, 32768)
        cos, sin = (unround_static(self.feeds[name], unit) for name in ("cos", "sin"))
        straight = self.to(x * cos, f"{key}/straight/Mul")
        across = self.to(np.concatenate([x[..., half:], x[..., :half]], -1) * sin, f"{key}/across/Mul")
        return self.to(straight + across, f"{key}/Add")

    def cached(self, layer: int, new: np.ndarray, part: str) -> np.ndarray:
        scale = (self.scales.keys if part == "key" else self.scales.values)[layer]
        assert not isinstance(scale, tuple)
        encoding = kv_encoding(scale)
        self.present[f"present.{layer}.{part}"] = round_static(new, encoding)
        past = unround_static(self.feeds[f"past_key_values.{layer}.{part}"], encoding)
        groups = self.shape.heads // self.shape.kv_heads
        return np.repeat(np.concatenate([past, self.to(new, encoding)], 2), groups, axis=1)

    def attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        shape, place, source = self.shape, f"layers.{layer}/attn", f"{MODEL}.layers.{layer}.self_attn"
        parts = {"q": shape.query_rows, "k": shape.kv_rows, "v": shape.kv_rows}
        q, k, v = (
            self.linear(x, f"{source}.{part}_proj", f"{place}/{part}_proj", rows, shape.hidden)
            for part, rows in parts.items()
        )
        query = self.rotary(self.heads(q, shape.heads), f"{place}/q_rotary")
        keys = self.cached(layer, self.rotary(self.heads(k, shape.kv_heads), f"{place}/k_rotary"), "key")
        values = self.cached(layer, self.heads(v, shape.kv_heads), "value")
        products = self.to(query.astype(np.float64) @ keys.transpose(0, 1, 3, 2), f"{place}/products/MatMul")
        root = np.float32(shape.head_dim**-0.5)
        step = np.float32(root / 65535)
        scores = self.to(products * (np.rint(root / step) * step), f"{place}/scores/Mul")
        seen = self.seen[f"{place}/scores/Mul"]
        low, high = seen.lowest + self.mask.lowest, seen.highest
        whole = float(np.float32((high - low) / 65535))
        masked = Encoding(whole, int(np.rint(-low / whole)))
        scores = self.to(scores + unround_static(self.feeds["mask"], self.mask), masked).astype(np.float64)
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        shares = self.to(powers / powers.sum(-1, keepdims=True), SHARE)
        mixed = self.to(shares.astype(np.float64) @ values, f"{place}/mixed/MatMul")
        rows = mixed.transpose(0, 2, 1, 3).reshape(1, -1, shape.query_rows)
        return self.linear(rows, f"{source}.o_proj", f"{place}/o_proj", shape.hidden, shape.query_rows)

    def mlp(self, layer: int, x: np.ndarray) -> np.ndarray:
        shape, place, source = self.shape, f"layers.{layer}/mlp", f"{MODEL}.layers.{layer}.mlp"
        gate, up = (
            self.linear(x, f"{source}.{part}", f"{place}/{part}", shape.mlp, shape.hidden)
            for part in ("gate_proj", "up_proj")
        )
        opening = self.to(1 / (1 + np.exp(-gate.astype(np.float64))), SHARE)
        product = self.to(self.to(gate * opening, f"{place}/opened/Mul") * up, f"{place}/product/Mul")
        return self.linear(product, f"{source}.down_proj", f"{place}/down_proj", shape.hidden, shape.mlp)

    def run(self) -> np.ndarray:
        x = unround_static(self.feeds["inputs_embeds"], self.seen["inputs/inputs_embeds"])
        for layer in range(self.shape.layers):
            place, source = f"layers.{layer}", f"{MODEL}.layers.{layer}"
            normed = self.norm(x, f"{source}.input_layernorm.weight", f"{place}/input_layernorm")
            x = self.to(x + self.attention(layer, normed), f"{place}/attn_residual/Add")
            normed = self.norm(x, f"{source}.post_attention_layernorm.weight", f"{place}/post_attention_layernorm")
            x = self.to(x + self.mlp(layer, normed), f"{place}/mlp_residual/Add")
        x = self.norm(x, f"{MODEL}.norm.weight", "norm")
        return round_static(x, self.seen["norm/RMSNormalization"])


def feeds_of(exported: Exported, graph: str, start: int) -> dict[str, np.ndarray]:
    """A call with random tokens after `start` random ones in the cache."""
    rng = np.random.default_rng(4)
    model, shape = exported.model, exported.model.shape.decoder
    tokens = model.chunk if graph == "prefill" else 1
    embeds = rng.normal(0, 0.03, (1, tokens, shape.hidden)).astype(np.float32)
    mask = np.zeros((1, 1, tokens, model.capacity + tokens), np.uint16)
    mask[..., :start] = 65535
    mask[0, 0, :, model.capacity :] = np.tri(tokens, dtype=np.uint16) * 65535
    rotary = np.load(exported.folder / "rotary.npy")[:, None, None, start : start + tokens]
    embedded = round_static(embeds, exported.calibrated.encodings["prefill"]["inputs/inputs_embeds"])
    feeds = {"inputs_embeds": embedded, "mask": mask, "cos": rotary[0], "sin": rotary[1]}
    for layer in range(shape.layers):
        for name in (names.past_key(layer), names.past_value(layer)):
            past = rng.normal(128, 25, (1, shape.kv_heads, model.capacity, shape.head_dim))
            feeds[name] = np.clip(past, 0, 255).astype(np.uint8)
    return feeds


@pytest.mark.parametrize(("graph", "start"), [("prefill", 0), ("prefill", 21), ("decode", 37)])
def test_the_qdq_run_is_the_contract_written_out(exported: Exported, graph: Any, start: int) -> None:
    feeds = feeds_of(exported, graph, start)
    found = cpu_graphs(exported.folder, 1)(graph, feeds)
    by_hand = NumpyDecoder(exported, feeds)
    hidden = by_hand.run()
    span = hidden.max().astype(int) - hidden.min()
    # Sums in another order now and then round a step the other way; that step then goes on.
    assert np.abs(found["hidden"].astype(int) - hidden).max() <= 1e-3 * span
    for name, stored in by_hand.present.items():
        steps = np.abs(found[name].astype(int) - stored)
        assert steps.max() <= 1
        assert (steps == 0).mean() > 0.995


def test_the_observing_graphs_compute_what_torch_computes(exported: Exported, quantized: Path, tmp_path: Path) -> None:
    """So masks, rotary tables, grouped heads and the cut of the patches are right, before anything is rounded."""
    model = exported.model
    list(graphs.write_observers(model, tmp_path))
    weights = model.weights
    assert isinstance(weights, CheckpointWeights)
    torch_model = checkpoint_reference(quantized, weights, None)
    rng, shape = np.random.default_rng(7), model.shape
    tiles = rng.integers(0, 256, (model.tiles, 3, shape.vision.tile_size, shape.vision.tile_size), dtype=np.uint8)
    values = tiles.astype(np.float32) / 255
    patches = open_observer(tmp_path / "patch_embed.onnx")({"pixel_values": values})["patch_embeds"]
    # The convolution's weights are float in torch; here they are rounded to INT8.
    expected = torch_model.patch_embeds(normalize(tiles, *model.pictures))
    assert relative(patches, expected) < 1e-2
    features = open_observer(tmp_path / "vision.onnx")({"patch_embeds": patches})["image_features"]
    assert relative(features, torch_model.vision(patches)[0]) < 1e-5
    embeds = torch_model.embeddings(rng.integers(4, shape.decoder.vocab, (1, model.chunk)))
    feeds: dict[str, np.ndarray] = {
        "inputs_embeds": embeds,
        "mask": np.zeros((1, 1, model.chunk, model.capacity + model.chunk), np.float32),
    }
    feeds["mask"][..., : model.capacity] = -1e4
    feeds["mask"][0, 0, :, model.capacity :] = np.triu(np.full((model.chunk, model.chunk), -1e4), 1)
    rotary = np.load(exported.folder / "rotary.npy")[:, None, None, : model.chunk]
    feeds |= {name: unround_static(table, Encoding(1 / 32767, 32768)) for name, table in zip(("cos", "sin"), rotary)}  # noqa: B905
    cache = np.zeros((1, shape.decoder.kv_heads, model.capacity, shape.decoder.head_dim), np.float32)
    for layer in range(shape.decoder.layers):
        feeds |= {names.past_key(layer): cache, names.past_value(layer): cache}
    hidden = open_observer(tmp_path / "prefill.onnx")(feeds)["hidden"]
    head = open_observer(tmp_path / "head.onnx")
    logits = np.concatenate([head({"hidden": hidden[:, [place]]})["logits"][0] for place in range(model.chunk)])
    assert relative(logits, torch_model.logits(embeds)) < 1e-4


def test_the_patch_embedding_takes_bytes(exported: Exported, corpus: Path, tmp_path: Path) -> None:
    """A picture that was calibrated with, as it was cut: the observing form of it in 0…1 to 16 bits."""
    list(graphs.write_observers(exported.model, tmp_path))
    with Image.open(corpus / "images" / "0.png") as picture:
        tiles = np.stack([np.asarray(picture).transpose(2, 0, 1)] * exported.model.tiles)
    expected = open_observer(tmp_path / "patch_embed.onnx")({"pixel_values": tiles.astype(np.float32) / 255})
    port = read_npu_config(exported.folder).graphs["patch_embed"].outputs["patch_embeds"]
    stored = cpu_graphs(exported.folder, 1)("patch_embed", {"pixel_values": tiles})["patch_embeds"]
    found = unround_static(stored, port.encoding)
    # Rounded after the convolution and after the positions, and the tables' own rounding.
    np.testing.assert_allclose(found, expected["patch_embeds"], rtol=0, atol=4 * port.scale)


def test_prompts_of_any_length_are_read_in_chunks(exported: Exported) -> None:
    """A prompt read 16 tokens a call, and token by token, leaves the same cache to within a step."""
    chunked, single = (StaticModel(exported.folder, cpu_graphs(exported.folder, 1)) for _ in range(2))
    ids = [5, 9, 30, 41, 7, 8, 12, 60, 61, 62, 9, 9, 5, 30, 11, 44, 45, 46, 10, 8, 70]
    list(chunked.answer(ids, None, 1))
    single._reset()
    for token in ids:
        single._step("decode", single._embed([token]))
    for name, stored in single._past.items():
        steps = np.abs(chunked._past[name].astype(int) - stored)[:, :, : len(ids)]
        assert steps.max() <= 2, name
        assert (steps == 0).mean() > 0.97, name


def test_prefill_and_decode_share_their_weights(exported: Exported) -> None:
    tensors = {graph: {one.name: one for one in loaded(exported, graph).initializer} for graph in ("prefill", "decode")}
    outside = {name: one for name, one in tensors["decode"].items() if one.data_location == onnx.TensorProto.EXTERNAL}
    assert any(one.data_type == onnx.TensorProto.INT4 for one in outside.values())
    # Byte for byte the same where they lie: two of the model's weights that are equal may be one there.
    for name, one in outside.items():
        theirs = tensors["prefill"][name]
        assert stored_bytes(exported.folder, one) == stored_bytes(exported.folder, theirs), name
    assert not (exported.folder / "decode.onnx.data").exists()


def loaded(exported: Exported, graph: str) -> onnx.GraphProto:
    return onnx.load(exported.folder / f"{graph}.onnx", load_external_data=False).graph


def stored_bytes(folder: Path, tensor: onnx.TensorProto) -> bytes:
    place = {entry.key: entry.value for entry in tensor.external_data}
    assert place["location"] == "prefill.onnx.data"
    with (folder / place["location"]).open("rb") as stream:
        stream.seek(int(place["offset"]))
        return stream.read(int(place["length"]))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())
