"""`report.json`: what quantization did, layer by layer, and the true bits per weight of every part.

True bits count all that is on disk: packed values, scales, the shape tensors, and what stayed float (norms, biases,
embedding), divided by the number of the checkpoint's values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field

from stages.artifacts.errors import ArtifactError
from stages.device.contract.activations import Activations
from stages.workshop.quant.fidelity import ExactReport, Fidelity, MemoryReport, PerplexityReport
from stages.workshop.quant.modules import part_of
from stages.workshop.quant.plan import TensorPlan, WeightPlan
from stages.workshop.quant.policy import Method

if TYPE_CHECKING:
    from stages.workshop.quant.calibration import Calibration

REPORT_FILE = "report.json"


class _Frozen(BaseModel):
    # Computed values stand in the file too; they are computed again when it is read.
    model_config = ConfigDict(frozen=True, extra="ignore")


class LayerReport(_Frozen):
    """One quantized module.

    Attributes:
        scheme: as text.
        method: how its weights were rounded: what was done, where a method had nothing to work on; None in reports of
            earlier versions.
        at_export: stored as float here, quantized by the export.
        weight_error: ‖W − Ŵ‖ / ‖W‖ over the whole matrix.
        output_error: mean over calibration inputs x of ‖Wx − Ŵx‖ / ‖Wx‖; None if no input reached
            the layer, and for the embedding, which multiplies nothing.
        activations: what its inputs are rounded to.
        int8_input_error, int16_input_error: mean over calibration inputs x of ‖x − x̂‖ / ‖x‖, rounded per token.
    """

    name: str
    shape: tuple[int, int]
    scheme: str
    method: Method | None = None
    at_export: bool
    weight_error: float
    output_error: float | None
    activations: Activations
    int8_input_error: float | None
    int16_input_error: float | None
    bytes_before: int
    bytes_after: int

    @computed_field
    def part(self) -> str:
        """The part of the model it belongs to."""
        return part_of(self.name)

    @property
    def input_error(self) -> float | None:
        """What rounding its inputs as decided does to them."""
        errors = {"int8": self.int8_input_error, "int16": self.int16_input_error, "float": 0.0}
        return errors.get(self.activations)


class PartReport(_Frozen):
    """A part of the model, or the whole: number of weights, bytes, true bits per weight."""

    part: str
    weights: int
    bytes_before: int
    bytes_after: int

    @computed_field
    def bits_per_weight(self) -> float:
        """8 · bytes on disk / number of values."""
        return 8 * self.bytes_after / self.weights


class CalibrationReport(_Frozen):
    """What calibrated: prompts, and their tokens together; how many of these are pictures, and how many the
    assistant's. 0 without a corpus."""

    samples: int
    tokens: int
    image_tokens: int = 0
    answer_tokens: int = 0


class BytesReport(_Frozen):
    """The folder's weights before and after."""

    before: int
    after: int


