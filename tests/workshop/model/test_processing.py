"""The processor: slots, tiles and labels agree, in our own call and in transformers'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.artifacts.errors import UsageError
from stages.device.imaging.crop import crop_tiles, normalize, padding_colour
from stages.device.imaging.geometry import Size
from stages.device.imaging.tiling import plan_tiling
from stages.device.prompt.messages import assistant, user
from stages.workshop.model.processing import IGNORED, BlueLMVProcessor

GREY = (0.5, 0.5, 0.5)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


sizes = st.lists(st.tuples(st.integers(1, 120), st.integers(1, 120)), min_size=1, max_size=3)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes)
def test_slots_equal_the_tokens_of_the_tilings(processor: BlueLMVProcessor, sizes: list[tuple[int, int]]) -> None:
    pictures = [picture(width, height) for width, height in sizes]
    sample = processor.encode_chat([user("Which?", images=len(pictures)), assistant("red")], pictures)
    tilings = [plan_tiling(Size(width, height), processor.image_processor.spec) for width, height in sizes]
    assert sample.input_ids.count(processor.image_token_id) == sum(tiling.tokens for tiling in tilings)
    assert sample.pixel_values is not None
    assert sample.pixel_values.shape == (sum(tiling.tiles for tiling in tilings), 3, 28, 28)


def test_tiles_are_the_devices_own(processor: BlueLMVProcessor) -> None:
    image = picture(70, 40)
    tiling = plan_tiling(Size(70, 40), processor.image_processor.spec)
    expected = normalize(crop_tiles(image, tiling, padding_colour(GREY)), GREY, GREY)
    sample = processor.encode_chat([user("Which?", images=1)], [image])
    assert sample.pixel_values is not None
    np.testing.assert_array_equal(sample.pixel_values, expected)


def test_labels_are_the_assistants_tokens_and_nothing_else(processor: BlueLMVProcessor) -> None:
    talk = [user("Which?", images=1), assistant("red"), user("Why <|im_end|>?"), assistant("so")]
    sample = processor.encode_chat(talk, [picture(20, 20)])
    learned = [label for label in sample.labels if label != IGNORED]
    assert processor.tokenizer.decode(learned) == "red<|im_end|>so<|im_end|>"
    assert all(label in (IGNORED, token) for label, token in zip(sample.labels, sample.input_ids, strict=True))
    assert len(sample.labels) == len(sample.input_ids)


def test_a_question_has_no_labels(processor: BlueLMVProcessor) -> None:
    sample = processor.encode_chat([user("Which?")], add_generation_prompt=True)
    assert sample.pixel_values is None
    assert set(sample.labels) == {IGNORED}


def test_transformers_own_call_gives_the_same(processor: BlueLMVProcessor) -> None:
    image = picture(90, 30)
    talk = [user("What colour?", images=1)]
    ours = processor.encode_chat(talk, [image], add_generation_prompt=True)
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    theirs = processor(text=text, images=[image], return_tensors="np")
    assert theirs["input_ids"].tolist() == [ours.input_ids]
    np.testing.assert_array_equal(theirs["pixel_values"], ours.pixel_values)
    assert set(theirs) == {"input_ids", "attention_mask", "pixel_values"}
    with_picture = [
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What colour?"}]}
    ]
    in_one = processor.apply_chat_template(with_picture, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert in_one["input_ids"] == [ours.input_ids]


def test_a_call_may_change_the_tiling(processor: BlueLMVProcessor) -> None:
    image = picture(84, 84)
    assert processor.image_processor(image)["tiles_per_image"] == [10]
    assert processor.image_processor(image, max_cols=1, max_rows=1)["tiles_per_image"] == [1]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "I;16"])
def test_any_mode_becomes_rgb(processor: BlueLMVProcessor, mode: str) -> None:
    image = Image.new(mode, (24, 20)) if mode == "I;16" else picture(24, 20).convert(mode)
    assert processor.image_processor(image)["pixel_values"].shape == (1, 3, 28, 28)


@pytest.mark.parametrize("shape", [(20, 30, 3), (3, 20, 30)])
def test_arrays_are_pictures_too(processor: BlueLMVProcessor, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    rows = array if shape[-1] == 3 else array.transpose(1, 2, 0)
    np.testing.assert_array_equal(
        processor.image_processor(array)["pixel_values"],
        processor.image_processor(Image.fromarray(rows))["pixel_values"],
    )


@pytest.mark.parametrize(
    ("text", "images", "words"),
    [
        ("<image> and <image>", 1, "Found total 2 <image> tokens and 1 images"),
        ("<image>", 0, "no images were passed"),
        ("nothing", 1, "Found total 0 <image> tokens and 1 images"),
    ],
)
def test_places_and_pictures_must_match(processor: BlueLMVProcessor, text: str, images: int, words: str) -> None:
    pictures: Any = [picture(20, 20)] * images or None
    with pytest.raises(UsageError, match=words) as caught:
        processor(text=text, images=pictures)
    assert "place of one picture" in caught.value.why
