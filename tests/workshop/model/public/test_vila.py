"""VILA-1.5 taken over: the same logits as its own computation, written here from its description."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.artifacts.errors import BluelmError
from stages.artifacts.events import Progress, result_of
from stages.device.prompt.messages import assistant, user
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.model.public.adoption import Adoption, import_checkpoint

MakeVila = Callable[..., tuple[Path, dict[str, Any]]]


def adopt(folder: Path, out: Path, **options: Any) -> Adoption:
    return result_of(import_checkpoint(folder, out, **options))


def vila_logits(parts: dict[str, Any], before: list[int], tiles: torch.Tensor, after: list[int]) -> torch.Tensor:
    """Tower's last but one hidden state → 7×7 padded to 8×8 → pairs of columns, swap, pairs of rows → LayerNorm,
    Linear, GELU, Linear → between the embeddings of the text."""
    hidden = parts["tower"](tiles, output_hidden_states=True).hidden_states[-2]
    grid = torch.nn.functional.pad(hidden.reshape(len(tiles), 7, 7, 16), (0, 0, 0, 1, 0, 1))
    grid = grid.view(len(tiles), 8, 4, 32).permute(0, 2, 1, 3).contiguous().view(len(tiles), 4, 4, 64)
    layers = parts["projector"]["layers"]
    features = layers["4"](torch.nn.functional.gelu(layers["2"](layers["1"](grid.flatten(1, 2)))))
    embed = parts["llm"].get_input_embeddings()
    pieces = [embed(torch.tensor(before)), features.flatten(0, 1), embed(torch.tensor(after))]
    return parts["llm"](inputs_embeds=torch.cat(pieces)[None]).logits


@pytest.mark.parametrize("count", [1, 3])
def test_logits_equal_vilas_computation(make_vila: MakeVila, tmp_path: Path, count: int) -> None:
    folder, parts = make_vila()
    adopt(folder, tmp_path / "ours")
    ours, _ = load_checkpoint(tmp_path / "ours")
    tiles = torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[1, 30, *([ours.config.image_token_id] * 16 * count), 40, 41]])
    with torch.no_grad():
        logits = ours(input_ids=ids, pixel_values=tiles).logits
        expected = vila_logits(parts, [1, 30], tiles, [40, 41])
    torch.testing.assert_close(logits[..., : expected.shape[-1]], expected, rtol=1e-5, atol=1e-5)


def test_an_image_token_is_added_behind_the_vocabulary(make_vila: MakeVila, tmp_path: Path) -> None:
    folder, parts = make_vila()
    vocabulary = parts["llm"].config.vocab_size
    adoption = adopt(folder, tmp_path / "ours")
    ours, processor = load_checkpoint(tmp_path / "ours")
    assert ours.config.image_token_id == processor.image_token_id == vocabulary
    assert ours.get_input_embeddings().num_embeddings == ours.config.text_config.vocab_size == vocabulary + 1
    assert processor.tokenizer.convert_tokens_to_ids(["<s>", "</s>"]) == [1, 2]
    assert ours.generation_config.eos_token_id == [2]
    assert ours.generation_config.suppress_tokens == [vocabulary]
    assert ours.config.token_order == "column"
    assert adoption.notes == ("The tower's last 1 of 3 layers are never used: left out.",)


def test_the_prompt_is_vicunas(make_vila: MakeVila, tmp_path: Path) -> None:
    folder, _ = make_vila()
    adoption = adopt(folder, tmp_path / "ours")
    assert adoption.chat_template == "vicuna, by its special tokens"
    _, processor = load_checkpoint(tmp_path / "ours")
    talk = [user("What colour?", images=1), assistant("red"), user("Sure?")]
    prompt = processor.prompts.encode(talk, [16], add_generation_prompt=True)
    assert prompt.text == (
        "<s> A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image> \nWhat colour? ASSISTANT: red</s>"
        "USER: Sure? ASSISTANT:"
    )
    said = [token for token, answer in zip(prompt.ids, prompt.is_answer, strict=True) if answer]
    assert processor.tokenizer.decode(said) == " red</s>"


def test_the_ids_are_vilas(make_vila: MakeVila, tmp_path: Path, llama_tokenizer: Any) -> None:
    """VILA tokenizes what lies between pictures piece by piece, so a space stands before each piece, also before the
    newline behind a picture (`tokenizer_image_token`)."""
    folder, _ = make_vila()
    adopt(folder, tmp_path / "ours")
    _, processor = load_checkpoint(tmp_path / "ours")
    prompt = processor.prompts.encode([user("Same?", images=2)], [3, 4], add_generation_prompt=True)
    system = prompt.text.removeprefix("<s> ").partition(" USER: ")[0]
    pieces = f"{system} USER: <image>\n<image>\nSame? ASSISTANT:".split("<image>")
    first, *rest = [llama_tokenizer.encode(piece, add_special_tokens=False) for piece in pieces]
    expected = [1, *first]
    for count, piece in zip([3, 4], rest, strict=True):
        expected += [processor.image_token_id] * count + piece
    assert prompt.ids == expected


def test_a_published_tokenizer_reads_as_sentencepiece_does(make_vila: MakeVila, tmp_path: Path) -> None:
    """The published folders hold tokenizer.model alone."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder, parts = make_vila()
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(["What colour is the shape?", "The shape is red and blue."] * 50))
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts),
        model_prefix=str(folder / "llm" / "tokenizer"),
        vocab_size=parts["llm"].config.vocab_size,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    (folder / "llm" / "tokenizer.json").unlink()
    write_json(folder / "llm" / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", legacy=False)
    adopt(folder, tmp_path / "ours")
    _, processor = load_checkpoint(tmp_path / "ours")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "llm" / "tokenizer.model"))
    prompt = processor.prompts.encode([user("What colour, été?", images=1)], [5], add_generation_prompt=True)
    before, behind = prompt.text.removeprefix("<s> ").split("<image> ")
    image = [processor.image_token_id] * 5
    assert prompt.ids == [1, *pieces.encode(before), *image, *pieces.encode(behind)]


