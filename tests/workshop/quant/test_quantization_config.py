"""quantization_config: compressed-tensors reads from it exactly the schemes that were assigned."""

import pytest
import torch
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import ModelError
from stages.workshop.quant.policy import Scheme
from stages.workshop.quant.quantization_config import AtExport, OwnKeys, build, read, scheme_of, targets

LINEARS = [f"model.layers.{n}.mlp.{leaf}" for n in (0, 1, 10) for leaf in ("up_proj", "down_proj")] + ["head.up_proj"]
INT4, INT8 = Scheme(weights="int4", group_size=32), Scheme(weights="int8")


def module_tree():
    root = torch.nn.Module()
    for name in LINEARS:
        at = root
        for part in name.split(".")[:-1]:
            if part not in dict(at.named_children()):
                at.add_module(part, torch.nn.Module())
            at = at.get_submodule(part)
        at.add_module(name.split(".")[-1], torch.nn.Linear(64, 64, device="meta"))
    return root


@given(st.lists(st.sampled_from([INT4, INT8, None]), min_size=len(LINEARS), max_size=len(LINEARS)))
def test_any_assignment_survives_the_trip_through_compressed_tensors(schemes):
    stored = {name: scheme for name, scheme in zip(LINEARS, schemes, strict=True) if scheme is not None}
    config = build(stored, LINEARS, OwnKeys())
    groups, _ = read({"quantization_config": config}, "config.json")
    for name in LINEARS:
        assert scheme_of(name, groups) == stored.get(name)
    assert sorted(config["ignore"]) == sorted(set(LINEARS) - set(stored))
    if not stored:
        return
    tree = module_tree()
    apply_quantization_config(tree, QuantizationConfig.model_validate(config))
    for name in LINEARS:
        theirs = getattr(tree.get_submodule(name), "quantization_scheme", None)
        expected = stored.get(name)
        assert (theirs.weights.num_bits if theirs else None) == (expected.bits if expected else None)
        assert (theirs.weights.group_size if theirs else None) == (expected.group_size if expected else None)


def test_layers_with_one_scheme_become_one_pattern_and_an_exception_is_spelt_out():
    ups = [name for name in LINEARS if name.startswith("model") and name.endswith("up_proj")]
    assert targets(ups, LINEARS) == [r"re:^model\.layers\.\d+\.mlp\.up_proj$"]
    assert targets(ups[:2], LINEARS) == ups[:2]
    assert targets(["head.up_proj"], LINEARS) == ["head.up_proj"]


def test_our_own_key_round_trips():
    own = OwnKeys(
        scale_dtype="float32",
        kv="float32",
        activations={"language_model": "int16"},
        at_export={"lm_head": AtExport(weights="int8", tensor="model.embed_tokens.weight")},
    )
    config = build({LINEARS[0]: INT4}, LINEARS, own)
    assert read({"quantization_config": config}, "config.json")[1] == own
    assert "input_activations" in config["config_groups"]["int4_groups_of_32"]
    assert config["config_groups"]["int4_groups_of_32"]["input_activations"] is None


@pytest.mark.parametrize("config", [{}, {"quantization_config": {"format": "pack-quantized"}}])
def test_a_folder_of_someone_else_is_refused(config):
    with pytest.raises(ModelError, match=r"x/config\.json has no quantization_config of bluelm"):
        read(config, "x/config.json")
