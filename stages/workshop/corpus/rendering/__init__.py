"""Pictures with questions and answers, drawn from nothing: deterministic per seed and index."""
