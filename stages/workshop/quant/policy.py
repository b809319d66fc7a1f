"""Which module gets which weights: ordered patterns, the first match wins (BlueLM-V-3B Sec. 3.4).

Pure data and decisions: no torch, no files. A policy and a list of modules give one scheme per module, or all the
problems at once, before anything is read or written.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stages.artifacts.errors import BluelmError, RecipeError, raise_all
from stages.artifacts.recipes import RecipeModel

Weights = Literal["int4", "int8", "float"]
# How a weight is rounded: to the nearest value, with errors handed on to later columns, or after scaling its inputs.
Method = Literal["rtn", "gptq", "awq"]
Kind = Literal["linear", "head", "tied head", "token embedding", "embedding", "convolution"]
# MatMulNBits of onnxruntime takes powers of two from here on.
SMALLEST_EXPORTED_GROUP = 16


class Scheme(RecipeModel):
    """How a weight [N, K] is stored: int4 in groups of columns, int8 per output row, or float as it is."""

    weights: Weights
    group_size: int | None = None

    @property
    def bits(self) -> int | None:
        """Bits of one value; None for float."""
        return {"int4": 4, "int8": 8, "float": None}[self.weights]

    def scale_count(self, rows: int, columns: int) -> int:
        """Scales of a weight [rows, columns]."""
        return rows * -(-columns // self.group_size) if self.group_size else rows

    def __str__(self) -> str:
        return f"int4 groups of {self.group_size}" if self.group_size else self.weights


FLOAT = Scheme(weights="float")


class ModuleRule(RecipeModel):
    """A line that says something of modules.

    Attributes:
        modules: a glob over full module names (`*` also matches dots), or `re:` and a regular expression that must
            match the whole name.
    """

    modules: str = Field(min_length=1)

    @field_validator("modules")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            compiled(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    def matches(self, name: str) -> bool:
        """Whether a module's full name falls under this rule."""
        return compiled(self.modules).fullmatch(name) is not None


class Rule(ModuleRule):
    """One line of a policy of weights.

    Attributes:
        weights: int4 (in groups along the input columns), int8 (per output row) or float.
        group_size: columns per group; only for int4.
        symmetric: whether 0 is always a value and values need no zero point: the one form the device has.
        tail: a last group may be cut short; only for int4. Other programs then fail to read the folder, and prefill
            does not expand the weight to INT8.
        method: how values are chosen; see `methods/`.
    """

    weights: Weights
    group_size: Annotated[int, Field(ge=2)] | None = None
    symmetric: bool = True
    tail: bool = False
    method: Method = "rtn"

    @model_validator(mode="after")
    def _fits_together(self) -> Rule:
        if self.group_size is not None and self.weights != "int4":
            raise ValueError(f"group_size belongs to int4; {self.weights} has one scale per output row or none")
        if self.tail and self.weights != "int4":
            raise ValueError(f"tail belongs to int4; {self.weights} has no groups")
        if not self.symmetric:
            raise ValueError("symmetric: false needs zero points, which no product on the device has; leave it out")
        if self.method != "rtn" and self.weights == "float":
            raise ValueError(f"method {self.method} rounds weights; float ones stay what they are")
        return self

    @property
    def scheme(self) -> Scheme:
        """The scheme this rule gives."""
        return Scheme(weights=self.weights, group_size=(self.group_size or 32) if self.weights == "int4" else None)


@dataclass(frozen=True)
class WeightedModule:
    """A module with a matrix of weights, rows N × columns K (of a convolution: all inputs of one output)."""

    name: str
    kind: Kind
    rows: int
    columns: int


