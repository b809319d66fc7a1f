"""The section of a recipe that says which pictures are degraded, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from stages.artifacts.errors import BluelmError, RecipeError
from stages.artifacts.recipes import RecipeModel
from stages.workshop.corpus.rendering.degradations import DEGRADATIONS, Degradation

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class DegradationShare(RecipeModel):
    """Pictures that one kind of degradation befalls."""

    kind: str = Field(description="one of " + ", ".join(DEGRADATIONS))
    probability: Share = Field(description="share of the pictures that have it")
    strength: Share = Field(default=1.0, description="greatest amount; 1 is as bad as a reader can still read")

    @property
    def degradation(self) -> Degradation:
        """The same as pictures take it."""
        return Degradation(self.kind, self.probability, self.strength)


def problems_of(shares: Sequence[DegradationShare]) -> list[BluelmError]:
    """What is wrong with a section: kinds that are unknown or stand twice."""
    problems: list[BluelmError] = []
    kinds = [share.kind for share in shares]
    for index, kind in enumerate(kinds):
        if kind not in DEGRADATIONS:
            fix = "Kinds: " + ", ".join(DEGRADATIONS) + "."
            problems.append(RecipeError(f"There is no degradation {kind!r}.", "It cannot be applied.", fix))
        elif kind in kinds[:index]:
            what = f"The degradation {kind!r} stands twice."
            problems.append(RecipeError(what, "A picture has each kind at most once.", "Remove one."))
    return problems
