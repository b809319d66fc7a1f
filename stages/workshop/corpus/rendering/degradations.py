"""What befalls a page between the printer and the model: pure functions of (picture, chance, amount).

The amount runs from 0 (nothing) to 1 (as bad as a reader can still read). Lengths are in pixels or shares of the
shorter side, chosen so that text of eight pixels survives and no corner question changes its answer.

Axes: H, W = height and width of the picture; the last axis is RGB in 0…255.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

Degrade = Callable[[Image.Image, np.random.Generator, float], Image.Image]
Levels = NDArray[np.float32]

# At amount 1. A blur's standard deviation and the lost resolution suit the smallest text, not the picture.
_BLUR = 0.85
_LOST_RESOLUTION = 0.3
_WORST_JPEG, _BEST_JPEG = 22, 90
_NOISE = 22.0
# Shares of the shorter side by which corners move. The middle of a side moves half as far, which is less than what
# `single_shape` keeps clear of the middle lines, so that a place stays what it was.
_TILT, _SKEW = 0.06, 0.06
_DARKEST_LIGHT, _DARKEST_SHADOW, _FLATTEST = 0.45, 0.5, 0.4
# More at once than this and a page can get lost though each alone would be fine.
MOST_AT_ONCE = 3


@dataclass(frozen=True)
class Degradation:
    """One kind, how likely a picture has it, and the greatest amount (drawn evenly from 0 to it)."""

    kind: str
    probability: float
    strength: float


def blur(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """Out of focus, or moved while the shutter was open (in one direction more than in the other)."""
    across, down = _BLUR * amount * rng.uniform(0.4, 1.0, 2)
    return picture.filter(ImageFilter.GaussianBlur((float(across), float(down))))


def jpeg(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """Blocks and ringing of a JPEG saved too small."""
    stream = io.BytesIO()
    quality = round(_BEST_JPEG + (_WORST_JPEG - _BEST_JPEG) * amount)
    picture.save(stream, "JPEG", quality=quality, subsampling=int(rng.integers(0, 3)))
    return Image.open(stream).convert("RGB")


def noise(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """A sensor's noise, grey or coloured."""
    channels = 3 if rng.random() < 0.5 else 1
    grain = rng.standard_normal((picture.height, picture.width, channels), dtype=np.float32)
    return _as_picture(_levels(picture) + np.float32(_NOISE * amount) * grain)


