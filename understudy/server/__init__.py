"""HTTP: the OpenAI-compatible API, the training API."""
