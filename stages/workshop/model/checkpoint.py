"""Checkpoint folders: plain transformers folders of our model type, safetensors only, every weight accounted for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.artifacts.plain_json import parse_json
from stages.workshop.model.configuration import MODEL_TYPE
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.registry import register

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_NAMED_KEYS = 4
# What transformers remembers of how a tokenizer was read, and would write into the next checkpoint.
_LOADING_NOTES = ("is_local", "local_files_only")


def save_checkpoint(
    model: BlueLMVForConditionalGeneration,
    processor: BlueLMVProcessor,
    folder: Path,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes model and processor as one transformers folder.

    Args:
        model: the model.
        processor: its tokenizer and picture settings.
        folder: where they go.
        weights: whole weights of a model that only holds a share of them; None takes its own.
    """
    register()
    if weights is not None:
        # Gathered weights are copies, in which the library does not see that a tied head is the embedding.
        tied = model.all_tied_weights_keys
        weights = {name: weight for name, weight in weights.items() if name not in tied}
    with quiet():
        model.save_pretrained(folder, state_dict=weights)
        processor.save_pretrained(folder)


def load_checkpoint(
    folder: Path, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu"
) -> tuple[BlueLMVForConditionalGeneration, BlueLMVProcessor]:
    """Reads a checkpoint, or a quantized folder, which transformers opens through compressed-tensors.

    Args:
        folder: a folder `save_checkpoint` wrote (or transformers' `save_pretrained`).
        dtype: of the weights in memory; `auto` keeps the file's.
        device: where the model goes.

    Raises:
        ModelError: the folder is no checkpoint of this model, holds pickles instead of safetensors, or its weights are
            missing, too many, of the wrong shape, or damaged.
    """
    return load_model(folder, dtype, device), load_processor(folder)


def load_model(
    folder: Path, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu"
) -> BlueLMVForConditionalGeneration:
    """The model of a checkpoint; arguments and errors as `load_checkpoint`."""
    register()
    raise_all(list(_folder_problems(folder)))
    with quiet():
        try:
            model, info = BlueLMVForConditionalGeneration.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{folder}: the model cannot be read: {_first_line(error)}",
                "A damaged or half-copied file would give a model that answers nonsense.",
                "Copy the folder again, or make the checkpoint again.",
            ) from error
    raise_all(list(weight_problems(folder, info)))
    model.eval()
    return model.to(device)


def load_processor(folder: Path) -> BlueLMVProcessor:
    """The processor of a checkpoint.

    Raises:
        ModelError: its files are missing or damaged.
    """
    register()
    with quiet():
        try:
            processor = BlueLMVProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ModelError(
                f"{folder}: the processor cannot be read: {_first_line(error)}",
                "Tokenizer, chat template and picture settings belong to the model.",
                "Copy tokenizer.json, tokenizer_config.json, chat_template.jinja and processor_config.json again.",
            ) from error
    for note in _LOADING_NOTES:
        processor.tokenizer.init_kwargs.pop(note, None)
    return processor


def _folder_problems(folder: Path) -> Iterator[BluelmError]:
    if not folder.is_dir():
        yield ModelError(
            f"{folder} is no folder.",
            "A checkpoint is a folder with config.json and model.safetensors.",
            "Make one with bluelm pretrain, or take over a public model with bluelm adopt.",
        )
        return
    model_type = _model_type(folder)
    if model_type != MODEL_TYPE:
        yield ModelError(
            f"{folder / CONFIG_FILE}: the model type is {model_type!r}, not {MODEL_TYPE!r}."
            if model_type
            else f"{folder} has no {CONFIG_FILE} that names a model type.",
            "Only BlueLM-V checkpoints can be opened here.",
            f"Take over a VILA-1.5 or LLaVA-OneVision folder with: bluelm adopt {folder} --out CHECKPOINT",
        )
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        yield ModelError(
            f"{folder} has no model.safetensors" + (f", only {', '.join(pickles)}." if pickles else "."),
            "Pickles can run any code when they are opened, so they never are."
            if pickles
            else "Without weights there is no model.",
            "Save the model again with safe_serialization, which transformers does by default."
            if pickles
            else "Copy the whole folder, or make the checkpoint again.",
        )


def _model_type(folder: Path) -> str | None:
    try:
        config = parse_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config.get("model_type") if isinstance(config, dict) else None


def weight_problems(folder: Path, info: dict[str, Any]) -> Iterator[BluelmError]:
    """What keeps loaded weights from being the model's: missing, unexpected or of another shape (`loading_info`)."""
    remedy = "Use the config.json that belongs to these weights, or make the checkpoint again."
    if missing := info["missing_keys"]:
        yield ModelError(
            f"{folder}: weights are missing ({len(missing)}): {_some(missing)}.",
            "They would be random numbers.",
            remedy,
        )
    if unexpected := info["unexpected_keys"]:
        yield ModelError(
            f"{folder}: weights have no place in the model ({len(unexpected)}): {_some(unexpected)}.",
            "The configuration describes another model than the weights.",
            remedy,
        )
    if mismatched := info["mismatched_keys"]:
        shapes = [
            f"{key} is {list(found)}, the model needs {list(wanted)}" for key, found, wanted in sorted(mismatched)
        ]
        yield ModelError(
            f"{folder}: weights have another shape ({len(mismatched)}): {_some(shapes)}.",
            "They would be replaced by random numbers.",
            remedy,
        )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _NAMED_KEYS
    return ", ".join(ordered[:_NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' own progress bars and load reports off the terminal: errors say the same in our words."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
