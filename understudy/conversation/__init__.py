"""Threads in Markdown, kept in Git."""
