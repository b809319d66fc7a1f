"""Tiny random models with lively weights, their graphs, and onnxruntime to run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import SiglipVisionConfig

from stages.device.contract import int4_blocks, int8_channels, names
from stages.device.contract.kv_scales import KvScales
from stages.workshop.graph.decoder import DecoderEmitter, DecoderOptions
from stages.workshop.graph.decoder_shape import decoder_shape
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.rotary import rotary_tables
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny products are slower on several threads."""
    torch.set_num_threads(1)


def lively(model: nn.Module, seed: int = 0) -> None:
    """Gives every parameter numbers that matter: biases that are not 0, norms that are not 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(noise * 0.2 + (0.0 if name.endswith("bias") else 1.0))


@pytest.fixture
def lively_model() -> Callable[[nn.Module], nn.Module]:
    """Gives a model lively parameters, in evaluation mode."""

    def make(model: nn.Module) -> nn.Module:
        lively(model)
        return model.eval()

    return make


class TorchWeights:
    """A weight source over a torch model, every Linear in one form; `apply` leaves the model what the form keeps."""

    def __init__(
        self, model: nn.Module, form: str, prefix: str = "", activations: Literal["float", "int16", "int8"] = "int8"
    ) -> None:
        self.model, self.form, self.prefix, self.activations = model, form, prefix, activations
        self.parameters = dict(model.named_parameters(remove_duplicate=False))

    def linear(self, name: str, rows: int, columns: int, *, bias: bool) -> Linear:
        weight = self.tensor(f"{name}.weight", (rows, columns))
        offset = self.tensor(f"{name}.bias", (rows,)) if bias else None
        assert bias == (f"{name}.bias".removeprefix(self.prefix) in self.parameters)
        if self.form == "int4":
            return Linear(int4_blocks.quantize(weight, 32), offset, self.activations)
        return Linear(int8_channels.quantize(weight) if self.form == "int8" else weight, offset, self.activations)

    def tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        values = self.parameters[name.removeprefix(self.prefix)].detach().numpy().copy()
        assert values.shape == shape
        return values

    def apply(self) -> None:
        done = set()
        for name, module in self.model.named_modules():
            if type(module) is nn.Linear and id(module.weight) not in done:
                rows, columns = module.weight.shape
                linear = self.linear(self.prefix + name, rows, columns, bias=module.bias is not None)
                module.weight.data = torch.from_numpy(linear.dequantized())
                done.add(id(module.weight))


@pytest.fixture
def open_graph() -> Callable[[Path], Callable[[Arrays], Arrays]]:
    """Opens a graph as a function from inputs to outputs by name."""
    return run_graph


def session_of(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_graph(path: Path) -> Callable[[Arrays], Arrays]:
    session = session_of(path)
    outputs = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(outputs, session.run(outputs, feeds), strict=True))


class BoundDecoder:
    """decoder.onnx with past and present bound to one buffer, as the runtime does it."""

    def __init__(self, path: Path, capacity: int) -> None:
        self.session, self.position = session_of(path), 0
        self.cache: Arrays = {}
        for port in self.session.get_inputs():
            if port.name.startswith("past"):
                _, heads, _, size = port.shape
                self.cache[port.name] = np.zeros(
                    (1, heads, capacity, size), np.int8 if "int8" in port.type else np.float32
                )

    def feed(self, embeds: NDArray[np.float32]) -> NDArray[np.float32]:
        """Adds [1, S, H] to the context; gives the logits [V] of the last position."""
        self.position += embeds.shape[1]
        binding = self.session.io_binding()
        binding.bind_cpu_input(names.INPUTS_EMBEDS, np.ascontiguousarray(embeds))
        binding.bind_cpu_input(names.ATTENTION_MASK, np.ones((1, self.position), np.int64))
        binding.bind_output(names.LOGITS)
        for past, buffer in self.cache.items():
            present = past.replace("past_key_values", "present")
            binding.bind_cpu_input(past, buffer)
            binding.bind_output(present, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
        self.session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[0][0, 0]

    def feed_in(self, embeds: NDArray[np.float32], lengths: Sequence[int]) -> NDArray[np.float32]:
        """Feeds [1, L, H] in pieces of these lengths; gives the logits after each piece, [pieces, V]."""
        assert sum(lengths) == embeds.shape[1]
        ends = np.cumsum(lengths)
        return np.stack([self.feed(embeds[:, end - n : end]) for n, end in zip(lengths, ends, strict=True)])


@dataclass(frozen=True)
class ExportedDecoder:
    """A decoder in torch (with the weights its form keeps) and as a graph."""

    model: nn.Module
    path: Path
    kv_scales: KvScales | None

    def bound(self, capacity: int = 320) -> BoundDecoder:
        return BoundDecoder(self.path, capacity)

    def embeds(self, length: int) -> NDArray[np.float32]:
        generator = torch.Generator().manual_seed(length)
        return torch.randn(1, length, self.model.config.hidden_size, generator=generator).numpy()


@pytest.fixture
def export_decoder(tmp_path: Path) -> Callable[..., ExportedDecoder]:
    """Writes decoder.onnx of a tiny causal language model."""

    def export(
        model: nn.Module,
        form: str = "float",
        kv: str = "float32",
        activations: Literal["float", "int16", "int8"] = "float",
    ) -> ExportedDecoder:
        lively(model)
        weights = TorchWeights(model.eval(), form, "language_model.", activations)
        config = model.config
        layers = config.num_hidden_layers
        scales = None
        if kv == "int8":
            scales = KvScales.of(tuple(0.02 + 0.01 * n for n in range(layers)), (0.03,) * layers)
        if kv == "int8 by channel":
            shape = decoder_shape(config)
            rng = np.random.default_rng(0)
            keys, values = rng.uniform(0.02, 0.05, (2, layers, shape.kv_heads * shape.head_dim)).tolist()
            scales = KvScales.of([tuple(layer) for layer in keys], [tuple(layer) for layer in values])
        options = DecoderOptions(rotary_tables(config, 512), scales)
        with GraphEmitter(tmp_path, names.DECODER_FILE, "/model") as emitter:
            assert list(DecoderEmitter(emitter, weights, decoder_shape(config), options).emit()) == list(
                range(1, layers + 1)
            )
            emitter.save()
        weights.apply()
        return ExportedDecoder(model, tmp_path / names.DECODER_FILE, scales)

    return export


@pytest.fixture
def tiny_config() -> Callable[..., BlueLMVConfig]:
    """A whole model's configuration: 7×7 patches by default, two layers each."""

    def build(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **fields: Any) -> BlueLMVConfig:
        tower = {"image_size": 28, "patch_size": 4, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
        language = {
            "model_type": "llama",
            "vocab_size": 97,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
            "bos_token_id": None,
        }
        vision_config = SiglipVisionConfig(
            **{**tower, "num_attention_heads": 4, "vision_use_head": False, **(vision or {})}
        )
        return BlueLMVConfig(vision_config=vision_config, text_config={**language, **(text or {})}, **fields)

    return build


@pytest.fixture
def tiny_model(tiny_config: Callable[..., BlueLMVConfig]) -> Callable[..., BlueLMVForConditionalGeneration]:
    """A whole model with lively weights; arguments as `tiny_config`."""

    def build(**arguments: Any) -> BlueLMVForConditionalGeneration:
        model = BlueLMVForConditionalGeneration(tiny_config(**arguments)).eval()
        lively(model)
        return model

    return build


@pytest.fixture
def torch_weights() -> type[TorchWeights]:
    """The weight source over a torch model."""
    return TorchWeights
