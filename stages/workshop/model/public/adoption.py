"""A public checkpoint becomes ours: weights renamed, tokenizer and picture settings kept, nothing trained."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from stages.artifacts.errors import ModelError, raise_all
from stages.artifacts.events import Events, Finished, Progress
from stages.device.imaging.presets import ImagingPreset
from stages.device.imaging.spec import TilingSpec
from stages.workshop.model.checkpoint import quiet, save_checkpoint, weight_problems
from stages.workshop.model.configuration import MODEL_TYPE
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.public.chat_templates import choose_template
from stages.workshop.model.public.llava_onevision import is_llava_onevision, read_llava_onevision
from stages.workshop.model.public.merging import is_unmerged, merge_checkpoint, read_unmerged
from stages.workshop.model.public.source import PublicModel, WeightPlace, read_json, read_shapes, read_tensors
from stages.workshop.model.public.tokenizers import add_image_token, read_tokenizer
from stages.workshop.model.public.vila import is_vila, read_vila
from stages.workshop.model.tokenizer import IMAGE_TOKEN

LAYOUTS = "VILA-1.5 (config.json, llm/, vision_tower/, mm_projector/) and LLaVA-OneVision (transformers' own folder)"


@dataclass(frozen=True)
class Adoption:
    """What was made of a public checkpoint.

    Attributes:
        layout: what it was.
        parameters: how many weights the model has.
        tokens_per_tile: image tokens of one tile.
        chat_template: where the chat template comes from.
        notes: what was left out.
    """

    layout: str
    parameters: int
    tokens_per_tile: int
    chat_template: str
    notes: tuple[str, ...]


def read_public_model(folder: Path) -> PublicModel:
    """Recognizes the layout of a public checkpoint and reads everything but the weights.

    Raises:
        ModelError: no layout we know, a variant that computes something else, or broken files.
    """
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is no folder.", f"Known layouts: {LAYOUTS}.", "Download the model and name its folder."
        )
    if is_unmerged(folder):
        return read_unmerged(folder)
    config = read_json(folder / "config.json")
    if is_vila(folder, config):
        return read_vila(folder)
    if is_llava_onevision(config):
        return read_llava_onevision(folder)
    model_type = config.get("model_type")
    if model_type == MODEL_TYPE:
        raise ModelError(
            f"{folder} is a BlueLM-V checkpoint already.",
            "There is nothing to take over.",
            f"Use it as it is: {folder}",
        )
    raise ModelError(
        f"{folder / 'config.json'}: the model type is {model_type!r}, in no layout known here.",
        f"Known layouts: {LAYOUTS}.",
        "Use such a checkpoint, with all its sub-folders.",
    )


def import_checkpoint(
    source: Path,
    out: Path,
    *,
    max_cols: int = 4,
    max_rows: int = 4,
    chat_template: str | None = None,
) -> Events[Adoption]:
    """Writes a public checkpoint as one of ours, telling how many weights it has read.

    Args:
        source: the downloaded folder; or a checkpoint of ours with its LoRA adapter apart, which is merged.
        out: an existing or new folder for the checkpoint.
        max_cols: the widest grid of tiles the processor will choose.
        max_rows: the highest.
        chat_template: one of `chat_templates.NAMES`, or None to choose by the model.

    Raises:
        ModelError: as `read_public_model`, or weights that do not fit the model.
        UsageError: an unknown chat template.
    """
    public = read_public_model(source)
    if is_unmerged(source):
        count = merge_checkpoint(source, out)
        yield Finished(Adoption(public.layout, count, public.config.tokens_per_tile, "its own", ()))
        return
    tokenizer = read_tokenizer(public.tokenizer_folder)
    add_image_token(tokenizer)
    public.config.image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    template = choose_template(tokenizer, public.chat_templates, IMAGE_TOKEN, chat_template)
    tokenizer.chat_template = template.source
    model = yield from _load(public, source)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        with quiet():
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.generation_config = _generation(public, tokenizer)
    processor = BlueLMVProcessor(_image_processor(public, max_cols, max_rows), tokenizer, template.source)
    save_checkpoint(model, processor, out)
    yield Finished(
        Adoption(
            layout=public.layout,
            parameters=model.num_parameters(),
            tokens_per_tile=public.config.tokens_per_tile,
            chat_template=template.origin,
            notes=public.notes,
        )
    )


def _load(public: PublicModel, source: Path) -> Generator[Progress, None, BlueLMVForConditionalGeneration]:
    with torch.device("meta"):
        model = BlueLMVForConditionalGeneration(public.config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys)
    raise_all(list(weight_problems(source, _difference(public.weights, expected, tied))))
    state: dict[str, torch.Tensor] = {}
    for done, (name, tensor) in enumerate(read_tensors(public.weights), start=1):
        state[name] = tensor
        yield Progress("weights", done, len(public.weights))
    dtype = state[_embedding_name(model)].dtype
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    return model.to(dtype)


def _difference(
    weights: Mapping[str, WeightPlace], expected: Mapping[str, tuple[int, ...]], tied: set[str]
) -> dict[str, Any]:
    there = read_shapes({name: place for name, place in weights.items() if name in expected})
    mismatched = [(name, shape, expected[name]) for name, shape in there.items() if shape != expected[name]]
    return {
        "missing_keys": expected.keys() - weights.keys() - tied,
        "unexpected_keys": weights.keys() - expected.keys(),
        "mismatched_keys": mismatched,
    }


def _embedding_name(model: BlueLMVForConditionalGeneration) -> str:
    embedding = model.get_input_embeddings().weight
    return next(name for name, value in model.named_parameters() if value is embedding)


def _image_processor(public: PublicModel, max_cols: int, max_rows: int) -> BlueLMVImageProcessor:
    config, pictures = public.config, public.pictures
    spec = TilingSpec(
        tile_size=config.tile_size, tokens_per_tile=config.tokens_per_tile, max_cols=max_cols, max_rows=max_rows
    )
    preset = ImagingPreset(spec, config.vision_config.patch_size, pictures.mean, pictures.std, pictures.resample)
    return BlueLMVImageProcessor.from_preset(preset)


def _generation(public: PublicModel, tokenizer: Any) -> GenerationConfig:
    """The source's own stop tokens; greedy, and never an image token."""
    eos = public.generation.get("eos_token_id")
    stops = [eos] if isinstance(eos, int) else list(eos or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in stops:
        stops.append(tokenizer.eos_token_id)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (stops or [None])[0]
    return GenerationConfig(
        bos_token_id=public.generation.get("bos_token_id", tokenizer.bos_token_id),
        eos_token_id=stops or None,
        pad_token_id=pad,
        suppress_tokens=[public.config.image_token_id],
    )
