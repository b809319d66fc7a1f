"""An exported model on onnxruntime: encode pipeline, chunked prefill, KV cache, sampling, conversations."""
