"""Formulas made by chance, each written three ways that mean the same: for typst, as LaTeX and as plain text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Without d, which stands in derivatives.
_VARIABLES = tuple("abcfghkmnpqrstuvwxyz")
_GREEK = ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "pi", "rho", "sigma", "omega")
_FUNCTIONS = ("sin", "cos", "tan", "log", "ln", "exp")
# Sign in typst, in LaTeX, in plain text.
_RELATIONS = (("=", "=", "="), ("=", "=", "="), ("<", "<", "<"), (">=", r"\geq", ">="), ("!=", r"\neq", "!="))


@dataclass(frozen=True)
class Formula:
    """One formula in three notations.

    Attributes:
        typst, latex, plain: how it is written.
        tight: it needs no brackets wherever it stands.
    """

    typst: str
    latex: str
    plain: str
    tight: bool = True

    def bracketed(self) -> Formula:
        """The same in brackets, where it needs any."""
        if self.tight:
            return self
        return Formula(f"({self.typst})", f"({self.latex})", f"({self.plain})")


Make = Callable[[np.random.Generator, int], Formula]


def draw_formula(rng: np.random.Generator, depth: int) -> Formula:
    """A term, an equation or another statement, nested at most so deep."""
    chance = rng.random()
    if chance < 0.3:
        return _term(rng, depth)
    if chance < 0.9:
        return _relation(rng, depth)
    return (_limit, _derivative)[rng.integers(2)](rng, depth)


def _term(rng: np.random.Generator, depth: int) -> Formula:
    if depth <= 0:
        return _atom(rng, depth)
    makes = (_atom, _sum, _sum, _difference, _product, _fraction, _fraction, _power, _power, _root, _function, _indexed,
             _series, _integral, _absolute)  # fmt: skip
    return makes[rng.integers(len(makes))](rng, depth - 1)


def _atom(rng: np.random.Generator, depth: int) -> Formula:
    chance = rng.random()
    if chance < 0.55:
        name = _variable(rng)
        return Formula(name, name, name)
    if chance < 0.7:
        name = _GREEK[rng.integers(len(_GREEK))]
        return Formula(name, f"\\{name}", name)
    number = str(rng.integers(2, 100))
    return Formula(number, number, number)


def _variable(rng: np.random.Generator) -> str:
    return _VARIABLES[rng.integers(len(_VARIABLES))]


def _joined(one: Formula, sign: str, other: Formula) -> Formula:
    return Formula(
        f"{one.typst} {sign} {other.typst}",
        f"{one.latex} {sign} {other.latex}",
        f"{one.plain} {sign} {other.plain}",
        tight=False,
    )


def _sum(rng: np.random.Generator, depth: int) -> Formula:
    return _joined(_term(rng, depth), "+", _term(rng, depth))


def _difference(rng: np.random.Generator, depth: int) -> Formula:
    return _joined(_term(rng, depth), "-", _term(rng, depth).bracketed())


def _product(rng: np.random.Generator, depth: int) -> Formula:
    one, other = _term(rng, depth).bracketed(), _term(rng, depth).bracketed()
    return Formula(
        f"{one.typst} dot {other.typst}",
        rf"{one.latex} \cdot {other.latex}",
        f"{one.plain} * {other.plain}",
        tight=False,
    )


def _fraction(rng: np.random.Generator, depth: int) -> Formula:
    top, under = _term(rng, depth), _term(rng, depth)
    plain = f"{top.bracketed().plain} / {under.bracketed().plain}"
    return Formula(f"frac({top.typst}, {under.typst})", rf"\frac{{{top.latex}}}{{{under.latex}}}", plain, tight=False)


def _power(rng: np.random.Generator, depth: int) -> Formula:
    base, exponent = _atom(rng, 0), _atom(rng, 0) if rng.random() < 0.8 else _sum(rng, 0)
    return Formula(
        f"{base.typst}^({exponent.typst})",
        f"{base.latex}^{{{exponent.latex}}}",
        f"{base.plain}^{exponent.bracketed().plain}",
        tight=False,
    )


def _indexed(rng: np.random.Generator, depth: int) -> Formula:
    name, index = _variable(rng), ("i", "j", "1", "2", "0", "n")[rng.integers(6)]
    return Formula(f"{name}_({index})", f"{name}_{{{index}}}", f"{name}_{index}")


def _root(rng: np.random.Generator, depth: int) -> Formula:
    inside = _term(rng, depth)
    return Formula(f"sqrt({inside.typst})", rf"\sqrt{{{inside.latex}}}", f"sqrt({inside.plain})")


def _function(rng: np.random.Generator, depth: int) -> Formula:
    name, inside = _FUNCTIONS[rng.integers(len(_FUNCTIONS))], _term(rng, depth)
    return Formula(f"{name}({inside.typst})", rf"\{name}({inside.latex})", f"{name}({inside.plain})")


def _absolute(rng: np.random.Generator, depth: int) -> Formula:
    # Bars inside bars could be read in two ways.
    inside = (_atom, _sum, _difference, _product)[rng.integers(4)](rng, 0)
    return Formula(f"abs({inside.typst})", f"|{inside.latex}|", f"|{inside.plain}|")


def _series(rng: np.random.Generator, depth: int) -> Formula:
    first, last = str(rng.integers(0, 3)), ("n", "m", "infinity")[rng.integers(3)]
    inside = _term(rng, min(depth, 1)).bracketed()
    top = {"infinity": r"\infty"}.get(last, last)
    typst = f"sum_(i = {first})^({'oo' if last == 'infinity' else last}) {inside.typst}"
    latex = rf"\sum_{{i = {first}}}^{{{top}}} {inside.latex}"
    return Formula(typst, latex, f"sum from i = {first} to {last} of {inside.plain}", tight=False)


def _integral(rng: np.random.Generator, depth: int) -> Formula:
    low, high = rng.integers(0, 3), rng.integers(3, 10)
    inside = _term(rng, min(depth, 1)).bracketed()
    return Formula(
        f"integral_({low})^({high}) {inside.typst} d x",
        rf"\int_{{{low}}}^{{{high}}} {inside.latex} dx",
        f"integral from {low} to {high} of {inside.plain} dx",
        tight=False,
    )


def _relation(rng: np.random.Generator, depth: int) -> Formula:
    left, right = _term(rng, max(0, depth - 1)), _term(rng, depth)
    typst, latex, plain = _RELATIONS[rng.integers(len(_RELATIONS))]
    return Formula(
        f"{left.typst} {typst} {right.typst}",
        f"{left.latex} {latex} {right.latex}",
        f"{left.plain} {plain} {right.plain}",
        tight=False,
    )


def _limit(rng: np.random.Generator, depth: int) -> Formula:
    name, inside = _variable(rng), _term(rng, depth).bracketed()
    return Formula(
        f"lim_({name} -> oo) {inside.typst}",
        rf"\lim_{{{name} \to \infty}} {inside.latex}",
        f"limit for {name} to infinity of {inside.plain}",
        tight=False,
    )


def _derivative(rng: np.random.Generator, depth: int) -> Formula:
    inside = _term(rng, depth).bracketed()
    return Formula(
        f"frac(d, d x) {inside.typst}",
        rf"\frac{{d}}{{dx}} {inside.latex}",
        f"d/dx {inside.plain}",
        tight=False,
    )
