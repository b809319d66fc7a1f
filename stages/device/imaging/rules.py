"""The tiling rules by name: how each chooses a grid and whether it keeps the picture's aspect.

A new rule is a file and a line here, and its name in `spec.RuleName` (or `spec.CountedName`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeGuard

import numpy as np

from stages.device.imaging.ferret_ui import ferret_ui, ferret_ui_many
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.internvl import internvl, internvl_many
from stages.device.imaging.llava_next import llava_next, llava_next_many
from stages.device.imaging.mini_monkey import mini_monkey
from stages.device.imaging.minicpm import minicpm
from stages.device.imaging.qwen2_vl import qwen2_vl
from stages.device.imaging.relaxed import relaxed, relaxed_many
from stages.device.imaging.spec import AnyRule, CountedName, RuleName, TilingSpec
from stages.device.imaging.token_count import TokenCount
from stages.device.imaging.xcomposer import xcomposer, xcomposer_many


@dataclass(frozen=True)
class Rule:
    """A way to choose a grid.

    `choose_many` is the same for many sizes at once: cols and rows [2, N] of float64 [N] widths and heights.
    `keeps_aspect`: scale and pad; otherwise the picture is stretched to the canvas.
    """

    choose: Callable[[Size, TilingSpec], Grid]
    choose_many: Callable[[np.ndarray, np.ndarray, TilingSpec], np.ndarray]
    keeps_aspect: bool


RULES: Mapping[RuleName, Rule] = MappingProxyType(
    {
        "relaxed": Rule(relaxed, relaxed_many, keeps_aspect=True),
        "llava-next": Rule(llava_next, llava_next_many, keeps_aspect=True),
        "internvl-1.5": Rule(internvl, internvl_many, keeps_aspect=False),
        "ferret-ui-2": Rule(ferret_ui, ferret_ui_many, keeps_aspect=False),
        "xcomposer2-4khd": Rule(xcomposer, xcomposer_many, keeps_aspect=True),
    }
)

# Schemes that are no grid of our tiles: they can be set beside the rules, but no picture can be cut by them.
COUNTED: Mapping[CountedName, Callable[[Size, TilingSpec], TokenCount]] = MappingProxyType(
    {"mini-monkey": mini_monkey, "minicpm-v": minicpm, "qwen2-vl": qwen2_vl}
)


def cuts(rule: AnyRule) -> TypeGuard[RuleName]:
    """Whether pictures can be cut by it."""
    return rule in RULES


def counts(rule: AnyRule) -> TypeGuard[CountedName]:
    """Whether it is a scheme that is only counted."""
    return rule in COUNTED
