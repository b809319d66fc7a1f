"""`bluelm export --format gguf`: llama.cpp's numbers are ours, on tiny models of every kind and on a trained one.

llama.cpp runs in a Python of its own, named by BLUELM_PEER_LLAMA_PYTHON (see recipes/peers); without it they skip.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SiglipVisionConfig

from stages.artifacts.events import result_of
from stages.device.contract import int8_channels
from stages.device.imaging.spec import TilingSpec
from stages.export_gguf import GgufConfig, run
from stages.quantize import QuantizeConfig
from stages.quantize import run as quantize
from stages.workshop.graph.gguf_model import LINEARS
from stages.workshop.graph.gguf_shape import turned_order
from stages.workshop.graph.gguf_tokenizer import RULES as RULES_BY_NAME
from stages.workshop.model.checkpoint import load_model, save_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.quant.policy import Rule
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.simulation import load_quantized

gguf = pytest.importorskip("gguf", reason="pip install 'bluelm[neighbours]' for gguf")
PROCESS = Path(__file__).parent / "workshop" / "graph" / "llama_process.py"
STORIES = Path(__file__).parent / "workshop" / "quant" / "test_stories.py"
CORPUS = ["What colour is the shape? It's red, isn't it? 12 squares, 345 circles."] * 4
TEXTS = (
    "What colour is the shape?",
    "It's 1234 circles,  two   spaces\nand a line\n\n",
    "<|im_start|>user\nred?<|im_end|>\n",
    "Grüße, 你好 ☺",
    " leading",
)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama, biases, tied": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama 3.1's positions": {"model_type": "llama", "rope_parameters": LLAMA3},
    "linear positions": {"model_type": "llama", "rope_parameters": LINEAR},
    "qwen2, tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 4, "tie_word_embeddings": True},
}
RULES = (
    Rule(modules="vision_tower.embeddings.*", weights="float"),
    Rule(modules="vision_tower.*", weights="int8"),
    Rule(modules="multi_modal_projector.*", weights="int8"),
    # 172 columns, and 88: no group of 32 divides them, but GGUF's blocks fit once zeros are behind them.
    Rule(modules="language_model.*.down_proj", weights="int8"),
    Rule(modules="language_model.model.layers.*", weights="int4", group_size=32),
    Rule(modules="language_model.*", weights="int8"),
)


@pytest.fixture(scope="session")
def llama_python() -> Path:
    named = os.environ.get("BLUELM_PEER_LLAMA_PYTHON")
    if not named or not Path(named).is_file():
        pytest.skip("BLUELM_PEER_LLAMA_PYTHON names no Python with llama-cpp-python")
    return Path(named)


@dataclass(frozen=True)
class Llama:
    """llama.cpp's answers about a file."""

    python: Path
    folder: Path

    def __call__(
        self,
        model: Path,
        prompts: list[list[int]],
        steps: int = 1,
        texts: tuple[str, ...] = (),
        picture: Path | None = None,
    ) -> Any:
        request, answer = self.folder / "request.json", self.folder / "answer.npz"
        asked = {"model": str(model), "context": 512, "prompts": prompts, "steps": steps, "texts": texts}
        request.write_text(json.dumps({**asked, "picture": picture and str(picture)}))
        subprocess.run([self.python, PROCESS, request, answer], check=True, timeout=300)
        return np.load(answer)


