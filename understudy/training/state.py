"""Optimizer state on disk: it belongs to one weight commit and one set of settings, or it is not used."""

import os
from pathlib import Path

import torch

from understudy.config import TrainingSettings
from understudy.training.apollo import Apollo


def save_optimizer(file: Path, optimizer: Apollo, settings: TrainingSettings, commit: str) -> None:
    """Write aside, sync, rename."""
    aside = file.with_suffix(".new")
    with aside.open("wb") as stream:
        torch.save(
            {"commit": commit, "settings": settings.model_dump_json(), "state": optimizer.state_dict()},
            stream,
        )
        stream.flush()
        os.fsync(stream.fileno())
    aside.rename(file)


def load_optimizer(file: Path, optimizer: Apollo, settings: TrainingSettings, commit: str | None) -> bool:
    """Load the moments when they were made by `settings` and end at `commit`; False when they were not."""
    if commit is None or not file.is_file():
        return False
    held = torch.load(file, weights_only=True, map_location="cpu")
    if held["commit"] != commit or held["settings"] != settings.model_dump_json():
        return False
    optimizer.load_state_dict(held["state"])
    return True
