"""Time by stage: a roofline with one term for each thing that a device is slow at.

Terms of a stage add up: on a CPU they follow one another. A device whose speed is not known gets a bound from the terms
that are known, and the others are named.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.measure.estimate_counts import Counts
from stages.measure.estimate_device import Device
from stages.measure.estimate_plan import Case

TIMED = ("encode", "prefill", "decode")


@dataclass(frozen=True)
class Seconds:
    """What a stage takes.

    Attributes:
        stage: "encode", "prefill" or "decode" (all tokens).
        parts: seconds by the speed that decides them.
        missing: speeds that are not known; where there are some, the sum is a lower bound, and None if all are.
    """

    stage: str
    parts: dict[str, float]
    missing: tuple[str, ...]

    @property
    def total(self) -> float | None:
        """The sum of what is known."""
        return sum(self.parts.values()) if self.parts else None


def work_of(counts: Counts, case: Case, *, expands: bool) -> dict[str, dict[str, float]]:
    """Amounts by stage and by the name of the speed that they are divided by."""
    per_token = counts.token_bytes
    # Reading a prompt ends with one step of decoding: the last position goes through the decoder's own graph.
    prefill = {
        "text_products": counts.prefill_products,
        "text_attention": counts.prefill_attention,
        "read_bytes": float(per_token),
    }
    if expands:
        prefill["expansion"] = float(counts.layers * counts.layer_weights)
    behind = case.prompt_tokens + (case.generate + 1) / 2
    return {
        "encode": {
            "vision_products": case.tiles * counts.encode_products,
            "vision_attention": case.tiles * counts.encode_attention,
        },
        "prefill": prefill,
        "decode": {
            "read_bytes": case.generate * (per_token + counts.kv_bytes * behind),
            "layer_steps": float(case.generate * counts.layers),
        },
    }


def seconds_of(device: Device, counts: Counts, case: Case) -> list[Seconds]:
    """What each stage takes on a device."""
    found = []
    for stage, amounts in work_of(counts, case, expands=device.expands).items():
        speeds = {name: getattr(device.speeds, name) for name in amounts if amounts[name]}
        parts = {name: amounts[name] / speed for name, speed in speeds.items() if speed is not None}
        missing = tuple(name for name, speed in speeds.items() if speed is None and name not in device.negligible)
        found.append(Seconds(stage, parts, missing))
    return found