@pytest.fixture
def llama(llama_python: Path, tmp_path: Path) -> Llama:
    return Llama(llama_python, tmp_path)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint with lively random weights."""

    def build(text: dict[str, Any], tokenizer: Any = None, language: Any = None, tile: int = 32, **fields: Any) -> Path:
        torch.set_num_threads(1)
        tokenizer = tokenizer or train_tokenizer(CORPUS, 300)
        special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        tower = SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=44,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=tile,
            patch_size=8,
            vision_use_head=False,
        )
        text = {"vocab_size": len(tokenizer), **SIZES, **special, **text}
        image = tokenizer.convert_tokens_to_ids("<image>")
        model = build_model(BlueLMVConfig(vision_config=tower, text_config=text, image_token_id=image, **fields))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, value in model.named_parameters():
                noise = torch.randn(value.shape, generator=generator)
                around = 0.0 if name.endswith("bias") else 1.0
                value.copy_(noise * value[0].numel() ** -0.5 if value.ndim > 1 else noise * 0.2 + around)
        if language is not None:
            model.language_model.load_state_dict(language.state_dict())
        spec = TilingSpec(tile_size=tile, tokens_per_tile=model.config.tokens_per_tile, max_cols=2, max_rows=2)
        folder = tmp_path_factory.mktemp("checkpoint") / "model"
        save_checkpoint(model, BlueLMVProcessor(BlueLMVImageProcessor(spec, patch_size=8), tokenizer), folder)
        return folder

    return build


def logits_of(checkpoint: Path, ids: list[int]) -> np.ndarray:
    """By transformers, [L, V]."""
    with torch.no_grad():
        return load_model(checkpoint).language_model(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_float_logits_are_those_of_transformers(kind: str, make: Any, llama: Llama, tmp_path: Path) -> None:
    checkpoint = make(KINDS[kind])
    result = result_of(run(GgufConfig(pictures=False), checkpoint, tmp_path / "gguf"))
    assert set(result.tensors) == {"F32"}
    ids = [int(token) for token in np.random.default_rng(0).integers(4, 260, 70)]
    found = llama(tmp_path / "gguf" / "model.gguf", [ids], texts=TEXTS)
    expected = logits_of(checkpoint, ids)
    assert np.abs(found["logits-0"] - expected).max() <= 1e-4 * np.abs(expected).max()


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Every tensor's numbers, by gguf's own reader, as [N, K]."""
    tensors = gguf.GGUFReader(path).tensors
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}


def quantized(checkpoint: Path, folder: Path) -> Path:
    result_of(quantize(QuantizeConfig(rules=RULES, kv="float32"), checkpoint, None, folder))
    return folder


@pytest.mark.parametrize("kind", ["llama, biases, tied", "qwen3"])
def test_a_quantized_models_weights_are_the_same_numbers(kind: str, make: Any, tmp_path: Path) -> None:
    folder = quantized(make(KINDS[kind]), tmp_path / "int4")
    result = result_of(run(GgufConfig(), folder, tmp_path / "gguf"))
    assert result.rounded == ()
    assert result.tensors["Q4_0"] == 12
    found, source = read_file(tmp_path / "gguf" / "model.gguf"), QuantizedFolder(folder)
    heads = {"attn_q": 4, "attn_k": 2}
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            part = LINEARS[name]
            expected = source.weight(f"language_model.model.layers.{layer}.{part}")
            if name in heads and kind.startswith("llama"):
                expected = expected[turned_order(len(expected), heads[name])]
            tensor, (rows, columns) = found[f"blk.{layer}.{name}.weight"], expected.shape
            np.testing.assert_array_equal(tensor[:rows, :columns], expected)
            assert not tensor[rows:].any()
            assert not tensor[:, columns:].any()
    table = source.quantized("language_model.model.embed_tokens")
    np.testing.assert_array_equal(found["token_embd.weight"], int8_channels.dequantize(table))
    assert ("output.weight" in found) == (kind == "qwen3")


