"""Understudy: a hosted language model that learns from the conversations people have with it."""

__version__ = "0.1.0"
