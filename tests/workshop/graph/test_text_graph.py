"""text.onnx: the same numbers as embedding rows and decoder.onnx; and onnxruntime-genai runs it to our tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.device.contract import names
from stages.device.contract.device_config import read_device_config
from stages.device.runtime.context import Context, TokenPrompt
from stages.device.runtime.language import load_language

STEPS = 24
PROMPTS = ([5], [17, 40, 41, 8, 250, 12], list(range(20, 120)))


def language(folder: Path) -> Context:
    return load_language(folder, read_device_config(folder), threads=1, capacity=256).context


def our_tokens(folder: Path, prompt: list[int]) -> list[int]:
    """Greedy tokens of our runtime; nothing ends them."""
    context = language(folder)
    logits = context.read(TokenPrompt(prompt, image_token_id=-1)).logits
    found = [int(logits.argmax())]
    while len(found) < STEPS:
        found.append(int(context.feed(found[-1]).argmax()))
    return found


def test_it_gives_the_logits_of_the_two_graphs(tiny_onnx: Path, open_graph: Any) -> None:
    spec = read_device_config(tiny_onnx).decoder
    ids = np.array([PROMPTS[1]], np.int64)
    cache = np.zeros((1, spec.num_key_value_heads, 16, spec.head_dim), np.int8)
    feeds = {names.ATTENTION_MASK: np.ones_like(ids)}
    for layer in range(spec.num_layers):
        feeds |= {names.past_key(layer): cache, names.past_value(layer): cache}
    embeds = open_graph(tiny_onnx / names.EMBEDDING_FILE)({names.INPUT_IDS: ids})
    apart = open_graph(tiny_onnx / names.DECODER_FILE)(feeds | embeds)
    together = open_graph(tiny_onnx / names.TEXT_FILE)(feeds | {names.INPUT_IDS: ids})
    assert apart.keys() == together.keys()
    for name, values in apart.items():
        np.testing.assert_array_equal(together[name], values)


def test_no_weight_is_written_again(tiny_onnx: Path) -> None:
    assert not (tiny_onnx / f"{names.TEXT_FILE}.data").exists()
    graphs = [(tiny_onnx / name).stat().st_size for name in (names.EMBEDDING_FILE, names.DECODER_FILE)]
    assert (tiny_onnx / names.TEXT_FILE).stat().st_size <= sum(graphs)


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_genai_gives_our_tokens(prompt: list[int], tiny_onnx: Path, tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="pip install 'bluelm[neighbours]' for onnxruntime-genai")
    model = genai.Model(str(without_an_end(tiny_onnx, tmp_path)))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + STEPS, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array(prompt, np.int32))
    found = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    assert found == our_tokens(tiny_onnx, prompt)
    assert len(set(found)) > 3 or len(prompt) == 1


def test_genai_reads_text_as_we_do(tiny_onnx: Path, tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="pip install 'bluelm[neighbours]' for onnxruntime-genai")
    from tokenizers import Tokenizer

    folder = without_an_end(tiny_onnx, tmp_path)
    shutil.copyfile(tiny_onnx.parent / "tokenizer" / "tokenizer_config.json", folder / "tokenizer_config.json")
    theirs = genai.Tokenizer(genai.Model(str(folder)))
    ours = Tokenizer.from_file(str(tiny_onnx / names.TOKENIZER_FILE))
    text = "<|im_start|>user\nWhat colour is the shape? 12 red squares<|im_end|>\n"
    assert theirs.encode(text).tolist() == ours.encode(text).ids


def without_an_end(folder: Path, out: Path) -> Path:
    """The folder by links, but no token ends an answer, so that random weights say enough."""
    for file in folder.iterdir():
        (out / file.name).hardlink_to(file)
    config = json.loads((out / names.GENAI_CONFIG_FILE).read_text())
    config["model"]["eos_token_id"] = config["model"]["vocab_size"] - 1
    (out / names.GENAI_CONFIG_FILE).unlink()
    (out / names.GENAI_CONFIG_FILE).write_text(json.dumps(config))
    return out
