"""What the vision graphs need to know about the SigLIP tower and the connector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import ModelError, raise_all

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

# ONNX's name of each activation that transformers knows under this one.
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu": ("Gelu", {}),
    "quick_gelu": ("QuickGelu", {"alpha": 1.702}),
    "relu": ("Relu", {}),
}


@dataclass(frozen=True)
class VisionShape:
    """Tower and connector: sizes of tiles, patches and layers."""

    tile_size: int
    patch_size: int
    side: int
    width: int
    mlp: int
    heads: int
    layers: int
    epsilon: float
    activation: str
    post_layernorm: bool
    downsample: int
    rows_first: bool
    fuse_linear: bool
    connector_activation: str
    hidden: int

    @property
    def patches(self) -> int:
        """Patches per tile."""
        return self.side * self.side

    @property
    def token_side(self) -> int:
        """Image tokens along one side of a tile; an odd rest counts as one."""
        return -(-self.side // self.downsample)

    @property
    def tokens(self) -> int:
        """Image tokens per tile."""
        return self.token_side * self.token_side

    @property
    def joined(self) -> int:
        """Channels of the patches that become one token."""
        return self.downsample * self.downsample * self.width

    @property
    def parameters(self) -> int:
        """Weights of the tower's used layers and the connector, to within its norms and biases."""
        layer = 4 * self.width * self.width + 2 * self.width * self.mlp
        embeddings = self.width * (3 * self.patch_size**2 + self.patches)
        fused = self.joined * self.width if self.fuse_linear else 0
        first = (self.width if self.fuse_linear else self.joined) * self.hidden
        return self.layers * layer + embeddings + fused + first + self.hidden * self.hidden


def vision_shape(config: BlueLMVConfig) -> VisionShape:
    """Reads the model's configuration.

    Raises:
        ModelError: another tower than SigLIP, or an activation without an ONNX operator.
    """
    from stages.workshop.model.configuration import DOWNSAMPLE

    tower = config.vision_config
    problems = []
    if tower.model_type != "siglip_vision_model":
        problems.append(_problem("vision_config.model_type", tower.model_type, "siglip_vision_model"))
    if tower.hidden_size % tower.num_attention_heads:
        wanted = f"a divisor of the width {tower.hidden_size}"
        problems.append(_problem("vision_config.num_attention_heads", tower.num_attention_heads, wanted))
    for key, value in (
        ("vision_config.hidden_act", tower.hidden_act),
        ("projector_hidden_act", config.projector_hidden_act),
    ):
        if value not in ACTIVATIONS:
            problems.append(_problem(key, value, "one of " + ", ".join(ACTIVATIONS)))
    raise_all(problems)
    downsampled = config.downsampler == "mlp_downsample"
    return VisionShape(
        tile_size=config.tile_size,
        patch_size=int(tower.patch_size),
        side=config.patches_per_side,
        width=int(tower.hidden_size),
        mlp=int(tower.intermediate_size),
        heads=int(tower.num_attention_heads),
        layers=config.vision_layers_used,
        epsilon=float(tower.layer_norm_eps),
        activation=tower.hidden_act,
        post_layernorm=config.vision_post_layernorm,
        downsample=DOWNSAMPLE if downsampled else 1,
        rows_first=config.token_order == "row",
        fuse_linear=downsampled and config.fuse_linear,
        connector_activation=config.projector_hidden_act,
        hidden=int(config.text_config.hidden_size),
    )


def _problem(key: str, value: object, wanted: str) -> ModelError:
    return ModelError(
        f"config.json: {key} is {value!r}.",
        "The vision graph cannot express that.",
        f"Use a model where it is {wanted}.",
    )
