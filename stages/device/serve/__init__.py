"""A server that speaks OpenAI's chat completions: one model, one engine thread, a bounded queue."""
