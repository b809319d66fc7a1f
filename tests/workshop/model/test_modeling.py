"""The model against transformers' own classes, and against itself along other paths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaForCausalLM, SiglipVisionModel

from stages.artifacts.errors import ModelError
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration

MakeModel = Callable[..., BlueLMVForConditionalGeneration]
IMAGE = 3


def pixels(tiles: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(tiles, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


def prompt(tiles: int, text: int = 6, seed: int = 0) -> torch.Tensor:
    """[1, L]: some text, the slots of `tiles` tiles (16 each), more text."""
    words = torch.randint(4, 200, (2 * text,), generator=torch.Generator().manual_seed(seed))
    return torch.cat([words[:text], torch.full((16 * tiles,), IMAGE), words[text:]])[None]


@pytest.mark.parametrize(("layer", "normed"), [(-1, True), (-1, False), (-2, False), (-4, False)])
def test_the_tower_is_transformers_own(make_model: MakeModel, layer: int, normed: bool) -> None:
    model = make_model(vision_feature_layer=layer, vision_post_layernorm=normed)
    tower = SiglipVisionModel(model.config.vision_config).eval()
    tower.load_state_dict(model.vision_tower.state_dict())
    theirs = tower(pixels(2), output_hidden_states=True)
    expected = theirs.last_hidden_state if normed else theirs.hidden_states[layer]
    torch.testing.assert_close(model.get_vision_features(pixels(2)), expected, rtol=0, atol=0)


def test_the_language_model_is_transformers_own(make_model: MakeModel) -> None:
    model = make_model()
    llama = LlamaForCausalLM(model.config.text_config).eval()
    llama.load_state_dict(model.language_model.state_dict())
    ids = prompt(0)
    torch.testing.assert_close(model(input_ids=ids).logits, llama(input_ids=ids).logits, rtol=0, atol=0)


def test_image_tokens_take_their_slots_in_order(make_model: MakeModel) -> None:
    model = make_model()
    ids, tiles = prompt(2), pixels(2)
    embeds = model.get_input_embeddings()(ids).clone()
    features = model.get_image_features(tiles)
    slot = 0
    for position in range(ids.shape[1]):
        if ids[0, position] == IMAGE:
            embeds[0, position] = features[slot // 16, slot % 16]
            slot += 1
    expected = model.language_model(inputs_embeds=embeds).logits
    torch.testing.assert_close(model(input_ids=ids, pixel_values=tiles).logits, expected, rtol=0, atol=0)
    torch.testing.assert_close(model(input_ids=ids, image_features=features).logits, expected, rtol=0, atol=0)
    torch.testing.assert_close(
        model(input_ids=ids, image_features=features.flatten(0, 1)).logits, expected, rtol=0, atol=0
    )


def test_a_batch_equals_its_rows_alone(make_model: MakeModel) -> None:
    """Two prompts with different numbers of tiles, padded right: all tiles go through the tower as one batch."""
    model = make_model()
    first, second = prompt(1, seed=1), prompt(3, seed=2)
    length = second.shape[1]
    padded = torch.cat([first, torch.zeros(1, length - first.shape[1], dtype=torch.long)], dim=1)
    mask = (torch.arange(length) < torch.tensor([[first.shape[1]], [length]])).long()
    tiles = pixels(4)
    logits = model(input_ids=torch.cat([padded, second]), pixel_values=tiles, attention_mask=mask).logits
    alone = model(input_ids=first, pixel_values=tiles[:1]).logits
    torch.testing.assert_close(logits[:1, : first.shape[1]], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits[1:], model(input_ids=second, pixel_values=tiles[1:]).logits, rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_mean_over_labels(make_model: MakeModel) -> None:
    model = make_model()
    ids = prompt(1)
    labels = torch.full_like(ids, -100)
    labels[0, -3:] = ids[0, -3:]
    output = model(input_ids=ids, pixel_values=pixels(1), labels=labels)
    scores = output.logits[0, -4:-1].log_softmax(-1)
    expected = -scores[torch.arange(3), ids[0, -3:]].mean()
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=1e-6)


def test_cached_decoding_equals_the_full_forward(make_model: MakeModel) -> None:
    model = make_model()
    ids, tiles = prompt(2), pixels(2)
    full = model(input_ids=ids, pixel_values=tiles).logits
    cut = ids.shape[1] - 3
    step = model(input_ids=ids[:, :cut], pixel_values=tiles, use_cache=True)
    logits = [step.logits]
    for position in range(cut, ids.shape[1]):
        step = model(input_ids=ids[:, position : position + 1], past_key_values=step.past_key_values, use_cache=True)
        logits.append(step.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", ["pixel_values", "image_features"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_is_greedy_argmax_of_forward(make_model: MakeModel, given: str, use_cache: bool) -> None:
    model = make_model()
    ids, tiles = prompt(2), pixels(2)
    pictures = (
        {"pixel_values": tiles} if given == "pixel_values" else {"image_features": model.get_image_features(tiles)}
    )
    generated = model.generate(
        input_ids=ids, **pictures, max_new_tokens=4, do_sample=False, eos_token_id=None, use_cache=use_cache
    )
    for _ in range(4):
        scores = model(input_ids=ids, pixel_values=tiles).logits[0, -1]
        scores[IMAGE] = -torch.inf
        ids = torch.cat([ids, scores.argmax()[None, None]], dim=1)
    assert generated.tolist() == ids.tolist()


def test_gradient_checkpointing_changes_no_gradient(make_model: MakeModel) -> None:
    ids, tiles = prompt(1), pixels(1)
    gradients = []
    for checkpointing in (False, True):
        model = make_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            assert model.vision_tower.encoder.layers[0].gradient_checkpointing
        model(input_ids=ids, pixel_values=tiles, labels=ids).loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, msg=name)


def test_every_parameter_learns(make_model: MakeModel) -> None:
    model = make_model(fuse_linear=True).train()
    model(input_ids=prompt(1), pixel_values=pixels(1), labels=prompt(1)).loss.backward()
    still = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    # A bias of the keys shifts all scores of a row alike: softmax does not see it.
    assert all(name.endswith("k_proj.bias") for name in still), still


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (lambda: {"input_ids": prompt(2), "pixel_values": pixels(1)}, "32 image slots, the pictures give 16"),
        (lambda: {"input_ids": prompt(1)}, "16 image slots, the pictures give 0"),
        (lambda: {"input_ids": prompt(0), "pixel_values": pixels(1)}, "0 image slots, the pictures give 16"),
        (lambda: {"input_ids": prompt(1), "pixel_values": torch.zeros(1, 3, 32, 32)}, r"not \[tiles, 3, 28, 28\]"),
        (lambda: {"input_ids": prompt(1), "pixel_values": pixels(1)[None]}, r"not \[tiles, 3, 28, 28\]"),
        (dict, "either input_ids or inputs_embeds"),
        (lambda: {"input_ids": prompt(1), "pixel_values": pixels(1), "image_features": pixels(1)}, "got both"),
        (lambda: {"inputs_embeds": torch.zeros(1, 3, 32), "pixel_values": pixels(1)}, "together with inputs_embeds"),
    ],
)
def test_inputs_that_do_not_fit_say_so(make_model: MakeModel, inputs: Callable[[], dict], words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        make_model()(**inputs())
    assert caught.value.why
    assert caught.value.fix


def test_tokens_per_tile_follows_from_the_grid(make_config: Callable[..., BlueLMVConfig]) -> None:
    assert make_config(image_size=384, patch_size=14).tokens_per_tile == 196
    assert make_config(image_size=384, patch_size=14, downsampler="none").tokens_per_tile == 729
    assert make_config(image_size=112, patch_size=16).tokens_per_tile == 16
