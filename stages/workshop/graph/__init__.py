"""ONNX graphs: weights from a checkpoint or thin air, one emitter per graph, comparison with torch."""
