"""LLaVA-OneVision taken over: the same logits as transformers' own class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.artifacts.errors import BluelmError
from stages.artifacts.events import result_of
from stages.device.prompt.messages import user
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.model.public.adoption import Adoption, import_checkpoint

MakeOnevision = Callable[..., tuple[Path, Any]]
IMAGE = 3


def adopt(folder: Path, out: Path, **options: Any) -> Adoption:
    return result_of(import_checkpoint(folder, out, **options))


def their_logits(model: Any, ids: torch.Tensor, tiles: torch.Tensor) -> torch.Tensor:
    """Their tower, projector and language model. Tiles go in as separate pictures; of what they give for each, the
    last vector is image_newline, which we leave out. One more goes in, since a single picture would be tiled."""
    count = len(tiles) + 1
    features = model.get_image_features(
        torch.cat([tiles, tiles[:1]]),
        image_sizes=torch.tensor([[28, 28]] * count),
        batch_num_images=torch.tensor([count]),
        return_dict=True,
    ).pooler_output[:-1]
    newline = model.model.image_newline
    assert all(torch.equal(tile[-1], newline) for tile in features)
    without = [tile[:-1] for tile in features]
    return model(input_ids=ids, mm_encoder_outputs={"image": SimpleNamespace(pooler_output=without)}).logits


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("count", [1, 2])
def test_logits_equal_transformers(
    make_onevision: MakeOnevision, tmp_path: Path, old_names: bool, tied: bool, layer: int, count: int
) -> None:
    folder, theirs = make_onevision(old_names=old_names, tied=tied, vision_feature_layer=layer)
    adopt(folder, tmp_path / "ours")
    ours, _ = load_checkpoint(tmp_path / "ours")
    tiles = torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[9, 8, *([IMAGE] * 49 * count), 30, 31, 32]])
    with torch.no_grad():
        torch.testing.assert_close(
            ours(input_ids=ids, pixel_values=tiles).logits, their_logits(theirs, ids, tiles), rtol=1e-5, atol=1e-5
        )


def test_what_is_kept_and_what_is_left_out(make_onevision: MakeOnevision, tmp_path: Path) -> None:
    folder, theirs = make_onevision(vision_feature_layer=-2)
    adoption = adopt(folder, tmp_path / "ours", max_cols=3, max_rows=2)
    ours, processor = load_checkpoint(tmp_path / "ours")
    assert adoption.layout == "LLaVA-OneVision"
    assert adoption.tokens_per_tile == 49
    assert "image_newline" in adoption.notes[0]
    assert "last 1 of 3 layers" in adoption.notes[1]
    assert ours.config.vision_config.num_hidden_layers == 2
    assert adoption.parameters == ours.num_parameters()
    images = processor.image_processor
    assert (images.image_mean, images.image_std, images.resample) == ([0.4, 0.5, 0.6], [0.2] * 3, "bilinear")
    assert (images.spec.tile_size, images.spec.tokens_per_tile) == (28, 49)
    assert (images.spec.max_cols, images.spec.max_rows) == (3, 2)
    assert ours.config.image_token_id == processor.image_token_id == IMAGE
    assert ours.get_input_embeddings().num_embeddings == theirs.config.text_config.vocab_size


def test_its_own_chat_template_is_kept_when_it_handles_pictures(make_onevision: MakeOnevision, tmp_path: Path) -> None:
    folder, _ = make_onevision()
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}{% for c in m['content'] %}"
        "{{ '<image>\n' if c['type'] == 'image' else c['text'] }}{% endfor %}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    adoption = adopt(folder, tmp_path / "ours")
    assert adoption.chat_template == "the model's own"
    _, processor = load_checkpoint(tmp_path / "ours")
    prompt = processor.prompts.encode([user("Hi", images=1)], [49], add_generation_prompt=True)
    assert prompt.text == "<|im_start|>user <image>\nHi<|im_end|><|im_start|>assistant\n"


def test_a_chat_template_for_text_alone_is_replaced(make_onevision: MakeOnevision, tmp_path: Path) -> None:
    folder, _ = make_onevision()
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}")
    adoption = adopt(folder, tmp_path / "ours")
    _, processor = load_checkpoint(tmp_path / "ours")
    assert adoption.chat_template == "chatml, by its special tokens"
    assert processor.prompts.encode([user("Hi", images=1)], [49]).image_tokens == 49


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vision_feature_layer": [-1, -2]}, r"vision_feature_layer is \[-1, -2\]"),
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy is 'default'"),
        ({"multimodal_projector_bias": False}, "has no biases"),
    ],
)
def test_variants_that_compute_something_else_are_refused(
    make_onevision: MakeOnevision, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    folder, _ = make_onevision(**fields)
    with pytest.raises(BluelmError, match=words) as caught:
        adopt(folder, tmp_path / "ours")
    assert "llava-onevision-qwen2" in caught.value.fix
