"""The verb: plan before weights, all problems before anything is written, a report that can be recomputed."""

import json

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicCache

from stages.artifacts.errors import ArtifactError, BluelmError, DataError, ModelError, RecipeError, UsageError
from stages.artifacts.events import Notice, result_of
from stages.artifacts.folder import ArtifactSpec, create, open_artifact
from stages.artifacts.recipes import load_config
from stages.device.contract.kv_scales import read_kv_scales
from stages.device.imaging.loading import load_image
from stages.device.prompt.messages import assistant, user
from stages.quantize import QuantizeConfig, plan, run
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.report import read_report


def config_of(*sets, **flags):
    return load_config(QuantizeConfig, "quantize.yaml", sets, flags)


def rule(modules, weights, **more):
    return {"modules": modules, "weights": weights, **more}


def rules(*lines):
    return "rules=" + json.dumps(lines)


def prompts_of(corpus):
    """All training rows as model inputs, built here from the JSON."""
    rows = json.loads((corpus / "train.json").read_text())
    for row in rows:
        human, answer = (turn["value"] for turn in row["conversations"])
        turns = [user(human.removeprefix("<image>\n"), 1), assistant(answer)]
        yield turns, load_image(corpus / row["image"])


def run_prompts(model, processor, corpus):
    """All prompts through a model; yields the cache after each."""
    for turns, picture in prompts_of(corpus):
        sample = processor.encode_chat(turns, [picture])
        cache = DynamicCache()
        inputs = {
            "input_ids": torch.tensor([sample.input_ids]),
            "pixel_values": torch.from_numpy(sample.pixel_values),
        }
        with torch.inference_mode():
            # The head is seen where it chooses an answer's tokens.
            places = torch.nonzero(torch.tensor(sample.labels)[1:] >= 0)[:, 0]
            model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=places)
        yield cache


def test_kv_scales_are_the_largest_value_seen_over_127(checkpoint, corpus, quantized):
    largest = np.zeros((2, 2))
    for cache in run_prompts(*load_checkpoint(checkpoint), corpus):
        for layer, held in enumerate(cache.layers):
            seen = [float(values.abs().max()) for values in (held.keys, held.values)]
            largest[:, layer] = np.maximum(largest[:, layer], seen)
    scales = read_kv_scales(quantized, 2)
    np.testing.assert_allclose([scales.keys, scales.values], largest / 127, rtol=1e-6)


def test_errors_of_the_report_recomputed(checkpoint, corpus, quantized):
    report = {layer.name: layer for layer in read_report(quantized).layers}
    folder = QuantizedFolder(quantized)
    model, processor = load_checkpoint(checkpoint)
    seen = {name: [] for name in report}
    for name in report:

        def keep(_, arguments, name=name):
            seen[name].extend(arguments[0].reshape(-1, arguments[0].shape[-1]).double().numpy())

        if "embed_tokens" not in name:
            model.get_submodule(name).register_forward_pre_hook(keep)
    assert len(list(run_prompts(model, processor, corpus))) == read_report(quantized).calibration.samples
    for name, layer in report.items():
        weight = model.get_parameter(f"{name}.weight").detach().double().numpy()
        rounded = folder.weight(name).astype(np.float64)
        expected = np.linalg.norm(weight - rounded) / np.linalg.norm(weight)
        assert layer.weight_error == pytest.approx(expected, rel=1e-6)
        if "embed_tokens" in name:
            assert layer.output_error is None
            continue
        ratios = [np.linalg.norm((weight - rounded) @ x) / np.linalg.norm(weight @ x) for x in seen[name]]
        assert layer.output_error == pytest.approx(np.mean(ratios), rel=1e-4), name


def test_the_dry_run_knows_the_bytes_that_are_written(checkpoint, quantized):
    decided = plan(config_of(), checkpoint)
    folder = QuantizedFolder(quantized)
    written = sum(info.bytes for info in folder.tensors.infos.values())
    assert decided.total.bytes_after == written
    report = read_report(quantized)
    assert report.total == decided.total
    assert report.parts == decided.parts
    assert sum(part.bytes_after for part in report.parts) == written
    assert open_artifact(quantized, "quantized").manifest.metrics["bytes_after"] == written


def test_true_bits_of_the_language_model_by_hand(quantized):
    # Two layers of 64 wide, MLP 96, 4 heads and 2 KV heads of 16.
    linears = {"q": 64 * 64, "k": 32 * 64, "v": 32 * 64, "o": 64 * 64, "gate": 96 * 64, "up": 96 * 64, "down": 64 * 96}
    weights = 2 * sum(linears.values())
    norms = 2 * 2 * 64 + 64
    bits = 4 * weights + 16 * weights / 32 + 2 * 7 * 2 * 64 + 32 * norms
    part = next(part for part in read_report(quantized).parts if part.part == "language model")
    assert part.weights == weights + norms
    assert part.bits_per_weight == pytest.approx(bits / (weights + norms), rel=1e-12)


