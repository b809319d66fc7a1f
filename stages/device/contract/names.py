"""Names of graph files, inputs and outputs, as in onnxruntime-genai, so that its tools can open what we write."""

from __future__ import annotations

PATCH_EMBED_FILE = "patch_embed.onnx"
VISION_FILE = "vision.onnx"
EMBEDDING_FILE = "embedding.onnx"
DECODER_FILE = "decoder.onnx"
GRAPH_FILES = (PATCH_EMBED_FILE, VISION_FILE, EMBEDDING_FILE, DECODER_FILE)
# Embedding and decoder as one graph over their weight files, for engines that read text only: onnxruntime-genai.
TEXT_FILE = "text.onnx"
# What the runtime opens: it reads rows of the embedding table without a graph.
RUN_FILES = (PATCH_EMBED_FILE, VISION_FILE, DECODER_FILE)

DEVICE_CONFIG_FILE = "device.json"
GENAI_CONFIG_FILE = "genai_config.json"
KV_SCALES_FILE = "kv_scales.json"
TOKENIZER_FILE = "tokenizer.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"

# patch_embed.onnx: pixel_values [tiles, 3, S, S] (`VisionSpec.pixels`) -> patch_embeds [tiles, patches, C]
PIXEL_VALUES = "pixel_values"
PATCH_EMBEDS = "patch_embeds"

# vision.onnx: patch_embeds [tiles, patches, C] -> image_features [tiles, tokens, H]
IMAGE_FEATURES = "image_features"
# Second output of vision.onnx, before the connector: [tiles, patches, C]
VIT_FEATURES = "vit_features"

# embedding.onnx: input_ids [1, T] int64 -> inputs_embeds [1, T, H] float32
INPUT_IDS = "input_ids"
INPUTS_EMBEDS = "inputs_embeds"

# decoder.onnx: inputs_embeds [1, T, H], attention_mask [1, past + T] int64 -> logits [1, 1, V] of the last position
ATTENTION_MASK = "attention_mask"
LOGITS = "logits"


def past_key(layer: int) -> str:
    """Input: keys so far, [1, kv_heads, capacity, head_dim]."""
    return f"past_key_values.{layer}.key"


def past_value(layer: int) -> str:
    """Input: values so far, [1, kv_heads, capacity, head_dim]."""
    return f"past_key_values.{layer}.value"


def present_key(layer: int) -> str:
    """Output: keys with this call's, bound to the same buffer as `past_key`."""
    return f"present.{layer}.key"


def present_value(layer: int) -> str:
    """Output: values with this call's, bound to the same buffer as `past_value`."""
    return f"present.{layer}.value"
