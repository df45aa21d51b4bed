"""A model directory's tensors: which lies where in its safetensors files, and reading them."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from understudy.weights.delta import raw_bytes, read_header
from understudy.weights.errors import HistoryBroken, WeightsMismatch

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies: `start` and `end` count bytes from the beginning of the file."""

    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class FileStat:
    """What tells quickly that a file is the one we know."""

    size: int
    modified: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> "FileStat":
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which tensor lies in which file of a model directory, as a reader of the directory sees it."""

    directory: Path
    files: Mapping[str, tuple[str, ...]]
    """File name -> the names of its tensors, in the order of the file."""
    places: Mapping[str, StoredTensor]
    headers: Mapping[str, int]
    """File name -> how many bytes stand before its tensors."""
    sharded: bool

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Read the headers of the files that Hugging Face's loader would take.

        That is `model.safetensors`, else what the index names, else the only safetensors file. Raises
        HistoryBroken when there is none of these, or one is not what it should be.
        """
        return cls._of(directory, *_visible(directory))

    @classmethod
    def open_source(cls, source: Path) -> "Checkpoint":
        """The tensors of a model directory, or of one safetensors file."""
        return cls._of(source.parent, [source.name], False) if source.is_file() else cls.open(source)

    @classmethod
    def _of(cls, directory: Path, names: list[str], sharded: bool) -> "Checkpoint":
        files: dict[str, tuple[str, ...]] = {}
        places: dict[str, StoredTensor] = {}
        headers: dict[str, int] = {}
        for file in names:
            described, headers[file] = read_header(directory / file)
            held = {name: _stored(directory / file, name, entry) for name, entry in described.items()}
            files[file] = tuple(sorted(held, key=lambda name: (held[name].start, name)))
            places |= held
        return cls(directory, files, places, headers, sharded)

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor, file by file, in the order of the file."""
        return tuple(name for names in self.files.values() for name in names)

    def stats(self) -> dict[str, FileStat]:
        """What the files look like from outside, now."""
        return {file: FileStat.of((self.directory / file).stat()) for file in self.files}

    @contextmanager
    def reading(self) -> Iterator["OpenTensors"]:
        """Keep all files open. A file that is replaced meanwhile stays readable here, unchanged."""
        with ExitStack() as stack:
            handles: dict[str, int] = {}
            for file in self.files:
                handles[file] = os.open(self.directory / file, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, handles[file])
            yield OpenTensors(self, handles)


class OpenTensors:
    """The tensors of files that are held open, read one at a time: a model may outgrow free memory."""

    def __init__(self, checkpoint: Checkpoint, handles: Mapping[str, int]) -> None:
        self.checkpoint = checkpoint
        self._handles = handles

    def stats(self) -> dict[str, FileStat]:
        return {file: FileStat.of(os.fstat(handle)) for file, handle in self._handles.items()}

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in memory of its own."""
        place = self.checkpoint.places[name]
        if not place.size_bytes:
            return torch.empty(place.shape, dtype=place.dtype)
        raw = self.raw(place.file, place.start, place.size_bytes)
        return torch.frombuffer(raw, dtype=place.dtype).view(place.shape)

    def raw(self, file: str, start: int, size: int) -> bytearray:
        """Bytes of a file. Raises HistoryBroken when it ends before."""
        buffer = bytearray(size)
        view, at = memoryview(buffer), start
        while view:
            count = os.preadv(self._handles[file], [view], at)
            if not count:
                raise HistoryBroken(
                    f"expected {size} bytes at {start} in {self.checkpoint.directory / file}: it is cut short"
                )
            view, at = view[count:], at + count
        return buffer


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(raw_bytes(tensor).data).hexdigest()


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


def read_index(directory: Path) -> dict[str, Any]:
    """The index of a sharded model. Raises HistoryBroken when it is none."""
    try:
        index: dict[str, Any] = json.loads((directory / INDEX).read_text())
        if not all(isinstance(file, str) for file in index["weight_map"].values()):
            raise TypeError("weight_map must name files")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HistoryBroken(f"expected an index with a weight_map in {directory / INDEX}: {error}") from error
    return index


def _visible(directory: Path) -> tuple[list[str], bool]:
    if (directory / SINGLE).exists():
        return [SINGLE], False
    if (directory / INDEX).exists():
        named = sorted(set(read_index(directory)["weight_map"].values()))
        missing = [file for file in named if not (directory / file).is_file()]
        if missing:
            raise HistoryBroken(
                f"expected {missing[:4]} in {directory}, which its index names; found no such file"
            )
        return named, True
    found = sorted(file.name for file in directory.glob("*.safetensors"))
    if len(found) != 1:
        raise HistoryBroken(
            f"expected {SINGLE}, or shards with {INDEX}, or one *.safetensors in {directory}; found "
            f"{', '.join(found) or 'none'}: is it a model directory?"
        )
    return found, False


def _stored(file: Path, name: str, entry: Mapping[str, Any]) -> StoredTensor:
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise HistoryBroken(f"{name} in {file}: expected one of {sorted(DTYPES)}, found {entry['dtype']}")
    start, end = entry["data_offsets"]
    place = StoredTensor(file.name, dtype, tuple(entry["shape"]), start, end)
    if math.prod(place.shape) * dtype.itemsize != place.size_bytes:
        raise HistoryBroken(
            f"{name} in {file}: its shape {place.shape} does not fit {place.size_bytes} bytes"
        )
    return place