def stories() -> Any:
    """The module that reads the trained model."""
    spec = importlib.util.spec_from_file_location("stories", STORIES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_trained_model_goes_on_with_our_tokens(make: Any, llama: Llama, data_dir: Path, tmp_path: Path) -> None:
    """stories260K in INT4, blocks of 32: the first 24 tokens after three beginnings, and every position's logits."""
    module, folder = stories(), data_dir / "checkpoints" / "stories260K"
    language = module.read_model(folder / "stories260K.bin")
    pieces, scores = module.read_vocabulary(folder / "tok512.bin")
    config = {key: value for key, value in language.config.to_dict().items() if key in {*SIZES, "vocab_size"}}
    checkpoint = make(
        {"model_type": "llama", **config, "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "tie_word_embeddings": True},
        tokenizer=train_tokenizer(CORPUS, 300),
        language=language,
    )
    source = quantized(checkpoint, tmp_path / "int4")
    result_of(run(GgufConfig(), source, tmp_path / "gguf"))
    starts = ("Once upon a time, there was a little girl named Lily.", "Tom and his dog went to the park", "One day")
    prompts = [module.encode(start, pieces, scores) for start in starts]
    found = llama(tmp_path / "gguf" / "model.gguf", prompts, steps=24)
    model = load_quantized(source, exact=True)[0].language_model
    for index, prompt in enumerate(prompts):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt])).logits[0].numpy()
            expected = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=None)
        error = np.linalg.norm(found[f"logits-{index}"] - logits) / np.linalg.norm(logits)
        # llama.cpp rounds the inputs of these products to INT8.
        assert error < 2e-2
        assert found[f"tokens-{index}"].tolist() == expected[0, len(prompt) :].tolist()


def byte_level(splitter: Any, normalizer: Any = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()))


