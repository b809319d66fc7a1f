"""What the inputs of each Linear are rounded to: ordered patterns, the first match wins (BlueLM-V-3B Sec. 3.4).

The paper multiplies INT4 weights with INT16 activations throughout, since its chip does so at no cost. Where INT8 is
faster, a rule may keep INT16 for those inputs that outliers make too coarse: `int16_above` is a bound on what INT8
rounding was measured to do to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from stages.artifacts.errors import BluelmError, RecipeError
from stages.device.contract.activations import Activations
from stages.workshop.quant.policy import ModuleRule

# Where no rule says anything: what costs least.
DEFAULT: Activations = "int8"
# What an export is asked for: what the folder records, or one precision for all.
ActivationChoice = Literal["policy", "float", "float16", "int8", "int16"]


class ActivationRule(ModuleRule):
    """One line of the policy.

    Attributes:
        activations: int8 or int16 per token, float16, or float.
        int16_above: with int8: INT16 where the relative error of rounding this Linear's inputs to INT8, the mean over
            calibration tokens of ‖x − a8(x)‖ / ‖x‖, is above this.
    """

    activations: Activations
    int16_above: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bound_only_for_int8(self) -> ActivationRule:
        if self.int16_above is not None and self.activations != "int8":
            raise ValueError(f"int16_above belongs to int8; {self.activations} stays what it is")
        return self


def rule_of(rules: Sequence[ActivationRule], name: str) -> ActivationRule | None:
    """The first rule that a module falls under."""
    return next((rule for rule in rules if rule.matches(name)), None)


def resolve(
    rules: Sequence[ActivationRule], names: Sequence[str], int8_errors: Mapping[str, float | None]
) -> dict[str, Activations]:
    """The precision of every Linear's inputs.

    Args:
        rules: the policy.
        names: the Linears.
        int8_errors: measured relative error of INT8 inputs by Linear. One that no input reached stays INT16 where a
            bound would have decided.
    """
    chosen: dict[str, Activations] = {}
    for name in names:
        rule = rule_of(rules, name)
        chosen[name] = DEFAULT if rule is None else rule.activations
        if rule is not None and rule.int16_above is not None:
            error = int8_errors.get(name)
            chosen[name] = "int16" if error is None or error > rule.int16_above else "int8"
    return chosen


def within_budget(
    chosen: Mapping[str, Activations], int8_errors: Mapping[str, float | None], budget: float
) -> dict[str, Activations]:
    """INT16 instead of INT8 where inputs have the largest errors, for as few Linears as keep within a budget.

    Args:
        chosen: what the rules decide.
        int8_errors: measured relative error of INT8 inputs by Linear. One that no input reached becomes INT16.
        budget: of the root mean square of the errors of all Linears that the rules give INT8; one that becomes INT16
            counts as 0 (its error is 254 times smaller).
    """
    names = [name for name, precision in chosen.items() if precision == "int8"]
    unknown = {name for name in names if int8_errors.get(name) is None}
    ranked = sorted(set(names) - unknown, key=lambda name: (int8_errors[name] or 0.0, name))
    left, squares = budget * budget * len(names), 0.0
    kept: set[str] = set()
    for name in ranked:
        squares += (int8_errors[name] or 0.0) ** 2
        # A hair of room for the rounding of sums.
        if squares > left * (1 + 1e-9):
            break
        kept.add(name)
    return {name: "int16" if name in names and name not in kept else value for name, value in chosen.items()}


def unused(rules: Sequence[ActivationRule], names: Sequence[str]) -> list[BluelmError]:
    """An error for each rule that decides nothing."""
    used = {id(rule_of(rules, name)) for name in names}
    return [
        RecipeError(
            f"activations, rule {index}, {rule.modules!r}, decides for no Linear of this model.",
            "What it was meant for would silently be rounded otherwise.",
            "Mend the pattern, move it above the rule that takes its modules, or remove it.",
        )
        for index, rule in enumerate(rules, start=1)
        if id(rule) not in used
    ]


Policy = Literal["paper", "mix", "int8", "float"]
# Policies without a model to measure: down_proj's inputs are a product of two activations, where outliers live.
FIXED_POLICIES: Mapping[Policy, tuple[ActivationRule, ...]] = {
    "paper": (ActivationRule(modules="*", activations="int16"),),
    "mix": (
        ActivationRule(modules="language_model.*.mlp.down_proj", activations="int16"),
        ActivationRule(modules="*", activations="int8"),
    ),
    "int8": (ActivationRule(modules="*", activations="int8"),),
    "float": (ActivationRule(modules="*", activations="float"),),
}
