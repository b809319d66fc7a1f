"""What quantization costs, as `report.json` says it: the quantized model beside the float one on held-out prompts.

Figures over what the assistant says are the report's own; those over all text stand apart. Intervals are 95 %, by
bootstrap over pictures. How they are counted: `stages/evaluate/agreement.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.artifacts.recipes import RecipeModel

Interval = tuple[float, float]


class FidelityConfig(RecipeModel):
    """What is measured after quantizing.

    Attributes:
        split: of the corpus; training rows stand in where it is missing.
        questions: evenly from all; 0 measures nothing.
        sensitivity: also one part quantized at a time, or one layer at a time as well; none leaves that out.
        batch: questions at a time.
        context: the positions that predicted memory and errors of the KV cache go up to.
    """

    split: str = "heldout"
    questions: int = Field(default=64, ge=0)
    sensitivity: Literal["none", "parts", "layers"] = "parts"
    batch: int = Field(default=16, ge=1)
    context: int = Field(default=2048, ge=1)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class PerplexityReport(_Frozen):
    """Perplexity of the assistant's tokens under both models."""

    float_: float = Field(alias="float")
    quantized: float

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)


class ExactReport(PerplexityReport):
    """Share of the questions that each model answers exactly, greedily; paired.

    Attributes:
        questions: how many.
        difference, interval: quantized minus float.
        lost, won: questions that only the float, and only the quantized model answers.
    """

    questions: int
    difference: float
    interval: Interval
    lost: int
    won: int


class ScopeReport(_Frozen):
    """Figures over some tokens."""

    tokens: int
    top1_agreement: float
    top1_interval: Interval
    kl: float
    kl_interval: Interval
    perplexity: PerplexityReport


class SensitivityRow(_Frozen):
    """The model with one part quantized and all else float.

    Attributes:
        part: a part of the model, a layer, the KV cache, or the rounding of activations alone.
        top1_agreement, kl, exact_difference: against the float model, over the assistant's tokens.
    """

    part: str
    top1_agreement: float
    kl: float
    kl_interval: Interval
    exact_difference: float


class KvPositions(_Frozen):
    """Error of the INT8 cache between two positions: mean ‖x − x̂‖ / ‖x‖ of a position, and share of clipped values."""

    first: int
    last: int
    key_error: float
    value_error: float
    clipped: float


class MemoryReport(_Frozen):
    """Predicted peak memory of the exported model: stage, MB (10^6 bytes) and its parts."""

    context: int
    peak_mb: float
    stage: str
    parts: dict[str, float]


class Fidelity(_Frozen):
    """Quantized beside float; `text` is all text of the prompts, answers included."""

    questions: int
    answers: ScopeReport
    text: ScopeReport | None
    exact_match: ExactReport
    sensitivity: tuple[SensitivityRow, ...] = ()
    kv_positions: tuple[KvPositions, ...] = ()


def scope_report(scope: Mapping[str, Any]) -> ScopeReport:
    """Figures as `Scope.as_dict` of stages/evaluate/agreement.py gives them."""
    perplexity = scope["perplexity"]
    return ScopeReport(
        tokens=scope["tokens"],
        top1_agreement=scope["top1_agreement"]["value"],
        top1_interval=scope["top1_agreement"]["interval"],
        kl=scope["kl"]["value"],
        kl_interval=scope["kl"]["interval"],
        perplexity=PerplexityReport(float_=perplexity["first"], quantized=perplexity["second"]),
    )


def fidelity_of(agreement: Mapping[str, Any]) -> Fidelity:
    """`Agreement.as_dict` of the float model and the quantized one, in that order."""
    exact = agreement["exact_match"]
    return Fidelity(
        questions=exact["questions"],
        answers=scope_report(agreement["answers"]),
        text=None if agreement["text"] is None else scope_report(agreement["text"]),
        exact_match=ExactReport(
            float_=exact["first"],
            quantized=exact["second"],
            questions=exact["questions"],
            difference=exact["difference"]["value"],
            interval=exact["difference"]["interval"],
            lost=exact["lost"],
            won=exact["won"],
        ),
    )


def sensitivity_row(part: str, agreement: Mapping[str, Any]) -> SensitivityRow:
    """`Agreement.as_dict` of the float model and the one with a part quantized."""
    answers = agreement["answers"]
    return SensitivityRow(
        part=part,
        top1_agreement=answers["top1_agreement"]["value"],
        kl=answers["kl"]["value"],
        kl_interval=answers["kl"]["interval"],
        exact_difference=agreement["exact_match"]["difference"]["value"],
    )