def pieces_of_words() -> PreTrainedTokenizerFast:
    """SentencePiece BPE as Llama 2 and MiniCPM have it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return trained(tokenizer, [], first)


def trained(tokenizer: Tokenizer, alphabet: list[str], first: Any = ()) -> PreTrainedTokenizerFast:
    ours = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400 + len(first), special_tokens=[*first, *ours], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS + list(TEXTS), trainer=trainer)
    # The trainer makes every first token a special one; bytes are none.
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = [one for one in values["added_tokens"] if not one["content"].startswith("<0x")]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(values)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<image>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = "{{ messages[0].content }}"
    return fast


def split(pattern: str) -> Any:
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    return pre_tokenizers.Sequence(steps)


QWEN2_RULE = next(rule[0] for rule, name in RULES_BY_NAME.items() if name == "qwen2")
TOKENIZERS: dict[str, Callable[[], Any]] = {
    "ours": lambda: train_tokenizer(CORPUS + list(TEXTS), 400),
    "gpt-2": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "qwen2": lambda: byte_level(split(QWEN2_RULE), normalizers.NFC()),
    "sentencepiece": pieces_of_words,
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_text_is_read_as_we_read_it(kind: str, make: Any, llama: Llama, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]()
    checkpoint = make({"model_type": "llama", "num_hidden_layers": 1}, tokenizer=tokenizer)
    result_of(run(GgufConfig(pictures=False), checkpoint, tmp_path / "gguf"))
    found = llama(tmp_path / "gguf" / "model.gguf", [], texts=TEXTS)
    for index, text in enumerate(TEXTS):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert found[f"ids-{index}"].tolist() == ids, text


def test_the_command_writes_both_files_and_says_so(make: Any, bluelm: Any, tmp_path: Path) -> None:
    checkpoint = make({"model_type": "qwen2"})
    told = bluelm("export", checkpoint, "--format", "gguf", "--dry-run", "--json")
    assert told.json() == {"architecture": "qwen2", "tokenizer": "smollm", "without_pictures": None}
    done = bluelm("export", checkpoint, "--format", "gguf", "--out", tmp_path / "gguf", "--json")
    assert done.code == 0, done.err
    assert set(done.json()["files"]) == {"model.gguf", "mmproj.gguf"}
    assert "up to date" in bluelm("export", checkpoint, "--format", "gguf", "--out", tmp_path / "gguf").err
    assert bluelm("info", tmp_path / "gguf", "--json").json()["kind"] == "gguf"
    assert "chat_template" in " ".join(gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields)


def test_what_does_not_go_together_is_told_together(make: Any, bluelm: Any) -> None:
    checkpoint = make({"model_type": "llama"})
    done = bluelm("export", checkpoint, "--format", "gguf", "--kv", "int8", "--batch", 2, "--out", "x")
    assert done.code == 2
    assert "--kv does not go with --format gguf" in done.err
    assert "--batch does not go with --format gguf" in done.err
    other = bluelm("export", checkpoint, "--format", "onxx", "--out", "x")
    assert other.code == 2
    assert "there is no such format" in other.err


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"model_type": "llama", "rope_parameters": YARN}, "yarn"),
        ({"model_type": "qwen2", "rope_parameters": LLAMA3}, "belongs to llama"),
        ({"model_type": "qwen3", "head_dim": 16, "attention_bias": True}, "no attention_bias"),
        ({"model_type": "smollm3", "no_rope_layer_interval": 2}, "every 4th layer"),
    ],
)
def test_what_llama_cpp_leaves_out_is_refused(text: dict[str, Any], words: str, make: Any, bluelm: Any) -> None:
    done = bluelm("export", make(text), "--format", "gguf", "--out", "x")
    assert done.code == 2
    assert "llama.cpp cannot express this language model" in done.err
    assert words in " ".join(done.err.split())


def test_a_tokenizer_with_a_rule_of_its_own_is_refused(make: Any, bluelm: Any) -> None:
    tokenizer = byte_level(pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)]))
    done = bluelm("export", make({"model_type": "llama"}, tokenizer=tokenizer), "--format", "gguf", "--out", "x")
    assert done.code == 2
    assert "it splits text by a rule of its own" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("fields", "tile", "words"),
    [
        ({"downsampler": "none"}, 32, "does neither"),
        ({"fuse_linear": True}, 32, "fuse_linear"),
        ({"token_order": "column"}, 32, "column by column"),
        ({}, 56, "a tile has 7×7 patches"),
    ],
)
def test_a_vision_side_that_is_not_theirs_is_left_out(
    fields: dict[str, Any], tile: int, words: str, make: Any, bluelm: Any, tmp_path: Path
) -> None:
    checkpoint = make({"model_type": "llama"}, tile=tile, **fields)
    done = bluelm("export", checkpoint, "--format", "gguf", "--out", tmp_path / "gguf", "--json")
    assert done.code == 0, done.err
    assert set(done.json()["files"]) == {"model.gguf"}
    assert words in done.json()["without_pictures"]
    assert "llama.cpp answers without pictures" in " ".join(done.err.split())


def test_without_gguf_the_extra_is_named(make: Any, bluelm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = bluelm("export", make({"model_type": "llama"}), "--format", "gguf", "--out", "x")
    assert done.code == 2
    assert "bluelm[neighbours]" in done.err


@pytest.mark.parametrize("stored", ["float", "int8"])
def test_llama_cpp_makes_our_image_tokens(stored: str, make: Any, llama: Llama, tmp_path: Path) -> None:
    """One picture of a tile's size: 16×16 patches, 64 image tokens."""
    checkpoint = make({"model_type": "llama"}, tile=128, projector_hidden_act="gelu_pytorch_tanh")
    if stored == "int8":
        checkpoint = quantized(checkpoint, tmp_path / "int4")
    result_of(run(GgufConfig(), checkpoint, tmp_path / "gguf"))
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    np.save(tmp_path / "picture.npy", pixels)
    found = llama(tmp_path / "gguf" / "model.gguf", [], picture=tmp_path / "picture.npy")["features"]
    model = load_model(checkpoint) if stored == "float" else load_quantized(checkpoint, exact=True)[0]
    normal = torch.from_numpy((pixels.transpose(2, 0, 1)[None] / np.float32(255) - 0.5) / 0.5).float()
    with torch.no_grad():
        expected = model.get_image_features(normal)[0].numpy()
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < (1e-3 if stored == "float" else 3e-2)
