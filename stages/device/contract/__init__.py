"""What the workshop and the device agree on, as data and numpy: graph names, configuration, KV scales, numerics."""
