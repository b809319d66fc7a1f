"""Exported graphs against torch: the same inputs through both, the difference in numbers.

Three questions are kept apart. Is the graph right? Its twin with float32 products of the very same weights must agree
to rounding error. What does rounding activations cost? The graph as it is, against the same reference. Is that what
was meant? The graph as it is, against the reference with its inputs rounded too; over many layers the two part slowly,
since a sum in another order may round an input the other way.

Compact prefill has no twin with float32 products: the keys and values it leaves are held against the reference that
rounds too, and may part from it by no more than about what rounding itself costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import BluelmError, ModelError
from stages.device.contract import names
from stages.device.contract.device_config import DevicePlan
from stages.device.contract.prefill_layout import PREFILL_FILE
from stages.device.imaging.crop import normalize
from stages.workshop.graph.linear import Floats
from stages.workshop.graph.reference import Reference
from stages.workshop.graph.twin import ExactTwins

Arrays = Mapping[str, NDArray[Any]]
# Opens a graph file and returns what runs it: inputs by name to outputs by name. The caller's onnxruntime.
OpenGraph = Callable[[Path], Callable[[Arrays], dict[str, NDArray[Any]]]]
# Reads a prompt [L, H] by compact prefill: keys and values of all layers, float32 [layers, 2, kv_heads, L, D], before
# an INT8 cache rounds them.
ReadPrompt = Callable[[Floats], Floats]

TILES = 2
# Text around one tile's image tokens; short enough for the tiniest context.
TEXT_TOKENS = 12
STEPS = 2
KEYS_VALUES = "keys and values"
# Two errors of rounding that have nothing left in common are √2 of one apart.
ROUNDING_SHARE = 1.5


@dataclass(frozen=True)
class GraphCheck:
    """How far one output is from torch's.

    Attributes:
        graph: the file.
        output: the output's name.
        max_abs: largest difference, exact arithmetic.
        relative: norm of the difference by norm of the reference, exact arithmetic.
        arithmetic: the same for the graph as exported, with the activations it rounds.
        simulated: the same for the graph as exported against a reference that rounds them too; None where neither does.
        rounding: of compact prefill, which has no exact arithmetic: how far that reference is from the float one; its
            `max_abs` and `relative` are those from the reference that rounds.
    """

    graph: str
    output: str
    max_abs: float
    relative: float
    arithmetic: float
    simulated: float | None = None
    rounding: float = 0.0

    @property
    def approximate(self) -> bool:
        """Whether the exported graph multiplies in another arithmetic than float32."""
        return self.arithmetic != self.relative

    def as_dict(self) -> dict[str, str | float | None]:
        """For the manifest and --json; two digits, so that it does not depend on the order of additions."""
        numbers = {key: float(f"{getattr(self, key):.1e}") for key in ("max_abs", "relative", "arithmetic")}
        simulated = None if self.simulated is None else float(f"{self.simulated:.1e}")
        return {"graph": self.graph, "output": self.output, **numbers, "simulated": simulated}


@dataclass(frozen=True)
class _Case:
    """One graph's run: from a way to run it to its outputs, and what they should be."""

    graph: str
    run: Callable[[Callable[[Arrays], dict[str, NDArray[Any]]]], dict[str, NDArray[Any]]]
    expect: Callable[[], dict[str, Floats]]


def verify_graphs(
    folder: Path,
    device: DevicePlan,
    reference: Reference,
    twins: ExactTwins,
    open_graph: OpenGraph,
    read_prompt: ReadPrompt | None = None,
) -> Iterator[GraphCheck]:
    """Runs every graph of a folder and its exact twin against a reference; one check per output.

    Compact prefill is checked where `read_prompt` runs it.
    """
    inputs = _inputs(device, reference)
    for case in _cases(device, reference, inputs):
        outputs = case.run(open_graph(folder / case.graph))
        with twins.beside(folder / case.graph) as twin:
            exact = outputs if twin is None else case.run(open_graph(twin))
        with reference.rounded() as rounds:
            simulated = case.expect() if rounds else {}
        for name, expected in case.expect().items():
            yield GraphCheck(
                case.graph,
                name,
                max_abs=float(np.abs(exact[name] - expected).max()),
                relative=relative_error(exact[name], expected),
                arithmetic=relative_error(outputs[name], expected),
                simulated=relative_error(outputs[name], simulated[name]) if name in simulated else None,
            )

    if read_prompt is not None:
        yield _check_prefill(reference, inputs.prompt, read_prompt)


def beyond(check: GraphCheck, tolerance: float) -> BluelmError | None:
    """The error of a graph that is not what torch computes; None where it is."""
    tolerance += ROUNDING_SHARE * check.rounding
    if check.relative <= tolerance:
        return None
    return ModelError(
        f"{check.graph}: {check.output} differs from torch by {check.relative:.1e} ({check.max_abs:.1e} at most).",
        f"The tolerance is {tolerance:.1e}: the exported model would not answer as the checkpoint does.",
        "Report it with the checkpoint's config.json; --tolerance X accepts more, --no-verify does not compare.",
    )


