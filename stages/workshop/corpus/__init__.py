"""Conversation data: reading and writing LLaVA's JSON, a corpus index, and pictures drawn from a seed."""
