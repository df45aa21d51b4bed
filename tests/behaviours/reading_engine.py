"""The pocket model in fp32 with random directions to read, for tests of readouts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from understudy.config import ModelSettings
from understudy.engine import Directions, EmbeddedEngine, ReadoutManifest
from understudy.pocket import checkpoint_directory

CONCEPTS = ["calm", "curious"]
LAYERS = (0, 2)
_SIZE = 128


@contextmanager
def reading_engine(folder: Path) -> Iterator[EmbeddedEngine]:
    """`folder` is for the directions."""
    draw = torch.Generator().manual_seed(0)
    manifest = ReadoutManifest(concepts=CONCEPTS, layers=list(LAYERS), hidden_size=_SIZE, dtype="float32")
    Directions(manifest, {n: torch.randn(len(CONCEPTS), _SIZE, generator=draw) for n in LAYERS}).save(folder)
    settings = ModelSettings(dtype="float32")
    with EmbeddedEngine(settings, checkpoint_directory(), readout=folder) as opened:
        yield opened
