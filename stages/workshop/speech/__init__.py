"""Speech recognition by transformers, for `bluelm chat --asr`."""
