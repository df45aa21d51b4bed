"""The model as a member of a conversation."""
