"""Accuracy: questions with known answers, who answers them, and how sure the count is."""
