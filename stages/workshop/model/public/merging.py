"""A checkpoint of ours whose LoRA adapter was kept apart (`lora.merge: false`) becomes one like any other."""

from __future__ import annotations

from pathlib import Path

import torch

from stages.artifacts.folder import open_artifact
from stages.artifacts.manifest import MANIFEST_FILE, read_manifest
from stages.workshop.model.adapter import ADAPTER_FOLDER, WEIGHTS_FILE, merge_folder
from stages.workshop.model.checkpoint import load_checkpoint, save_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.public.source import PictureSettings, PublicModel, WeightPlace, weights_in

LAYOUT = "BlueLM-V with its LoRA adapter apart"


def is_unmerged(folder: Path) -> bool:
    """Whether this is an artifact of kind `adapter`."""
    return (folder / MANIFEST_FILE).is_file() and read_manifest(folder).kind == "adapter"


def read_unmerged(folder: Path) -> PublicModel:
    """What such a folder says of itself.

    Raises:
        BluelmError: files are missing or damaged.
    """
    open_artifact(folder, "adapter")
    factors = folder / ADAPTER_FOLDER / WEIGHTS_FILE
    return PublicModel(
        layout=LAYOUT,
        config=BlueLMVConfig.from_pretrained(folder, local_files_only=True),
        weights={**weights_in(folder), ADAPTER_FOLDER: WeightPlace(factors, ADAPTER_FOLDER)},
        tokenizer_folder=folder,
        pictures=PictureSettings(),
    )


def merge_checkpoint(folder: Path, out: Path) -> int:
    """Writes the checkpoint with the adapter merged into its language model; returns how many weights it has.

    Raises:
        BluelmError: files are missing, damaged, or do not belong together.
    """
    model, processor = load_checkpoint(folder, torch.float32)
    merge_folder(model, folder / ADAPTER_FOLDER)
    save_checkpoint(model, processor, out)
    return int(model.num_parameters())