@dataclass(frozen=True)
class _Inputs:
    """What the graphs are run on."""

    pixels: NDArray[np.uint8]  # [T, 3, S, S]
    patches: Floats  # [T, P, C]
    ids: NDArray[np.int64]  # [1, L]
    text: Floats  # [1, L, H]
    prompt: Floats  # [1, K + L, H], at most the context


def _inputs(device: DevicePlan, reference: Reference) -> _Inputs:
    rng = np.random.default_rng(0)
    vision = device.vision
    tiles, side = vision.max_batch or TILES, vision.tile_size
    pixels = rng.integers(0, 256, (tiles, 3, side, side), dtype=np.uint8)
    patches = reference.patch_embeds(normalize(pixels, vision.image_mean, vision.image_std))
    features, _ = reference.vision(patches)
    ids = rng.integers(0, device.decoder.vocab_size, (1, TEXT_TOKENS))
    text = reference.embeddings(ids)
    half = TEXT_TOKENS // 2
    prompt = np.concatenate([text[:, :half], features[:1], text[:, half:]], axis=1)
    return _Inputs(pixels, patches, ids, text, prompt[:, -device.decoder.max_context :])


def _cases(device: DevicePlan, reference: Reference, inputs: _Inputs) -> Iterator[_Case]:
    pixels, patches, ids, text = inputs.pixels, inputs.patches, inputs.ids, inputs.text
    yield _single(names.PATCH_EMBED_FILE, {names.PIXEL_VALUES: pixels}, lambda: {names.PATCH_EMBEDS: patches})

    def expect() -> dict[str, Floats]:
        return dict(zip((names.IMAGE_FEATURES, names.VIT_FEATURES), reference.vision(patches), strict=True))

    yield _single(names.VISION_FILE, {names.PATCH_EMBEDS: patches}, expect)
    yield _single(names.EMBEDDING_FILE, {names.INPUT_IDS: ids}, lambda: {names.INPUTS_EMBEDS: text})
    yield _decoder_case(device, reference, inputs.prompt)


def _check_prefill(reference: Reference, prompt: Floats, read_prompt: ReadPrompt) -> GraphCheck:
    """Keys and values, each of each layer for itself; the check tells of those that are furthest off."""
    found, floats = read_prompt(prompt[0]), reference.keys_values(prompt)
    with reference.rounded(compact=True):
        meant = reference.keys_values(prompt)
    checks = []
    for one, exact, rounded in zip(*(_tensors(part) for part in (found, floats, meant)), strict=True):
        checks.append(
            GraphCheck(
                PREFILL_FILE,
                KEYS_VALUES,
                max_abs=float(np.abs(one - rounded).max()),
                relative=(error := relative_error(one, rounded)),
                arithmetic=relative_error(one, exact),
                simulated=error,
                rounding=relative_error(rounded, exact),
            )
        )
    return max(checks, key=lambda check: check.relative - ROUNDING_SHARE * check.rounding)


def _tensors(keys_values: Floats) -> Floats:
    """[layers, 2, kv_heads, L, D] → [layers · 2, kv_heads, L, D]."""
    return keys_values.reshape(-1, *keys_values.shape[2:])


def _single(graph: str, feeds: Arrays, expect: Callable[[], dict[str, Floats]]) -> _Case:
    return _Case(graph, lambda run: run(feeds), expect)


def _decoder_case(device: DevicePlan, reference: Reference, prompt: Floats) -> _Case:
    """The prompt in two pieces and single steps, the logits of each call beside those of one forward in torch."""
    length = prompt.shape[1]
    first, steps = max(1, length // 2), min(STEPS, length - 1)
    ends = sorted({first, *range(length - steps, length + 1)} - {0})

    def expect() -> dict[str, Floats]:
        return {names.LOGITS: reference.logits(prompt)[[end - 1 for end in ends]]}  # [calls, V]

    def run(call: Callable[[Arrays], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        cache, start, rows = _empty_cache(device, length), 0, []
        for end in ends:
            mask = np.ones((1, end), np.int64)
            outputs = call({names.INPUTS_EMBEDS: prompt[:, start:end], names.ATTENTION_MASK: mask, **cache})
            cache = {past: outputs[present] for past, present in _cache_names(device)}
            rows.append(outputs[names.LOGITS][0, 0])
            start = end
        return {names.LOGITS: np.stack(rows)}

    return _Case(names.DECODER_FILE, run, expect)


def _empty_cache(device: DevicePlan, capacity: int) -> dict[str, NDArray[Any]]:
    decoder = device.decoder
    shape = (1, decoder.num_key_value_heads, capacity, decoder.head_dim)
    return {past: np.zeros(shape, decoder.kv_dtype) for past, _ in _cache_names(device)}


def _cache_names(device: DevicePlan) -> list[tuple[str, str]]:
    layers = range(device.decoder.num_layers)
    keys = [(names.past_key(layer), names.present_key(layer)) for layer in layers]
    return keys + [(names.past_value(layer), names.present_value(layer)) for layer in layers]


def relative_error(found: NDArray[Any], expected: Floats) -> float:
    """Norm of the difference by norm of what is expected; infinite where a number is none."""
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-30)