def test_the_same_inputs_give_the_same_bytes(quantize, checkpoint, quantized):
    again = quantize(checkpoint)
    assert open_artifact(again, "quantized").digest == open_artifact(quantized, "quantized").digest


def test_a_second_run_is_up_to_date_and_another_policy_is_an_error(checkpoint, corpus, tmp_path):
    out = tmp_path / "q"
    first = result_of(run(config_of(), checkpoint, corpus, out))
    events = list(run(config_of(), checkpoint, corpus, out))
    assert [event.text for event in events if isinstance(event, Notice)] == [f"{out} is up to date"]
    assert events[-1].result.report == first.report
    with pytest.raises(ArtifactError, match="kv"):
        result_of(run(config_of(kv="float32"), checkpoint, corpus, out))
    result_of(run(config_of(kv="float32"), checkpoint, corpus, out, force=True))
    assert not (out / "kv_scales.json").exists()


def test_without_a_corpus_only_a_float_cache_works(checkpoint, tmp_path):
    with pytest.raises(UsageError, match="--data is missing") as caught:
        result_of(run(config_of(), checkpoint, None, tmp_path / "q"))
    assert "--kv float32" in caught.value.fix
    result = result_of(run(config_of(kv="float32"), checkpoint, None, tmp_path / "q"))
    assert all(layer.output_error is None for layer in result.report.layers)
    assert result.report.worst(1)[0].weight_error == max(layer.weight_error for layer in result.report.layers)


def test_columns_that_groups_do_not_divide_stop_it_before_anything_is_written(make_checkpoint, corpus, tmp_path):
    source = make_checkpoint(text_mlp=172)
    with pytest.raises(BluelmError) as caught:
        result_of(run(config_of(), source, corpus, tmp_path / "q"))
    whats = [problem.what for problem in caught.value.problems]
    assert len(whats) == 2
    assert all("mlp.down_proj has 172 columns" in what for what in whats)
    assert list(tmp_path.iterdir()) == []
    mended = rules(
        rule("language_model.model.layers.*.mlp.down_proj", "int4", group_size=4),
        rule("language_model.model.layers.*", "int4"),
    )
    result = result_of(run(config_of(mended), source, corpus, tmp_path / "q"))
    assert {layer.scheme for layer in result.report.layers} == {"int4 groups of 4", "int4 groups of 32"}


def test_all_that_is_wrong_is_told_at_once(make_checkpoint, tmp_path):
    source = make_checkpoint(text_mlp=172)
    with pytest.raises(BluelmError) as caught:
        result_of(run(config_of(), source, None, tmp_path / "q"))
    whats = " ".join(problem.what for problem in caught.value.problems)
    assert "layers.0.mlp.down_proj" in whats
    assert "layers.1.mlp.down_proj" in whats
    assert "--data is missing" in whats


def test_a_stopped_run_without_prompts_leaves_nothing(checkpoint, tmp_path):
    events = run(config_of(kv="float32"), checkpoint, None, tmp_path / "q")
    for _ in range(5):
        next(events)
    events.close()
    assert list(tmp_path.glob("q")) == []
    assert list(tmp_path.glob(".q.partial")) == []


def test_a_pattern_for_another_model_is_named(checkpoint):
    with pytest.raises(RecipeError, match=r"'model\.layers\.\*', matches no module"):
        plan(config_of(rules(rule("model.layers.*", "int4"))), checkpoint)


def test_a_quantized_folder_cannot_be_quantized_again(quantized, tmp_path):
    with pytest.raises(ArtifactError, match="of kind quantized"):
        plan(config_of(), quantized)
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("config.json", "model.safetensors"):
        (plain / name).write_bytes((quantized / name).read_bytes())
    with pytest.raises(ArtifactError, match="quantized already"):
        plan(config_of(), plain)


def test_a_corpus_without_rows_or_of_another_kind(checkpoint, tmp_path):
    empty = tmp_path / "empty"
    with create(empty, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "train.json").write_text("[]")
    with pytest.raises(DataError, match=r"train\.json has no rows"):
        result_of(run(config_of(), checkpoint, empty, tmp_path / "q"))
    with pytest.raises(ArtifactError, match="kind corpus"):
        result_of(run(config_of(), checkpoint, checkpoint, tmp_path / "q"))


def test_another_architecture_is_sent_to_adopt(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="'llava'") as caught:
        plan(config_of(), tmp_path)
    assert "bluelm adopt" in caught.value.fix


def test_weights_of_another_model_are_found_without_reading_them(checkpoint, make_checkpoint, tmp_path):
    other = make_checkpoint(text_mlp=64)
    (tmp_path / "config.json").write_bytes((other / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    with pytest.raises(BluelmError) as caught:
        plan(config_of(), tmp_path)
    assert len(caught.value.problems) == 6
    assert "config.json asks for [64, 64]" in caught.value.problems[0].what
