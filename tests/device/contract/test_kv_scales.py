"""kv_scales.json: genai's schema, round trip, and what a bad file says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import ModelError
from stages.device.contract.kv_scales import KvScales, read_kv_scales

GOOD = {"scales": {"k_scales": [0.5, 0.25], "v_scales": [0.125, 1.0]}, "layer_ids": [0, 1]}
SCALE = st.floats(1e-8, 1e8)


def test_writes_genais_schema(tmp_path):
    KvScales.of((0.5, 0.25), (0.125, 1.0)).write(tmp_path)
    assert json.loads((tmp_path / "kv_scales.json").read_text()) == GOOD


@given(st.lists(st.tuples(SCALE, SCALE), min_size=1, max_size=6))
def test_round_trip_is_exact(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("kv")
    scales = KvScales.of(tuple(k for k, _ in pairs), tuple(v for _, v in pairs))
    scales.write(folder)
    assert read_kv_scales(folder, len(pairs)) == scales


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_ids": [0]}, "2 key scales, 2 value scales and 1 layer ids"),
        ({"layer_ids": [1, 0]}, r"layer ids \[1, 0\]"),
        ({"scales": {"k_scales": [0.5, -1.0], "v_scales": [1.0, 1.0]}}, "entry 1 is -1.0"),
        ({"scales": {"k_scales": [0.5, 0.0], "v_scales": [1.0, 1.0]}}, "entry 1 is 0.0"),
        ({"scales": {"k_scales": [[0.5, 0.5], [0.5]], "v_scales": [1.0, 1.0]}}, "k_scales"),
        ({"scales": {"k_scales": [[0.5], 0.5], "v_scales": [1.0, 1.0]}}, "lists of one length"),
        ({"scales": {"k_scales": [[0.5, 0.0], [1.0, 1.0]], "v_scales": [1.0, 1.0]}}, "entry 0 is 0.0"),
        ({"zero_points": []}, "zero_points"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, change, message):
    (tmp_path / "kv_scales.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(ModelError, match=message) as caught:
        read_kv_scales(tmp_path, 2)
    assert "kv_scales.json" in caught.value.what
    assert "bluelm quantize" in caught.value.fix


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "kv_scales.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"kv_scales\.json"):
        read_kv_scales(tmp_path, 2)


def test_missing_file_and_wrong_layer_count(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        read_kv_scales(tmp_path, 2)
    (tmp_path / "kv_scales.json").write_text(json.dumps(GOOD))
    with pytest.raises(ModelError, match="2 layers, the model has 3"):
        read_kv_scales(tmp_path, 3)


def test_scales_of_channels_fit_keys_and_values(tmp_path):
    keys, values = ((1.0, 2.0, 3.0, 4.0),) * 2, (0.5, 0.25)
    KvScales.of(keys, values).write(tmp_path)
    scales = read_kv_scales(tmp_path, 2, channels=4)
    assert scales.channels == 4
    key, value = scales.arrays(1, heads=2)
    assert key.tolist() == [[[1.0, 2.0]], [[3.0, 4.0]]]
    assert value.tolist() == [[[0.25]]]
    with pytest.raises(ModelError, match="scales for 4 channels, the model has 8"):
        read_kv_scales(tmp_path, 2, channels=8)
