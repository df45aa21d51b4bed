"""The parameters as shared memory, and their history."""
