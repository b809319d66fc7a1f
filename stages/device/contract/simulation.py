"""How near an exported model must be to its simulation in torch, which the reports of quantization measure.

Both round the same numbers by the same rules, but add them up in another order. A sum that lies on the border between
two steps may then be rounded the other way, and what one token gets, every later layer and token sees. So two readings
part by a share of what rounding itself does, and by float32's own error where nothing is rounded. Two roundings that
had nothing in common would part by √2 of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SimulationTolerance:
    """Bounds on ‖exported − simulated‖ / ‖simulated‖.

    Attributes:
        floats: where nothing is rounded.
        share: of what rounding does: ‖simulated − not rounded‖ / ‖not rounded‖.
    """

    floats: float
    share: float

    def allows(self, difference: float, rounding: float) -> bool:
        """Whether an output of a graph is what was simulated.

        Args:
            difference: relative difference of the two.
            rounding: relative difference that rounding makes in the simulation.
        """
        return difference <= self.floats + self.share * rounding


# Of the logits of several answers together. A prompt that decoder.onnx reads alone differs by 1e-6 mostly.
SIMULATED = SimulationTolerance(floats=2e-4, share=0.7)
