"""How a model learns: recipes, what is trained and how fast, samples and batches, the Trainer, resumable states."""
