"""What a language model's tokenizer learns about conversations, by family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, processors
from transformers import PreTrainedTokenizerFast

from stages.artifacts.errors import ModelError
from stages.device.prompt.encoder import PromptEncoder
from stages.device.prompt.messages import assistant, user
from stages.device.prompt.template import ChatTemplate
from stages.workshop.model.public.tokenizers import read_tokenizer, teach_chat
from stages.workshop.model.tokenizer import IM_END, IM_START, train_tokenizer


def plain(*tokens: str, bos: str | None = None, **fields: Any) -> PreTrainedTokenizerFast:
    """Bytes, and these special tokens; with `bos` in front of every text where it is given."""
    backend = train_tokenizer(["hello"], 262).backend_tokenizer
    content = json.loads(backend.to_str())
    for word in (IM_START, IM_END, "<image>"):
        del content["model"]["vocab"][word]
    content["added_tokens"] = content["added_tokens"][:1]
    content["model"]["vocab"] = {word: number for number, word in enumerate(content["model"]["vocab"])}
    fresh = type(backend).from_str(json.dumps(content))
    fresh.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    if bos is not None:
        fresh.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=None, special_tokens=[(bos, fresh.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=fresh, bos_token=bos, **fields)


def conversation(tokenizer: PreTrainedTokenizerFast) -> tuple[str, str]:
    """A prompt with one picture, and the part of it that is learned."""
    encoder = PromptEncoder(tokenizer.backend_tokenizer, ChatTemplate(tokenizer.chat_template))
    prompt = encoder.encode([user("hi", images=1), assistant("yo")], [2])
    answer = [token for token, said in zip(prompt.ids, prompt.is_answer, strict=True) if said]
    assert tokenizer.pad_token_id not in prompt.ids
    assert prompt.ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 2
    return prompt.text, tokenizer.decode(answer)


def test_chatml_is_taught_where_nothing_is_known() -> None:
    tokenizer = plain("</s>", eos_token="</s>")
    teach_chat(tokenizer)
    text, learned = conversation(tokenizer)
    assert text.startswith(f"{IM_START}user\n<image>")
    assert learned == f"yo{IM_END}"
    assert (tokenizer.eos_token, tokenizer.pad_token) == (IM_END, "</s>")


def test_a_model_that_always_begins_with_s_goes_on_to() -> None:
    tokenizer = plain("<s>", "</s>", bos="<s>", eos_token="</s>")
    teach_chat(tokenizer)
    text, _ = conversation(tokenizer)
    assert text.startswith(f"<s>{IM_START}user\n")
    # Known, but never put in front of a text: SmolLM's <|im_start|>.
    tokenizer = plain(IM_START, IM_END, eos_token=IM_END)
    tokenizer.bos_token = IM_START
    teach_chat(tokenizer)
    assert conversation(tokenizer)[0].startswith(f"{IM_START}user\n")


def test_llama_3_keeps_its_own_tokens() -> None:
    headers = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
    tokenizer = plain(*headers, bos="<|begin_of_text|>", eos_token="<|end_of_text|>")
    before = len(tokenizer)
    teach_chat(tokenizer)
    text, learned = conversation(tokenizer)
    assert len(tokenizer) == before + 1
    assert text.count("<|begin_of_text|>") == 1
    assert learned == "yo<|eot_id|>"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|eot_id|>", "<|end_of_text|>")


def test_vicuna_ends_answers_with_the_models_own_end() -> None:
    tokenizer = plain("<s>", bos="<s>", eos_token="<|endoftext|>")
    teach_chat(tokenizer, "vicuna")
    text, learned = conversation(tokenizer)
    assert text.startswith("<s> A chat between")
    assert learned == " yo<|endoftext|>"
    # Neither of its two tokens may be the padding: both are in every prompt.
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|pad|>")


@pytest.mark.parametrize(
    ("own", "expected"),
    [("<|end|>", "<|end|>"), (IM_END, "<|endoftext|>"), (None, "<|endoftext|>"), (IM_START, "<|endoftext|>")],
)
def test_padding_is_no_word_of_a_prompt(own: str | None, expected: str) -> None:
    tokenizer = plain(IM_START, IM_END, "<|end|>", eos_token="<|endoftext|>", pad_token=own)
    teach_chat(tokenizer)
    assert tokenizer.pad_token == expected
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_special_tokens_stay_special_and_keep_their_ids() -> None:
    tokenizer = plain(IM_START, IM_END, "<|tool|>", eos_token=IM_END, extra_special_tokens=["<|tool|>"])
    before = tokenizer.get_vocab()
    teach_chat(tokenizer)
    after = tokenizer.get_vocab()
    assert before.items() <= after.items()
    assert set(after) - set(before) == {"<image>"}
    assert "<|tool|>" in tokenizer.all_special_tokens
    assert tokenizer.tokenize("a<|tool|>b") == ["a", "<|tool|>", "b"]


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="the tokenizer"):
        read_tokenizer(tmp_path)
