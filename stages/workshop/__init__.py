"""Where models are made: torch, transformers and onnx live here, and nothing a phone would carry imports it."""
