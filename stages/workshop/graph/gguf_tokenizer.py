"""tokenizer.json as GGUF holds it: tokens, their kinds, merges or scores, and which of llama.cpp's splitters is ours.

llama.cpp splits text by one of its built-in rules before it merges, and knows each by a name. A tokenizer whose rule is
none of them cannot be expressed: its file would load and read text otherwise than the model has learned.
Source: llama.cpp's llama-vocab.cpp (pre-tokenizers by name), gguf's constants (token types).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.artifacts.errors import ModelError
from stages.workshop.graph.json_file import read_json

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# A splitter as `_rule` writes it, and llama.cpp's name for it.
RULES: dict[tuple[str, ...], str] = {
    ("bytes by words",): "gpt-2",
    ("digits apart", "bytes by words"): "smollm",
    (_QWEN2, "bytes"): "qwen2",
    (_QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"), "bytes"): "llama-bpe",
}
_SPLITTERS = "GPT-2's, SmolLM's (which bluelm's own tokenizers have), Qwen2's and Llama 3's, and SentencePiece BPE"


@dataclass(frozen=True)
class GgufTokenizer:
    """What `tokenizer.ggml.*` holds.

    Attributes:
        model: `gpt2` for byte-level BPE, `llama` for SentencePiece BPE.
        pre: llama.cpp's name of the splitter.
        tokens: by id; filled up to the model's vocabulary.
        kinds: token types.
        merges: of byte-level BPE.
        scores: of SentencePiece BPE.
        bos: begins every text where the tokenizer puts it there itself; None where it does not.
        space_prefix: a space is put before the text.
    """

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    bos: int | None
    space_prefix: bool


def read_tokenizer(folder: Path, vocabulary: int) -> GgufTokenizer:
    """Reads a checkpoint's tokenizer.json.

    Args:
        folder: the checkpoint.
        vocabulary: rows of the model's embedding.

    Raises:
        ModelError: llama.cpp has no tokenizer that reads text so, or there are more tokens than rows.
    """
    path = folder / "tokenizer.json"
    values = read_json(path)
    model, added = values["model"], values.get("added_tokens") or []
    if model.get("type") != "BPE":
        raise _not_expressible(path, f"its model is {model.get('type')}")
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    names = {index: token for token, index in model["vocab"].items()} | {one["id"]: one["content"] for one in added}
    if max(names) >= vocabulary:
        raise ModelError(
            f"{path} has the token {max(names)}, the model has {vocabulary} rows.",
            "Tokenizer and model do not belong together.",
            "Copy the tokenizer that the model was trained with.",
        )
    pieces = bool(model.get("byte_fallback"))
    pre = "default" if pieces else _pre(path, values)
    return GgufTokenizer(
        model="llama" if pieces else "gpt2",
        pre=pre,
        tokens=[names.get(index, f"[PAD{index}]") for index in range(vocabulary)],
        kinds=_kinds(names, added, vocabulary, model.get("unk_token") if pieces else None, pieces=pieces),
        merges=[] if pieces else [" ".join(merge) for merge in merges],
        scores=_scores(names, merges, vocabulary) if pieces else [],
        bos=_first_token(values),
        space_prefix=pieces and _prepends(values),
    )


def _pre(path: Path, values: Mapping[str, Any]) -> str:
    """llama.cpp's name of a byte-level tokenizer's splitter."""
    rule = tuple(_rule(part) for part in _parts(values.get("pre_tokenizer"), "pretokenizers"))
    name = RULES.get(rule)
    kinds = {part.get("type") for part in _parts(values.get("normalizer"), "normalizers")}
    if name is None:
        raise _not_expressible(path, "it splits text by a rule of its own")
    # llama.cpp composes no characters; Qwen2's converters leave that out as well.
    if kinds - ({"NFC"} if name == "qwen2" else set()):
        raise _not_expressible(path, f"it changes text first ({', '.join(sorted(map(str, kinds)))})")
    if bool(values["model"].get("ignore_merges")) != (name == "llama-bpe"):
        raise _not_expressible(path, "whether whole words come before merges is not as llama.cpp has it")
    return name


def _rule(part: Mapping[str, Any]) -> str:
    match part.get("type"):
        case "ByteLevel" if not part.get("add_prefix_space"):
            return "bytes by words" if part.get("use_regex", True) else "bytes"
        case "Digits" if part.get("individual_digits"):
            return "digits apart"
        case "Split" if part.get("behavior") == "Isolated" and not part.get("invert"):
            return str(part["pattern"].get("Regex"))
        case _:
            return "?"


def _parts(value: Any, key: str) -> Sequence[Mapping[str, Any]]:
    """The steps of a normalizer or splitter: none, one, or a sequence of them."""
    if not value:
        return []
    return value[key] if value.get("type") == "Sequence" else [value]


def _kinds(
    names: Mapping[int, str], added: Sequence[Mapping[str, Any]], vocabulary: int, unknown: str | None, *, pieces: bool
) -> list[int]:
    special = {one["id"]: CONTROL if one.get("special") else USER_DEFINED for one in added}

    def kind(index: int) -> int:
        token = names.get(index)
        if token is None:
            return UNUSED
        if token == unknown:
            return UNKNOWN
        if pieces and len(token) == 6 and token.startswith("<0x"):
            return BYTE
        return special.get(index, NORMAL)

    return [kind(index) for index in range(vocabulary)]


def _scores(names: Mapping[int, str], merges: Sequence[Sequence[str]], vocabulary: int) -> list[float]:
    """SentencePiece merges the pair whose token scores best: the earlier a merge was learned, the better."""
    order: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        order.setdefault("".join(merge), rank)
    return [-float(order.get(names.get(index, ""), len(merges))) for index in range(vocabulary)]


def _prepends(values: Mapping[str, Any]) -> bool:
    steps = [*_parts(values.get("normalizer"), "normalizers"), *_parts(values.get("pre_tokenizer"), "pretokenizers")]
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _first_token(values: Mapping[str, Any]) -> int | None:
    """The token that the tokenizer itself puts before every text."""
    for step in _parts(values.get("post_processor"), "processors"):
        if step.get("type") != "TemplateProcessing":
            continue
        first = step["single"][0] if step.get("single") else {}
        if "SpecialToken" in first:
            return int(step["special_tokens"][first["SpecialToken"]["id"]]["ids"][0])
    return None


def _not_expressible(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path}: llama.cpp has no such tokenizer: {what}.",
        "A GGUF file with another one would load, and read text otherwise than the model has learned.",
        f"llama.cpp knows {_SPLITTERS}; run this model with bluelm chat, or its text.onnx with onnxruntime-genai.",
    )
