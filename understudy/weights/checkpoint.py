"""A model directory's tensors: its safetensors files, read and replaced whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from understudy.weights.errors import HistoryBroken, WeightsMismatch


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which tensor lies in which file of a model directory."""

    directory: Path
    files: Mapping[str, tuple[str, ...]]
    """File name -> the names of its tensors."""

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Read the headers of all safetensors files; raises HistoryBroken when there is none."""
        files: dict[str, tuple[str, ...]] = {}
        for file in sorted(directory.glob("*.safetensors")):
            with safe_open(file, "pt") as held:
                files[file.name] = tuple(held.keys())
        if not files:
            raise HistoryBroken(
                f"expected *.safetensors in {directory}, found none: is it a model directory?"
            )
        return cls(directory, files)

    @property
    def names(self) -> set[str]:
        return {name for names in self.files.values() for name in names}

    def tensors(self, file: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of one file with their names, one at a time: a model may outgrow free memory."""
        with safe_open(self.directory / file, "pt") as held:
            for name in self.files[file]:
                yield name, held.get_tensor(name)

    def write_aside(self, file: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Write a file's successor beside it, synced, under the name `<file>.new`.

        The header and the order of the tensors stay as they are, so the same values give the same bytes.
        """
        aside = self.directory / f"{file}.new"
        shutil.copyfile(self.directory / file, aside)
        with aside.open("r+b") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
            for name, tensor in tensors:
                start, end = header[name]["data_offsets"]
                raw = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                if len(raw) != end - start:
                    raise WeightsMismatch(f"{name}: expected {end - start} bytes for {file}, got {len(raw)}")
                stream.seek(8 + length + start)
                stream.write(raw)
        sync(aside)

    def adopt_aside(self, file: str, digest: str) -> bool:
        """Put the successor in its place if it is there and is what `digest` says; False otherwise."""
        aside = self.directory / f"{file}.new"
        if not aside.is_file() or self.digest(aside.name) != digest:
            return False
        aside.rename(self.directory / file)
        sync(self.directory)
        return True

    def digest(self, file: str) -> str:
        """SHA-256 of one file's bytes."""
        with (self.directory / file).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def stored_form(tensor: torch.Tensor, stored: torch.Tensor, name: str) -> torch.Tensor:
    """`tensor` in the element type in which it is stored; raises when that would lose bits."""
    if tensor.shape != stored.shape:
        raise WeightsMismatch(f"{name}: expected shape {tuple(stored.shape)}, got {tuple(tensor.shape)}")
    if tensor.dtype == stored.dtype:
        return tensor.detach()
    converted = tensor.detach().to(stored.dtype)
    if not torch.equal(converted.to(tensor.dtype), tensor.detach()):
        raise WeightsMismatch(
            f"{name}: served as {tensor.dtype} but stored as {stored.dtype}, which cannot hold it exactly: "
            "serve the model in the element type of its files"
        )
    return converted


def sync(path: Path) -> None:
    """Flush a file or a directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
