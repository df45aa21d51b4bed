"""Safetensors files read and written in runs of elements, so that memory does not grow with the model.

Nothing is mapped and no tensor need be whole: a run is read into its own buffer and written to its own
place. What a file claims in its header is checked against the file before anything is believed.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from understudy.weights.checkpoint import DTYPES, INDEX
from understudy.weights.errors import WeightsError, WeightsMismatch

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_LONGEST_HEADER = 100_000_000
"""Bytes; the limit that the safetensors library sets too."""


class NotTensors(WeightsError, ValueError):
    """A file or directory that should hold tensors in the safetensors format does not."""


class AlreadyThere(WeightsError, FileExistsError):
    """Something lies where a result should be written."""


@dataclass(frozen=True, slots=True)
class TensorKind:
    """Element type and shape of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.elements * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


class StoredTensors:
    """The tensors of a safetensors file or a model directory, open for reading; a context manager.

    `kinds` and `files` are by tensor name, `metadata` is that of all files together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kinds: dict[str, TensorKind] = {}
        self.files: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._offsets: dict[str, int] = {}
        self._handles: dict[str, tuple[int, tuple[int, int]]] = {}

    @classmethod
    def open(cls, path: Path) -> "StoredTensors":
        """Raises NotTensors when there is no such file, or its header does not fit it."""
        stored = cls(path)
        try:
            for file in _files(path):
                stored._open_file(file)
        except BaseException:
            stored.close()
            raise
        return stored

    def __enter__(self) -> "StoredTensors":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for handle, _ in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Elements `start` to `stop` of a tensor laid flat, in a buffer of their own."""
        kind = self.kinds[name]
        stop = kind.elements if stop is None else min(stop, kind.elements)
        if stop <= start:
            return torch.empty(0, dtype=kind.dtype)
        size = kind.dtype.itemsize
        raw = bytearray((stop - start) * size)
        handle = self._handles[self.files[name]][0]
        _read_full(handle, raw, self._offsets[name] + start * size, self.path)
        return torch.frombuffer(raw, dtype=kind.dtype)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors with their names, whole, one at a time."""
        for name, kind in self.kinds.items():
            yield name, self.read(name).view(kind.shape)

    def check_unchanged(self) -> None:
        """Raises WeightsMismatch when a file was written to since it was opened: it may be a mixture."""
        for file, (handle, state) in self._handles.items():
            if _state(handle) != state:
                raise WeightsMismatch(
                    f"{file} of {self.path} was written to while it was being read: try again, "
                    "or name a weight commit instead of the directory of a model that is being taught"
                )

    def _open_file(self, file: Path) -> None:
        handle = os.open(file, os.O_RDONLY)
        self._handles[file.name] = (handle, _state(handle))
        header, data_start = _read_header(handle, file)
        self.metadata.update(header.pop("__metadata__", {}))
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
            if name in self.kinds:
                raise NotTensors(f"{name} lies in {self.files[name]} and in {file.name} of {self.path}")
            self.kinds[name] = TensorKind(DTYPES[entry["dtype"]], tuple(entry["shape"]))
            self.files[name] = file.name
            self._offsets[name] = data_start + entry["data_offsets"][0]


class StoredWriter:
    """One safetensors file, laid out before its values are known; runs may come in any order."""

    def __init__(self, file: Path, kinds: Mapping[str, TensorKind], metadata: Mapping[str, str]) -> None:
        self.file = file
        self.kinds = dict(kinds)
        self._missing = {name: kind.elements for name, kind in kinds.items()}
        self._offsets: dict[str, int] = {}
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        end = 0
        # widest elements first, as the library does: every tensor is aligned to its elements
        for name, kind in sorted(kinds.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
            self._offsets[name] = end
            end += kind.size_bytes
            header[name] = {
                "dtype": _CODES[kind.dtype],
                "shape": list(kind.shape),
                "data_offsets": [self._offsets[name], end],
            }
        encoded = json.dumps(header, ensure_ascii=False).encode()
        encoded += b" " * (-len(encoded) % 8)
        self._data_start = 8 + len(encoded)
        self._handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            _write_full(self._handle, len(encoded).to_bytes(8, "little") + encoded, 0)
            os.ftruncate(self._handle, self._data_start + end)
        except BaseException:
            os.close(self._handle)
            raise

    def write(self, name: str, start: int, values: torch.Tensor) -> None:
        """Put a run of elements in its place; raises WeightsMismatch when it is of another element type."""
        kind = self.kinds[name]
        if values.dtype != kind.dtype or start + values.numel() > kind.elements:
            raise WeightsMismatch(
                f"{name}: expected {kind}, got {values.numel()} elements of {values.dtype} at {start}"
            )
        raw = values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        _write_full(
            self._handle, raw.data, self._data_start + self._offsets[name] + start * kind.dtype.itemsize
        )
        self._missing[name] -= values.numel()

    def finish(self) -> None:
        """Sync the file; raises WeightsMismatch when a value is missing."""
        short = [name for name, count in self._missing.items() if count]
        if short:
            raise WeightsMismatch(f"{self.file}: expected every value once, {short[:4]} have gaps or doubles")
        os.fsync(self._handle)

    def close(self) -> None:
        os.close(self._handle)


@contextmanager
def new_file(
    file: Path, kinds: Mapping[str, TensorKind], metadata: Mapping[str, str]
) -> Iterator[StoredWriter]:
    """A safetensors file that appears whole at the end, or not at all.

    Raises AlreadyThere when something of that name is there.
    """
    refuse_existing(file)
    aside = file.with_name(f".{file.name}.{os.getpid()}.partial")
    aside.unlink(missing_ok=True)
    writer = StoredWriter(aside, kinds, metadata)
    try:
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()
        refuse_existing(file)
        aside.rename(file)
        sync_directory(file.parent)
    finally:
        aside.unlink(missing_ok=True)


def refuse_existing(path: Path) -> None:
    """Raises AlreadyThere when `path` exists, NotTensors when the folder it should lie in does not."""
    if path.exists() or path.is_symlink():
        raise AlreadyThere(f"{path} is already there: name another output, or remove it first")
    if not path.parent.is_dir():
        raise NotTensors(f"expected a folder {path.parent} to write {path.name} to: there is none")


def sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise NotTensors(f"expected a model directory or a safetensors file at {path}, found none")
        return [path]
    index = path / INDEX
    if index.is_file():
        held = json.loads(index.read_text(encoding="utf-8"))
        found = sorted({path / file for file in held["weight_map"].values()})
        missing = [file.name for file in found if file.parent != path or not file.is_file()]
        if missing:
            raise NotTensors(f"{index} names {missing[:4]}, which are not there")
        return found
    found = sorted(path.glob("*.safetensors"))
    if not found:
        raise NotTensors(f"expected *.safetensors in {path}, found none: is it a model directory?")
    return found


def _read_header(handle: int, file: Path) -> tuple[dict[str, Any], int]:
    """The header's JSON and where the data begin; raises NotTensors when they do not fit the file."""
    size = os.fstat(handle).st_size
    length = int.from_bytes(os.pread(handle, 8, 0), "little")
    if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
        raise NotTensors(f"expected a safetensors file at {file}: its first bytes are no header's length")
    raw = bytearray(length)
    _read_full(handle, raw, 8, file)
    try:
        header: dict[str, Any] = json.loads(raw.decode())
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        end = 0
        for entry in sorted(entries, key=lambda entry: entry["data_offsets"]):
            kind = TensorKind(DTYPES[entry["dtype"]], tuple(entry["shape"]))
            if entry["data_offsets"] != [end, end + kind.size_bytes] or min((0, *kind.shape)) < 0:
                raise ValueError(f"{kind} at bytes {entry['data_offsets']}")
            end += kind.size_bytes
        if 8 + length + end != size:
            raise ValueError(f"{end} bytes of data in a file of {size}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotTensors(
            f"expected a safetensors file at {file}, its header does not fit it: {error}"
        ) from error
    return header, 8 + length


def _read_full(handle: int, into: bytearray, offset: int, path: Path) -> None:
    view = memoryview(into)
    done = 0
    while done < len(view):
        count = os.preadv(handle, [view[done:]], offset + done)
        if not count:
            raise NotTensors(f"{path} ended {len(view) - done} bytes early: it was cut while being read")
        done += count


def _write_full(handle: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(handle, view[done:], offset + done)


def _state(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_size, found.st_mtime_ns