def assign(rules: Sequence[Rule], modules: Sequence[WeightedModule]) -> dict[str, Scheme]:
    """The scheme of every module: that of the first rule that matches its name, float where none does.

    Raises:
        RecipeError: a rule that no module falls under; a scheme that a module cannot have; all of them together.
    """
    takers = {module.name: _first(rules, module.name) for module in modules}
    used = {index for index in takers.values() if index is not None}
    problems: list[BluelmError] = [_unused(rules, index, modules) for index in range(len(rules)) if index not in used]
    for module in modules:
        index = takers[module.name]
        problem = None if index is None else _misfit(module, rules[index])
        if problem is not None:
            problems.append(problem)
    raise_all(problems)
    return {name: FLOAT if index is None else rules[index].scheme for name, index in takers.items()}


def methods_of(rules: Sequence[Rule], modules: Sequence[WeightedModule]) -> dict[str, Method]:
    """How every module that does not stay float is rounded, by the same rules."""
    found = ((module.name, _first(rules, module.name)) for module in modules)
    return {name: rules[index].method for name, index in found if index is not None and rules[index].weights != "float"}


def legal_groups(columns: int) -> list[int]:
    """Powers of two from 4 on that divide a number of columns."""
    return [1 << power for power in range(2, columns.bit_length()) if columns % (1 << power) == 0]


def _first(rules: Sequence[Rule], name: str) -> int | None:
    return next((index for index, rule in enumerate(rules) if rule.matches(name)), None)


def _unused(rules: Sequence[Rule], index: int, modules: Sequence[WeightedModule]) -> BluelmError:
    pattern = rules[index].modules
    firsts = [_first(rules, module.name) for module in modules if rules[index].matches(module.name)]
    takers = sorted({first for first in firsts if first is not None})
    if takers:
        taken = ", ".join(repr(rules[taker].modules) for taker in takers)
        what = f"Rule {index + 1}, {pattern!r}, is never reached: all it matches is taken by {taken} above it."
        return RecipeError(what, "The first match wins, so the rule has no effect.", "Move it up, or remove it.")
    tops = ", ".join(sorted({".".join(module.name.split(".")[:2]) + ".*" for module in modules}))
    return RecipeError(
        f"Rule {index + 1}, {pattern!r}, matches no module of this model.",
        "What it was meant for would silently keep another precision.",
        f"Mend the pattern or remove the rule; the model has {tops}",
    )


def _misfit(module: WeightedModule, rule: Rule) -> BluelmError | None:
    scheme, pattern = rule.scheme, rule.modules
    if scheme.bits is None:
        return None
    if module.kind in ("convolution", "embedding"):
        return RecipeError(
            f"{module.name} ({module.kind}) would become {scheme.weights} by {pattern!r}.",
            "compressed-tensors stores only Linears packed, and this part has no integer form on the device.",
            f"Put a rule before it: modules: {module.name}, weights: float",
        )
    if rule.method != "rtn" and module.kind in ("token embedding", "tied head"):
        return RecipeError(
            f"{module.name} ({module.kind}) would be rounded by {rule.method} ({pattern!r}).",
            "It stays float in the folder and the export rounds it to the nearest value.",
            f"Give it a rule of its own before that one: modules: {module.name}, weights: {scheme.weights}",
        )
    if scheme.group_size is None or module.columns % scheme.group_size == 0:
        return None
    if rule.tail and module.kind in ("linear", "head"):
        return None
    groups = legal_groups(module.columns)
    exported = [group for group in groups if group >= SMALLEST_EXPORTED_GROUP]
    choices = ", ".join(map(str, groups)) if groups else "none"
    fix = f"Groups that divide {module.columns}: {choices}"
    if not exported:
        fix += f" (an export needs at least {SMALLEST_EXPORTED_GROUP}, so better give it weights: int8, or tail: true)"
    return RecipeError(
        f"{module.name} has {module.columns} columns, which groups of {scheme.group_size} ({pattern!r}) do not divide.",
        "The folder would load elsewhere and then fail at the first forward pass.",
        f"{fix}. Set it in a rule of its own before that one: modules: {module.name}",
    )


def compiled(pattern: str) -> re.Pattern[str]:
    """A rule's pattern over module names; re.error where it is none."""
    return re.compile(pattern[3:] if pattern.startswith("re:") else fnmatch.translate(pattern))
