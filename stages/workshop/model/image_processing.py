"""The image processor: transformers' interface around the very functions that run on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import make_flat_list_of_images, to_numpy_array

from stages.device.imaging.colour import to_rgb
from stages.device.imaging.crop import crop_tiles, normalize, padding_colour
from stages.device.imaging.geometry import Size
from stages.device.imaging.presets import ImagingPreset
from stages.device.imaging.spec import Resample, TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling


class BlueLMVImageProcessor(BaseImageProcessor):
    """Pictures → tiles [T, 3, S, S], thumbnail first, pictures one after the other.

    Args:
        tiling: the tiling specification, or its dictionary.
        image_mean: per RGB channel, subtracted after dividing by 255; also the colour of the padding.
        image_std: per RGB channel.
        resample: Pillow's name of the filter.
        patch_size: the tower's patch, recorded for tools that count patches.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(
        self,
        tiling: TilingSpec | dict[str, Any] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        resample: Resample = "bicubic",
        patch_size: int = 14,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        spec = tiling if isinstance(tiling, TilingSpec) else TilingSpec.model_validate(tiling or {})
        self.tiling = spec.model_dump(mode="json")
        self.image_mean = [float(value) for value in image_mean]
        self.image_std = [float(value) for value in image_std]
        self.resample = resample
        self.patch_size = patch_size

    @classmethod
    def from_preset(cls, preset: ImagingPreset) -> BlueLMVImageProcessor:
        """The processor of an imaging preset."""
        return cls(preset.tiling, preset.image_mean, preset.image_std, preset.resample, preset.patch_size)

    @property
    def backend(self) -> str:
        """transformers' name for what does the work: Pillow and numpy."""
        return "pil"

    @property
    def spec(self) -> TilingSpec:
        """The tiling specification."""
        return TilingSpec.model_validate(self.tiling)

    @property
    def size(self) -> dict[str, int]:
        """A tile's sides in pixels, where transformers' tools look for it."""
        return {"height": self.tiling["tile_size"], "width": self.tiling["tile_size"]}

    def plan(self, size: Size) -> Tiling:
        """How a picture of this size is cut, and how many image tokens it becomes."""
        return plan_tiling(size, self.spec)

    def preprocess(self, images: Any, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """Cuts pictures into normalized tiles.

        Args:
            images: one picture or several, nested per prompt or flat: Pillow images or arrays.
            return_tensors: `pt` or `np`; None gives numpy.
            kwargs: fields of the tiling specification to change for this call, such as `alpha=0.2`.

        Returns:
            `pixel_values` float32 [T, 3, S, S]; `tiles_per_image` and `tokens_per_image`, one number a picture.
        """
        spec = self.spec.model_copy(update={key: value for key, value in kwargs.items() if key in self.tiling})
        mean, std = tuple(self.image_mean), tuple(self.image_std)
        pixels, tiles_per_image, tokens_per_image = [], [], []
        for image in (_as_picture(image) for image in make_flat_list_of_images(images)):
            tiling = plan_tiling(Size(*image.size), spec)
            tiles = crop_tiles(image, tiling, padding_colour(mean), self.resample)  # uint8 [tiles, 3, S, S]
            pixels.append(normalize(tiles, mean, std))
            tiles_per_image.append(tiling.tiles)
            tokens_per_image.append(tiling.tokens)
        data = {
            "pixel_values": np.concatenate(pixels),  # [T, 3, S, S]
            "tiles_per_image": tiles_per_image,
            "tokens_per_image": tokens_per_image,
        }
        return BatchFeature(data=data, tensor_type=return_tensors)


def _as_picture(image: Any) -> Image.Image:
    """Upright RGB of whatever transformers calls a picture; arrays are [H, W, 3] or [3, H, W], uint8."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    array = to_numpy_array(image)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # [H, W, channels]
    return to_rgb(Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array))