def rotation(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """A page that lies a little askew, whole inside the picture."""
    shift = _TILT * amount * min(picture.size) * rng.choice([-1.0, 1.0])
    # The long side's ends move by `shift`, the short side's in proportion.
    across, down = (shift * side / max(picture.size) for side in picture.size)
    turned = np.array([(down, -across), (-down, -across), (-down, across), (down, across)]) / 2
    return _warp(picture, rng, turned - np.abs(turned).max(axis=0) * _CORNERS)


def perspective(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """A page seen from one side: each corner moves inwards by its own way."""
    inwards = rng.uniform(0, _SKEW * amount * min(picture.size), (4, 2))
    return _warp(picture, rng, -_CORNERS * inwards)


def lighting(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """Light that falls off from one side to the other."""
    ramp = _ramp(picture, rng.uniform(0, 2 * np.pi))
    ramp = (ramp - ramp.min()) / max(float(ramp.max() - ramp.min()), 1e-6)
    return _shade(picture, 1 - (1 - _DARKEST_LIGHT) * amount * ramp)


def shadow(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """The soft edge of a hand's or a phone's shadow across the page."""
    angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
    softness = rng.uniform(0.02, 0.15)
    across = _ramp(picture, angle) - np.float32(place)
    covered = np.clip(across / np.float32(softness) + np.float32(0.5), 0, 1)
    return _shade(picture, 1 - (1 - _DARKEST_SHADOW) * amount * covered)


def contrast(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """Faded ink, or a page photographed through haze: all levels drawn towards one."""
    kept, towards = 1 - (1 - _FLATTEST) * amount, rng.uniform(90, 230)
    table = [round(towards + kept * (level - towards)) for level in range(256)]
    return picture.convert("RGB").point(table * 3)


def resample(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """A picture that was made smaller and larger again."""
    kept = 1 - _LOST_RESOLUTION * amount
    small = (max(1, round(picture.width * kept)), max(1, round(picture.height * kept)))
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX)
    reduced = picture.resize(small, filters[rng.integers(len(filters))])
    return reduced.resize(picture.size, Image.Resampling.BICUBIC)


# In the order in which they befall a page: how it lies, how it is lit, how sharp it is, what grain covers it.
DEGRADATIONS: Mapping[str, Degrade] = MappingProxyType(
    {
        "rotation": rotation,
        "perspective": perspective,
        "lighting": lighting,
        "shadow": shadow,
        "contrast": contrast,
        "blur": blur,
        "resample": resample,
        "noise": noise,
        "jpeg": jpeg,
    }
)
# Two of a group do the same harm, which adds up to more than a reader bears.
_GROUPS = (("rotation", "perspective"), ("lighting", "shadow", "contrast"), ("blur", "resample"), ("noise", "jpeg"))


def degrade(
    picture: Image.Image, rng: np.random.Generator, degradations: Sequence[Degradation]
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture with some of the degradations, and their kinds in order: one of a group, `MOST_AT_ONCE` in all.

    Raises:
        KeyError: a kind is none of `DEGRADATIONS`.
    """
    wanted = {each.kind: each for each in degradations if rng.random() < each.probability}
    chosen: list[str] = []
    for kind in rng.permutation(sorted(wanted)).tolist():
        group = next(group for group in _GROUPS if kind in group)
        if len(chosen) < MOST_AT_ONCE and not set(group) & set(chosen):
            chosen.append(kind)
    kinds = tuple(kind for kind in DEGRADATIONS if kind in chosen)
    for kind in kinds:
        picture = DEGRADATIONS[kind](picture, rng, rng.uniform(0, wanted[kind].strength))
    return picture, kinds


# Signs of the corners as PIL's transformations take them: top left, bottom left, bottom right, top right.
_CORNERS = np.array([(-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (1.0, -1.0)])


def _warp(picture: Image.Image, rng: np.random.Generator, moved: NDArray[np.float64]) -> Image.Image:
    """Moves the corners by so many pixels ([4, 2], x and y); what lies beyond the page is a grey desk."""
    start = (_CORNERS + 1) / 2 * np.array(picture.size)
    grey = int(rng.integers(40, 230))
    return picture.transform(
        picture.size,
        Image.Transform.PERSPECTIVE,
        _homography(start + moved, start),
        Image.Resampling.BICUBIC,
        fillcolor=(grey, grey, grey),
    )


def _homography(seen: NDArray[np.float64], drawn: NDArray[np.float64]) -> tuple[float, ...]:
    """The eight numbers (a…h) with x' = (ax + by + c) / (gx + hy + 1), y' likewise, from four points to four."""
    rows, right = [], []
    for (x, y), (u, v) in zip(seen, drawn, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        right += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(right)).tolist())


@functools.lru_cache(maxsize=32)
def _unit(length: int) -> Levels:
    """Even steps from -0.5 to 0.5."""
    return np.linspace(-0.5, 0.5, length, dtype=np.float32)


def _ramp(picture: Image.Image, angle: float) -> Levels:
    """How far each pixel lies in a direction from the middle, in sides of the picture: [H, W]."""
    across, down = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return _unit(picture.width) * across + _unit(picture.height)[:, None] * down


def _shade(picture: Image.Image, light: NDArray[np.floating]) -> Image.Image:
    """The picture under so much light ([H, W], 0…1), in 256 steps: ten times as fast as in floating point."""
    mask = Image.fromarray(np.rint(255 * light).astype(np.uint8))
    return ImageChops.multiply(picture.convert("RGB"), Image.merge("RGB", (mask, mask, mask)))


def _levels(picture: Image.Image) -> Levels:
    """[H, W, 3]."""
    return np.asarray(picture.convert("RGB"), dtype=np.float32)


def _as_picture(levels: Levels) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
