"""What a phone would carry: never torch, transformers or onnx."""
