"""The terminal: the only place that knows typer and rich, and the only one that prints."""
