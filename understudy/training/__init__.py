"""APOLLO, the frozen context, objectives, the trainer process."""
