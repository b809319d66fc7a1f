"""A transformers model of speech recognition from a folder, against the model run by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stages.artifacts.errors import ModelError
from stages.device.speech.recording import Recording
from stages.workshop.speech.recogniser import Recogniser

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny wav2vec2 with random weights."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    path = tmp_path_factory.mktemp("asr")
    (path / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(LETTERS)}))
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    conv = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (10, 8), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = Wav2Vec2Config(vocab_size=len(LETTERS), pad_token_id=0, **size, **conv, **positions)
    Wav2Vec2ForCTC(config).eval().save_pretrained(path)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000)
    tokenizer = Wav2Vec2CTCTokenizer(str(path / "vocab.json"))
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(path)
    return path


def test_it_hears_what_the_model_hears(folder: Path) -> None:
    import torch
    from transformers import AutoProcessor, Wav2Vec2ForCTC

    sound = Recording(np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32), 16_000)
    processor = AutoProcessor.from_pretrained(folder)
    model = Wav2Vec2ForCTC.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**processor(sound.samples, sampling_rate=16_000, return_tensors="pt")).logits
    expected = processor.batch_decode(logits.argmax(-1))[0].strip()
    recogniser = Recogniser(folder)
    assert recogniser.rate == 16_000
    assert recogniser.transcribe(sound) == expected != ""
    assert recogniser.transcribe(sound.at(48_000)) != ""


def test_folders_that_hold_no_such_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        Recogniser(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="--asr"):
        Recogniser(tmp_path)
