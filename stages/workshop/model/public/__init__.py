"""Public checkpoints of this architecture, taken over from their published folder layouts."""
