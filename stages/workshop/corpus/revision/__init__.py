"""Captions and question-answer pairs written or revised by a model behind an OpenAI-compatible endpoint (Sec. 4)."""
