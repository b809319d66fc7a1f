"""The model: configuration, tower, connector and language model, processor, presets, checkpoints, public imports."""
