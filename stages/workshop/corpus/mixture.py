"""What a mixture is made of: categories with their shares, and sources of rows in each (Table 1)."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from stages.artifacts.errors import BluelmError, RecipeError, raise_all
from stages.artifacts.recipes import RecipeModel

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class MixtureSource(RecipeModel):
    """One set of rows."""

    path: str | None = Field(default=None, description="a file or folder; ${NAME} stands for an environment variable")
    category: str | None = Field(default=None, description="the category that it counts towards")
    share: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="its part of the category, relative; by its rows if not set",
    )
    format: str | None = Field(default=None, description="its format; seen in its content if not set")
    images: str | None = Field(default=None, description="where its pictures lie, if not beside it")
    split: str = Field(default="train", description="which of its splits")
    most: int | None = Field(default=None, ge=1, description="most rows drawn from it, repetitions counted")
    repeat: float | None = Field(
        default=None, ge=1, allow_inf_nan=False, description="how often a row of it may come at most, on average"
    )

    @property
    def place(self) -> Path | None:
        """Where it lies; None where that is not given, or its variable is not set."""
        return _expanded(self.path)

    @property
    def image_place(self) -> Path | None:
        """Where its pictures lie, if that is given."""
        return _expanded(self.images)


class Heldout(RecipeModel):
    """What is kept apart: drawn anew, so that no picture is on both sides (rows whose pictures would be are left out);
    or the sources' own held-out splits as they are.
    """

    share: float | None = Field(default=None, gt=0, lt=1, description="of all rows")
    rows: int | None = Field(default=None, ge=1, description="at most so many rows, and as near as pictures allow")
    own: bool = Field(default=False, description="the held-out splits of the sources that have one, whole")
    same: Literal["content", "place"] = Field(
        default="content", description="pictures are the same by their bytes (all are read), or by where they lie"
    )

    @model_validator(mode="after")
    def _one(self) -> Heldout:
        if (self.share is not None) + (self.rows is not None) + self.own != 1:
            what = "heldout has more than one of share, rows and own, or none."
            raise RecipeError(what, "One of them says what is kept apart.", "Set one of them.")
        return self


class Mixture(RecipeModel):
    """What is drawn."""

    sources: dict[str, MixtureSource] = Field(min_length=1, description="sets of rows by name")
    categories: dict[str, float] = Field(
        default_factory=dict, description="relative shares; without any, sources stand side by side"
    )
    total: int | Literal["all"] = Field(
        default="all", description="rows to draw; all: every row at least once, more of what has too few for its share"
    )
    repeat: float = Field(
        default=1.0, ge=1, allow_inf_nan=False, description="how often a row may come at most, on average"
    )
    renormalize: bool = Field(
        default=False, description="give the shares of sources without a path to others, of their category first"
    )
    fill: bool = Field(default=False, description="give the places of sources with too few rows to others")
    heldout: Heldout | None = Field(default=None, description="what is kept apart for evaluation")
    seed: int = Field(default=0, ge=0, description="seed of everything drawn")

    @model_validator(mode="after")
    def _fits(self) -> Mixture:
        problems: list[BluelmError] = []
        for name, source in self.sources.items():
            problems += self._category_of(name, source)
        for category, share in self.categories.items():
            if not share > 0:
                what, fix = f"The share of {category} is {share}.", "Shares are above 0; leave the category out."
                problems.append(RecipeError(what, "Nothing could be drawn of it.", fix))
            members = [source for source in self.sources.values() if source.category == category]
            if not members:
                what = f"The category {category} has no source."
                problems.append(RecipeError(what, "Its share cannot be drawn.", "Name one, or leave it out."))
        for group in self.groups.values():
            told = [name for name in group if self.sources[name].share is not None]
            if 0 < len(told) < len(group):
                silent = ", ".join(name for name in group if name not in told)
                what = f"{', '.join(told)} have shares, {silent} beside them have none."
                fix = "Give all of them shares, or none: then their numbers of rows decide."
                problems.append(RecipeError(what, "What the others' part is cannot be told.", fix))
        if isinstance(self.total, int) and self.total < 1:
            problems.append(RecipeError(f"total is {self.total}.", "Nothing is drawn.", "Set a number, or all."))
        raise_all(problems)
        return self

    @property
    def groups(self) -> dict[str | None, list[str]]:
        """Names of sources by category, in the recipe's order; one group None without categories."""
        if not self.categories:
            return {None: list(self.sources)}
        return {
            category: [name for name, source in self.sources.items() if source.category == category]
            for category in self.categories
        }

    @property
    def drawn_apart(self) -> Heldout | None:
        """What is drawn of the sources' rows to be kept apart, if anything is."""
        return None if self.heldout is not None and self.heldout.own else self.heldout

    @property
    def given(self) -> dict[str, MixtureSource]:
        """The sources that have a place."""
        return {name: source for name, source in self.sources.items() if source.place is not None}

    def repeat_of(self, name: str) -> float:
        """How often a row of a source may come."""
        own = self.sources[name].repeat
        return self.repeat if own is None else own

    def _category_of(self, name: str, source: MixtureSource) -> list[BluelmError]:
        if not self.categories or source.category in self.categories:
            return []
        known = ", ".join(self.categories)
        if source.category is not None:
            what = f"{name} is of the category {source.category!r}, which has no share."
            return [RecipeError(what, "How much to draw of it is unknown.", f"Categories: {known}.")]
        others = [other for other, item in self.sources.items() if item.category is not None]
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
        fix = (
            f"Did you mean {near[0]}?"
            if near
            else f"Set sources.{name}.category: {known}. Sources: {', '.join(others)}."
        )
        return [RecipeError(f"The source {name} has no category.", "How much to draw of it is unknown.", fix)]


def _expanded(given: str | None) -> Path | None:
    if given is None or any(not os.environ.get(name) for name in _VARIABLE.findall(given)):
        return None
    return Path(_VARIABLE.sub(lambda found: os.environ[found[1]], given)).expanduser()
