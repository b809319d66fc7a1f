"""What the recipe of a vision tower says that learns to read: its shape, the pages it sees, how it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from stages.artifacts.errors import BluelmError, RecipeError
from stages.artifacts.recipes import RecipeModel
from stages.workshop.corpus.rendering.faces import find_faces
from stages.workshop.corpus.rendering.glyph_page import GlyphLook
from stages.workshop.corpus.rendering.glyph_text import alphabet
from stages.workshop.corpus.rendering.scripts import SCRIPTS
from stages.workshop.training.recipe import LearningRecipe, Trained

Width = Annotated[int, Field(ge=16, le=4096)]


class TowerShape(RecipeModel):
    """A SigLIP vision tower."""

    tile_size: int = Field(ge=16, le=1024, description="side of a tile, in pixels")
    patch_size: int = Field(ge=2, le=64, description="side of a patch, in pixels")
    layers: int = Field(ge=1, le=64, description="encoder layers")
    width: Width = Field(description="numbers per patch")
    mlp: Width = Field(description="width of the feed-forward part")
    heads: int = Field(ge=1, le=64, description="attention heads")

    def as_siglip(self) -> dict[str, Any]:
        """The same as keywords of transformers' `SiglipVisionConfig`."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "image_size": self.tile_size,
            "patch_size": self.patch_size,
            "vision_use_head": False,
        }


class TowerRecipe(LearningRecipe):
    """A tower learns to say, for each patch, which characters stand there."""

    trained: tuple[Trained, ...] = Field(
        default=(Trained(parameters="*"),), description="what is trained; parameters in no line are frozen"
    )
    tower: TowerShape = Field(description="its shape")
    slots: int = Field(default=3, ge=1, le=8, description="most characters that a patch is asked for")
    least_text: float = Field(default=9.0, ge=4, le=512, description="least height of printed text, in pixels")
    most_text: float = Field(default=36.0, ge=4, le=512, description="greatest height of printed text, in pixels")
    scripts: tuple[str, ...] = Field(default=("latin",), description="scripts that it reads; latin is among them")
    fonts: tuple[str, ...] = Field(default=(), description="folders with fonts")
    train_fonts: tuple[str, ...] = Field(description="names of the fonts of training pages", min_length=1)
    heldout_fonts: tuple[str, ...] = Field(description="names of the fonts of held-out pages", min_length=1)
    heldout: int = Field(default=512, ge=1, description="held-out pages: other texts in other fonts")

    def _other_problems(self) -> Iterator[BluelmError]:
        shape = self.tower
        if shape.tile_size % shape.patch_size:
            what = f"tower: tile_size {shape.tile_size} is not a multiple of patch_size {shape.patch_size}."
            yield RecipeError(what, "Patches at the edge would be cut.", "Choose another side of one of them.")
        if shape.width % shape.heads:
            what = f"tower: width {shape.width} is not a multiple of heads {shape.heads}."
            yield RecipeError(what, "Every head has the same width.", "Choose another number of heads.")
        if self.least_text > self.most_text:
            what = f"least_text is {self.least_text}, most_text {self.most_text}."
            yield RecipeError(what, "No text is both.", "Exchange them.")
        for name in self.scripts:
            if name not in SCRIPTS:
                yield RecipeError(f"There is no script {name!r}.", "It cannot be read.", f"Scripts: {SCRIPTS}.")
        if "latin" not in self.scripts:
            yield RecipeError("scripts lacks latin.", "Figures and most pages are in it.", "Add latin.")
        both = sorted(set(self.train_fonts) & set(self.heldout_fonts))
        if both:
            what = f"{', '.join(both)}: in train_fonts and in heldout_fonts."
            yield RecipeError(what, "A font that was learned from is not held out.", "Remove it from one of them.")

    def look(self, families: tuple[str, ...]) -> GlyphLook:
        """How pages in some families of fonts look.

        Raises:
            RecipeError: a family is not in the folders.
        """
        return GlyphLook(
            side=self.tower.tile_size,
            patch=self.tower.patch_size,
            slots=self.slots,
            heights=(self.least_text, self.most_text),
            families=find_faces(self.fonts, families, self.scripts),
            alphabet=alphabet(self.scripts),
        )
