"""What is estimated: a shape, how it is quantized, and what is asked of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.artifacts.recipes import RecipeModel

Count = Annotated[int, Field(ge=1)]
Policy = Literal["paper", "mix", "int8", "float"]
Bits = Literal[4, 8, 16, 32]


class Case(RecipeModel):
    """One configuration.

    Attributes:
        preset: shape of the model; None where an artifact gives it.
        layers, vision_layers: so many instead of all.
        policy: what the inputs of quantized products are rounded to: `paper` INT16, `mix` INT16 before down_proj and
            INT8 elsewhere, `int8`, or `float`.
        kv: what the KV cache holds.
        weight_bits, block: of the language model, one scale for each block of inputs.
        vision_weight_bits: of tower and connector.
        tiles: of all pictures together, thumbnails included.
        tiles_per_batch: tiles a call of the tower takes.
        prompt_tokens: tokens to read, the pictures' included.
        chunk: tokens a call takes.
        generate: tokens to write.
        free_vision: free the tower after encoding (Sec. 3.4).
    """

    preset: str | None = None
    layers: Count | None = None
    vision_layers: Count | None = None
    policy: Policy = "mix"
    kv: Literal["int8", "float16", "float32"] = "int8"
    weight_bits: Bits = 4
    block: Count = 128
    vision_weight_bits: Bits = 8
    tiles: int = Field(default=9, ge=0)
    tiles_per_batch: Count = 1
    prompt_tokens: Count = 2048
    chunk: Count = 256
    generate: int = Field(default=64, ge=0)
    free_vision: bool = True

    @property
    def label(self) -> str:
        """The configuration in one line of a table."""
        depth = f"{self.layers or 'all'}+{self.vision_layers or 'all'} layers"
        vision = f"{self.tiles} tiles by {self.tiles_per_batch}" + ("" if self.free_vision else ", ViT kept")
        return f"{depth}, {self.policy}, {self.kv} KV, {vision}, {self.prompt_tokens} by {self.chunk}"
