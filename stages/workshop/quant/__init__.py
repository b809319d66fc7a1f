"""Quantization: policy, rounding, the files' layout, calibration, what it costs, and its simulation in torch."""