def test_a_sentencepiece_file_says_what_it_needs(
    make_vila: MakeVila, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = make_vila()
    (folder / "llm" / "tokenizer.json").rename(folder / "llm" / "tokenizer.model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BluelmError, match="without the package sentencepiece") as caught:
        adopt(folder, tmp_path / "ours")
    assert caught.value.fix == "Install it with: pip install sentencepiece"


@pytest.mark.parametrize(
    ("name", "start"), [("chatml", "<|im_start|>user\n<image>Hi"), ("llama3", "<|begin_of_text|>")]
)
def test_another_chat_template_can_be_asked_for(make_vila: MakeVila, tmp_path: Path, name: str, start: str) -> None:
    folder, _ = make_vila()
    adoption = adopt(folder, tmp_path / "ours", chat_template=name)
    assert adoption.chat_template == f"{name}, as asked for"
    _, processor = load_checkpoint(tmp_path / "ours")
    assert processor.prompts.encode([user("Hi", images=1)], [16]).text.startswith(start)


def test_the_dtype_of_the_source_is_kept(make_vila: MakeVila, tmp_path: Path) -> None:
    folder, parts = make_vila(dtype=torch.bfloat16)
    adopt(folder, tmp_path / "ours")
    ours, _ = load_checkpoint(tmp_path / "ours")
    auto, _ = load_checkpoint(tmp_path / "ours", dtype="auto")
    assert {value.dtype for value in auto.parameters()} == {torch.bfloat16}
    assert torch.equal(ours.multi_modal_projector.linear_2.weight, parts["projector"]["layers"]["4"].weight.float())


def test_every_weight_is_accounted_for(make_vila: MakeVila, tmp_path: Path) -> None:
    folder, _ = make_vila()
    events = list(import_checkpoint(folder, tmp_path / "ours"))
    seen = [(event.done, event.total) for event in events if isinstance(event, Progress)]
    assert seen == [(index, len(seen)) for index in range(1, len(seen) + 1)]
    ours, _ = load_checkpoint(tmp_path / "ours")
    assert len(seen) == len(list(ours.parameters()))


def write_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def remove_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "mm_projector" / "model.safetensors")
    del weights["layers.4.bias"]
    weights["layers.9.weight"] = torch.zeros(2)
    save_file(weights, folder / "mm_projector" / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: write_json(f / "config.json", s2=True), "several scales"),
        (
            lambda f: write_json(f / "config.json", mm_vision_select_feature="patch"),
            "mm_vision_select_feature is 'patch'",
        ),
        (
            lambda f: write_json(f / "vision_tower" / "config.json", model_type="clip_vision_model"),
            "'clip_vision_model'",
        ),
        (
            lambda f: write_json(f / "mm_projector" / "config.json", mm_projector_type="mlp_downsample_3x3_fix"),
            "3x3_fix",
        ),
        (lambda f: (f / "mm_projector" / "config.json").unlink(), "config.json cannot be read"),
        (lambda f: (f / "mm_projector" / "model.safetensors").unlink(), "has no model.safetensors"),
        (
            lambda f: (f / "mm_projector" / "model.safetensors").rename(f / "mm_projector" / "pytorch_model.bin"),
            "as pytorch_model.bin",
        ),
        (lambda f: (f / "llm" / "model.safetensors").write_bytes(b"x"), "model.safetensors cannot be read"),
        (lambda f: (f / "llm" / "config.json").unlink(), r"llm/config.json cannot be read"),
        (lambda f: write_json(f / "llm" / "config.json", model_type="unheard_of"), "transformers cannot use it"),
        (lambda f: (f / "llm" / "tokenizer.json").write_text("{"), "the tokenizer cannot be read"),
        (remove_layer, r"missing \(1\): multi_modal_projector.linear_2.bias"),
        (lambda f: write_json(f / "config.json", model_type="llava"), "model type is 'llava'"),
        (lambda f: write_json(f / "config.json", model_type="bluelm_v"), "is a BlueLM-V checkpoint already"),
        (lambda f: (f / "config.json").write_text("["), "cannot be read"),
    ],
)
def test_what_cannot_be_taken_over_says_why(
    make_vila: MakeVila, tmp_path: Path, change: Callable[[Path], Any], words: str
) -> None:
    folder, _ = make_vila()
    change(folder)
    with pytest.raises(BluelmError, match=words) as caught:
        adopt(folder, tmp_path / "ours")
    assert all(problem.why and problem.fix for problem in caught.value.problems)
    assert not (tmp_path / "ours").exists()


def test_two_problems_are_reported_together(make_vila: MakeVila, tmp_path: Path) -> None:
    folder, _ = make_vila(s2=True)
    write_json(folder / "mm_projector" / "config.json", mm_projector_type="linear")
    with pytest.raises(BluelmError) as caught:
        adopt(folder, tmp_path / "ours")
    assert len(caught.value.problems) == 2


def test_an_unknown_chat_template_is_refused(make_vila: MakeVila, tmp_path: Path) -> None:
    folder, _ = make_vila()
    with pytest.raises(BluelmError, match="no chat template 'alpaca'"):
        adopt(folder, tmp_path / "ours", chat_template="alpaca")
