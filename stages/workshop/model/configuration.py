"""The configuration of BlueLM-V: any SigLIP tower, the connector, any Llama-family language model (Sec. 3.1, 3.3)."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig
from transformers.configuration_utils import SubConfigSpec

from stages.artifacts.errors import ModelError

MODEL_TYPE = "bluelm_v"
DOWNSAMPLE = 2
DOWNSAMPLERS = ("mlp_downsample", "none")
TOKEN_ORDERS = ("row", "column")


class BlueLMVConfig(PretrainedConfig):
    """What the model is made of.

    Attributes:
        vision_config: a `SiglipVisionConfig`, or its dictionary.
        text_config: any causal language model's configuration with Llama-style parts, or its dictionary.
        image_token_id: the token that stands for one image token in the prompt.
        downsampler: `mlp_downsample` (VILA's 2×2 block) or `none` (LLaVA's plain MLP).
        token_order: `row` (tokens row by row) or `column` (column by column: how VILA's weights were trained).
        fuse_linear: an extra Linear(4C→C) between the 2×2 concatenation and a plain 2-layer MLP.
        vision_feature_layer: which hidden state of the tower is used: -1 after the last layer, -2 before it, …
        vision_post_layernorm: whether the tower's final LayerNorm is applied to it.
        projector_hidden_act: the connector's activation.
    """

    model_type = MODEL_TYPE
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="siglip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: Any = None
    text_config: Any = None
    image_token_id: int = 0
    downsampler: str = "mlp_downsample"
    token_order: str = "row"
    fuse_linear: bool = False
    vision_feature_layer: int = -1
    vision_post_layernorm: bool = True
    projector_hidden_act: str = "gelu"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        # The language model owns the tie; the outer flag only mirrors it for tools that look there.
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)
        self._check()

    def _check(self) -> None:
        layers = self.vision_config.num_hidden_layers
        if self.downsampler not in DOWNSAMPLERS:
            raise ModelError(
                f"config.json: downsampler is {self.downsampler!r}.",
                "The connector knows two: mlp_downsample (2×2 patches become one token) and none.",
                "Set downsampler to mlp_downsample or none.",
            )
        if self.token_order not in TOKEN_ORDERS or (self.token_order == "column" and self.downsampler == "none"):
            raise ModelError(
                f"config.json: token_order is {self.token_order!r} with the downsampler {self.downsampler!r}.",
                "Tokens leave the 2×2 downsampler row by row, or column by column as in VILA's weights.",
                "Set token_order to row, or to column together with mlp_downsample.",
            )
        if not -layers - 1 <= self.vision_feature_layer <= -1:
            raise ModelError(
                f"config.json: vision_feature_layer is {self.vision_feature_layer}, the tower has {layers} layers.",
                "It counts from the end: -1 is after the last layer.",
                f"Choose a value between {-layers - 1} and -1.",
            )

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a tile (27 for so400m/14-384)."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        return int(self.vision_config.image_size)

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens the language model sees per tile (27×27 patches → 14×14 = 196)."""
        side = self.patches_per_side
        if self.downsampler == "mlp_downsample":
            side = -(-side // DOWNSAMPLE)
        return side * side

    @property
    def vision_layers_used(self) -> int:
        """Encoder layers whose output reaches the connector; later ones are never run."""
        return self.vision_config.num_hidden_layers + 1 + self.vision_feature_layer
