"""Static graphs for phones' NPUs: QDQ with calibrated ranges, what a compiler refuses, context binaries."""
