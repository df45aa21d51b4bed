"""The embedded default model: its corpus, its recipe, its card, its checkpoint."""