class Report(_Frozen):
    """The whole of report.json.

    Attributes:
        layers, parts, total: what was done to weights and inputs.
        calibration: what it was done with.
        fidelity: what it costs beside the float model; None where that was not measured.
        memory: predicted peak of the exported model.
    """

    layers: tuple[LayerReport, ...]
    parts: tuple[PartReport, ...]
    total: PartReport
    calibration: CalibrationReport
    fidelity: Fidelity | None = None
    memory: MemoryReport | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def top1_agreement(self) -> float | None:
        """Share of the assistant's tokens that float and quantized model both expect most."""
        return self.fidelity.answers.top1_agreement if self.fidelity else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def kl(self) -> float | None:
        """KL divergence of the quantized model from the float one over the assistant's tokens, in nats a token."""
        return self.fidelity.answers.kl if self.fidelity else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def perplexity(self) -> PerplexityReport | None:
        """Of the assistant's tokens."""
        return self.fidelity.answers.perplexity if self.fidelity else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exact_match(self) -> ExactReport | None:
        """Share of questions answered exactly."""
        return self.fidelity.exact_match if self.fidelity else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bits_per_weight(self) -> float:
        """True bits of the whole folder."""
        return 8 * self.total.bytes_after / self.total.weights

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bytes(self) -> BytesReport:
        """Of the whole folder."""
        return BytesReport(before=self.total.bytes_before, after=self.total.bytes_after)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sentence(self) -> str:
        """What it costs, what it saves, and what to spare first."""
        return " ".join([saved(self), cost(self), spare_first(self)]).strip()

    def as_dict(self) -> dict[str, Any]:
        """As written to the file."""
        return self.model_dump(mode="json")

    def worst(self, count: int) -> list[LayerReport]:
        """The layers with the largest output error (weight error where there is none), worst first."""
        return sorted(self.layers, key=_error, reverse=True)[:count]

    def write(self, folder: Path) -> None:
        """Writes report.json into a folder."""
        (folder / REPORT_FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def saved(report: Report) -> str:
    """What quantization saves, in words."""
    before, after = report.total.bytes_before, report.total.bytes_after
    said = f"Quantized, the weights take {after / 1e6:.1f} MB instead of {before / 1e6:.1f} MB"
    return f"{said} ({report.bits_per_weight:.2f} bits a weight)."


def cost(report: Report) -> str:
    """What it costs, in words."""
    found = report.fidelity
    if found is None:
        return "What that costs was not measured."
    answers, exact = found.answers, found.exact_match
    return (
        f"On {found.questions} held-out questions {100 * answers.top1_agreement:.1f} % of the {answers.tokens} answer "
        f"tokens stay the same (KL {answers.kl:.2g} nats a token), and exact answers go from "
        f"{100 * exact.float_:.1f} % to {100 * exact.quantized:.1f} %."
    )


def spare_first(report: Report) -> str:
    """Which layer to keep finer, in words: by what it does alone where that was measured, else by its output error."""
    rows = report.fidelity.sensitivity if report.fidelity else ()
    layers = [row for row in rows if ".layers." in row.part] or [row for row in rows if row.part in _names(report)]
    if layers:
        worst = max(layers, key=lambda row: row.kl)
        held = [layer for layer in report.layers if _in(layer, worst.part)]
        what = f"the {worst.part}" if ".layers." not in worst.part else worst.part
        size = sum(layer.bytes_after for layer in held) / 1e6
        said = f"Spare {what} first: quantized alone it makes a KL of {worst.kl:.2g}, and it takes {size:.2f} MB now"
        if not held:
            return f"{said}."
        layer = max(held, key=_error)
        return f"{said}; in it, {layer.name}, whose {_of(layer)} off by {100 * _error(layer):.1f} %."
    worst_layers = report.worst(1)
    if not worst_layers:
        return ""
    layer = worst_layers[0]
    return f"Spare {layer.name} first: its {_of(layer)} off by {100 * _error(layer):.1f} %."


def _of(layer: LayerReport) -> str:
    return "weights are" if layer.output_error is None else "outputs are"


def _names(report: Report) -> set[str]:
    return {part.part for part in report.parts}


def _in(layer: LayerReport, part: str) -> bool:
    return part_of(layer.name) == part or layer.name.startswith(f"{part}.")


def read_report(folder: Path) -> Report:
    """Reads report.json of a finished folder.

    Raises:
        ArtifactError: missing or broken.
    """
    path = folder / REPORT_FILE
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {str(error).splitlines()[0]}.",
            "It says what quantization did to each layer.",
            "Quantize again with --force.",
        ) from error


def build_report(
    weights: WeightPlan,
    weight_errors: Mapping[str, float],
    activations: Mapping[str, Activations],
    calibration: Calibration | None,
) -> Report:
    """The report of a finished quantization.

    Args:
        weights: what was written.
        weight_errors: of every quantized module.
        activations: what the inputs of every quantized Linear are rounded to.
        calibration: what the prompts showed, if there were any.
    """
    tensors = {tensor.name: tensor for tensor in weights.tensors}
    done = calibration.methods if calibration else {}
    layers = []
    for module, scheme in {**weights.packed, **weights.at_export}.items():
        later = weights.at_export.get(module)
        tensor = tensors[later.tensor if later else f"{module}.weight"]
        # A tied head has no bytes of its own.
        own = tensor.module == module
        layers.append(
            LayerReport(
                name=module,
                shape=(tensor.shape[0], tensor.shape[1]),
                scheme=str(scheme),
                method=done.get(module, "rtn"),
                at_export=later is not None,
                weight_error=weight_errors[module],
                output_error=calibration.output_error(module) if calibration else None,
                # The embedding multiplies nothing.
                activations=activations.get(module, "float"),
                int8_input_error=calibration.input_error(module, "int8") if calibration else None,
                int16_input_error=calibration.input_error(module, "int16") if calibration else None,
                bytes_before=tensor.bytes_before if own else 0,
                bytes_after=tensor.bytes_after if own else 0,
            )
        )
    return Report(
        layers=tuple(layers),
        parts=sum_parts(weights.tensors),
        total=sum_all(weights.tensors),
        calibration=CalibrationReport(
            **{
                name: getattr(calibration, name) if calibration else 0
                for name in ("samples", "tokens", "image_tokens", "answer_tokens")
            }
        ),
    )


def sum_parts(tensors: Sequence[TensorPlan]) -> tuple[PartReport, ...]:
    """Totals per part, in the order in which parts first appear."""
    names = dict.fromkeys(part_of(tensor.name) for tensor in tensors)
    return tuple(_sum(name, (t for t in tensors if part_of(t.name) == name)) for name in names)


def sum_all(tensors: Sequence[TensorPlan]) -> PartReport:
    """Totals of the whole model."""
    return _sum("whole", tensors)


def _sum(name: str, tensors: Iterable[TensorPlan]) -> PartReport:
    held = tuple(tensors)
    return PartReport(
        part=name,
        weights=sum(tensor.weights for tensor in held),
        bytes_before=sum(tensor.bytes_before for tensor in held),
        bytes_after=sum(tensor.bytes_after for tensor in held),
    )


def _error(layer: LayerReport) -> float:
    return layer.weight_error if layer.output_error is None else layer.output_error
