"""Readers of conversation data, a file for each format; `opening.open_rows` tells them apart."""
