"""Whether compact prefill reads a quantized folder's prompts: the export's decision, taken from headers alone."""

from __future__ import annotations

from stages.workshop.quant.activation_policy import ActivationChoice
from stages.workshop.quant.packed import PACKED
from stages.workshop.quant.quantized_folder import QuantizedFolder

LAYERS = "language_model.model.layers."
WORD_BITS = 32


def reads_compactly(source: QuantizedFolder, choice: ActivationChoice = "policy") -> bool:
    """Whether the folder's export has a prefill.json: every Linear of every layer has an INT8 product.

    That is INT8 per channel, or INT4 in whole blocks with scales on a grid, and inputs rounded to INT8 or INT16.

    Args:
        source: the folder.
        choice: one precision for all inputs instead of what the folder records.
    """
    for name, info in source.tensors.infos.items():
        module, _, leaf = name.rpartition(".")
        if not name.startswith(LAYERS) or len(info.shape) != 2:
            continue
        if leaf == "weight" or (leaf == PACKED and not _has_int8_product(source, module, info.shape[1], choice)):
            return False
    return True


def _has_int8_product(source: QuantizedFolder, module: str, words: int, choice: ActivationChoice) -> bool:
    """`words` is how many 32-bit words a row of the packed weight takes."""
    precision = source.own.activations_of(module) if choice == "policy" else choice
    scheme = source.scheme(module)
    if precision in ("float", "float16") or scheme.bits is None:
        return False
    if scheme.group_size is None:
        return scheme.bits == 8
    columns = words * WORD_BITS // scheme.bits
    return scheme.bits == 4 and source.own.scales == "two-level" and columns % scheme.group_size == 0
