"""FSDP2: every process holds a share of each parameter, of its gradient and of its optimizer state.

torch's own `fully_shard` splits every layer of the tower and of the language model, and what is left with the root; the
library's Trainer then takes the model as one that owns its placement. Accelerate's FSDP is not used: on the CPU it is
silently plain data parallelism, while this is the same code on gloo and on NCCL, so that it can be tested anywhere.
Source: torch.distributed.fsdp.fully_shard; torch.distributed.checkpoint.state_dict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import IGNORED
from stages.workshop.training.batches import Batch

OPTIMIZER_FILE = "optimizer.pt"
# What only pictures run through.
PICTURE_PARTS = ("vision_tower.", "multi_modal_projector.")


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """The layers that are gathered and given up one at a time: the tower's and the language model's."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) and _owns_attention(module[0]):
            yield from module


def _owns_attention(layer: nn.Module) -> bool:
    return any(hasattr(layer, name) for name in ("self_attn", "attn", "attention"))


def shard(model: BlueLMVForConditionalGeneration, device: str, *, bfloat16: bool) -> None:
    """Splits a model over all processes, in place; the parameters become DTensors on the device.

    Args:
        model: float32 weights on the CPU, the same in all processes, which are connected.
        device: cpu or cuda.
        bfloat16: gather weights in bfloat16, half the traffic; gradients are summed in float32 all the same.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bfloat16 else MixedPrecisionPolicy()
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    # How the library's Trainer knows a model that it must neither move nor wrap.
    model._is_distributed_loading_by_transformers = True


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` split this model."""
    return bool(getattr(model, "is_distributed_loading_by_transformers", False))


def with_picture(batch: Batch, config: BlueLMVConfig) -> Batch:
    """A batch without pictures, with a blank one behind all that is learned, so that nothing of it is ever seen.

    The layers of a sharded tower are gathered from all processes: where one of them leaves the tower out, the others
    wait for ever. Causal attention keeps what stands behind from what stands before; the gradients are exact zeros.
    """
    if "tiles" in batch:
        return batch
    tokens, side = config.tokens_per_tile, config.tile_size
    input_ids = batch["input_ids"]  # [B, L]
    rows = len(input_ids)
    slots = torch.full((rows, tokens), config.image_token_id).to(input_ids)
    blank = {
        "input_ids": torch.cat([input_ids, slots], dim=1),  # [B, L + tokens]
        "labels": torch.cat([batch["labels"], torch.full_like(slots, IGNORED)], dim=1),
        "tiles": torch.zeros((rows, 3, side, side), dtype=torch.uint8, device=input_ids.device),
    }
    if "position_ids" in batch:
        positions = torch.arange(tokens).to(input_ids).expand(rows, -1)
        blank["position_ids"] = torch.cat([batch["position_ids"], positions], dim=1)
    segments = {"segments": (*batch["segments"], tokens)} if "segments" in batch else {}
    return {**batch, **blank, **segments}


def stand_still(model: nn.Module) -> None:
    """Takes the gradients of tower and connector away after a step without a picture in any process.

    They are zeros (see `with_picture`), with which momentum and decay would move the weights all the same. Without a
    gradient they stand still, as they do where nothing is sharded.
    """
    for name, parameter in model.named_parameters():
        if name.startswith(PICTURE_PARTS):
            parameter.grad = None


def full_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """All weights whole on the CPU of the first process (empty in the others); every process must call it."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    weights: dict[str, Any] = get_model_state_dict(model, options=_whole())
    return weights


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Puts whole weights, the same in all processes, back into a sharded model; those not named stay."""
    from torch.distributed.checkpoint.state_dict import set_model_state_dict

    set_model_state_dict(model, dict(weights), options=_whole(strict=False))


def save_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, *, writes: bool) -> None:
    """Writes the whole optimizer state, by parameter name; every process must call it, one `writes`."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    state = get_optimizer_state_dict(model, optimizer, options=_whole())
    if writes:
        torch.save(state, folder / OPTIMIZER_FILE)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Reads what `save_optimizer` wrote; every process takes its share."""
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    state: dict[str, Any] = torch.load(folder / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
    set_optimizer_state_dict(model, optimizer, state, options=_whole())


def _whole(strict: bool = True) -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True, strict=strict)
