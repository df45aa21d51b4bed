"""A served model: load, generate, score, watch."""
