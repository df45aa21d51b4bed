"""Deltas: what changed between two states of the same tensors, exactly.

A delta is XOR of the raw bytes. It is its own inverse, so one file leads both ways, bit for bit. How it is
packed depends on how much moved. After a small step most bf16 elements are as they were: then the gaps
between those that moved are stored, one byte each, and what they were XORed with. Where more moved (fp32
nearly always), the bytes of each element are regrouped by significance (all high bytes, then all low
ones), since the high ones hardly change. zstd does the rest; its Huffman codes need one bit for a byte at
the least, which is why unmoved elements are not stored at all. The file is safetensors: per tensor that
moved, its packed bytes.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zstandard

from understudy.weights.disk import DiskFile
from understudy.weights.errors import HistoryBroken, WeightsMismatch

LEVEL = 3
"""zstd's default level: higher ones gained under 2 % on trained weights for many times the time."""
RawBytes = npt.NDArray[np.uint8]
_ELEMENTS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_PLANES, _GAPS = b"p", b"g"
_SPARSE = 3
"""Gaps are stored when at most one element in so many moved: beyond, planes are smaller."""
_ESCAPE = 255
"""In place of a gap: so many, and more."""


def raw_bytes(tensor: torch.Tensor) -> RawBytes:
    """The tensor's memory as bytes in row-major order; a view when it is contiguous."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()


def moved_elements(xor: RawBytes, element_size: int) -> npt.NDArray[np.intp]:
    """The places of the elements that are not the same on both sides."""
    return np.flatnonzero(xor.view(_ELEMENTS[element_size]) != 0)  # of truth values: several times as fast


def pack(xor: RawBytes, element_size: int, moved: npt.NDArray[np.intp] | None = None) -> bytes:
    """Compress the XOR of two tensors' bytes. `moved` are its `moved_elements`, when they are known."""
    moved = moved_elements(xor, element_size) if moved is None else moved
    elements = xor.view(_ELEMENTS[element_size])
    if len(moved) * _SPARSE > len(elements):
        return _PLANES + _compress(_planes(xor, element_size))
    gaps = moved.copy()
    gaps[1:] -= moved[:-1] + 1
    further = gaps // _ESCAPE
    places = np.cumsum(further + 1) - 1
    steps = np.full(int(places[-1]) + 1 if len(places) else 0, _ESCAPE, dtype=np.uint8)
    steps[places] = gaps % _ESCAPE
    packed = _compress(steps)
    values = _planes(elements[moved].view(np.uint8), element_size)
    return _GAPS + struct.pack("<Q", len(packed)) + packed + _compress(values)


def unpack_onto(own: RawBytes, packed: bytes, element_size: int) -> None:
    """XOR what `pack` was given onto `own`. Raises HistoryBroken when the bytes are damaged or do not fit."""
    try:
        if packed[:1] == _PLANES:
            planes = np.frombuffer(zstandard.decompress(packed[1:]), dtype=np.uint8)
            own ^= _elements(planes, element_size)
            return
        if packed[:1] != _GAPS:
            raise ValueError(f"it begins with {packed[:1]!r}")
        (size,) = struct.unpack_from("<Q", packed, 1)
        steps = np.frombuffer(zstandard.decompress(packed[9 : 9 + size]), dtype=np.uint8)
        values = np.frombuffer(zstandard.decompress(packed[9 + size :]), dtype=np.uint8)
        ends = np.flatnonzero(steps != _ESCAPE)
        moved = np.cumsum(steps, dtype=np.intp)[ends] + np.arange(len(ends))
        elements = own.view(_ELEMENTS[element_size])
        elements[moved] ^= _elements(values, element_size).view(_ELEMENTS[element_size])
    except (zstandard.ZstdError, ValueError, IndexError, struct.error) as error:
        raise HistoryBroken(
            f"expected a packed delta of {len(own)} bytes, found one that is damaged or does not fit: {error}"
        ) from error


def _planes(raw: RawBytes, element_size: int) -> RawBytes:
    return np.ascontiguousarray(raw.reshape(-1, element_size).T).reshape(-1)


def _elements(planes: RawBytes, element_size: int) -> RawBytes:
    return np.ascontiguousarray(planes.reshape(element_size, -1).T).reshape(-1)


def _compress(raw: RawBytes) -> bytes:
    """With zstd's checksum, so that damage is noticed."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(raw.data)


def difference(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The compressed XOR of two tensors of one shape and element type, as a vector of bytes."""
    if before.shape != after.shape or before.dtype != after.dtype:
        raise WeightsMismatch(
            f"expected equal tensors to compare, got {tuple(before.shape)} {before.dtype} "
            f"and {tuple(after.shape)} {after.dtype}"
        )
    packed = pack(raw_bytes(before) ^ raw_bytes(after), before.element_size())
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def apply(tensor: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    """`tensor` on the other side of the delta: a new tensor of the same shape."""
    return across(tensor, [packed.numpy().tobytes()])


def across(tensor: torch.Tensor, packed: Iterable[bytes]) -> torch.Tensor:
    """`tensor` on the other side of several deltas, in any order; itself when there is none."""
    own: RawBytes | None = None
    for one in packed:
        own = raw_bytes(tensor).copy() if own is None else own
        unpack_onto(own, one, tensor.element_size())
    if own is None or not own.size:
        return tensor
    return torch.from_numpy(own).view(tensor.dtype).view(tensor.shape)


@dataclass(frozen=True)
class Delta:
    """A delta's file. Its header is read once, its tensors when they are asked for."""

    file: Path

    @cached_property
    def _places(self) -> Mapping[str, tuple[int, int]]:
        return {
            name: (entry["data_offsets"][0], entry["data_offsets"][1])
            for name, entry in read_header(self.file)[0].items()
        }

    @property
    def names(self) -> frozenset[str]:
        """The tensors that moved."""
        return frozenset(self._places)

    def packed(self, name: str) -> bytes | None:
        """A tensor's packed change; None when it did not move. Raises HistoryBroken when it is cut short."""
        if name not in self._places:
            return None
        start, end = self._places[name]
        with self.file.open("rb") as stream:
            stream.seek(start)
            found = stream.read(end - start)
        if len(found) != end - start:
            raise HistoryBroken(f"{self.file}: expected {end - start} bytes for {name}, found {len(found)}")
        return found


class DeltaWriter:
    """Writes a delta tensor by tensor, so that no more than one is in memory.

    The header comes first in the file and is known last: room for the longest it can become is left
    and filled up with spaces, which safetensors allows.
    """

    def __init__(self, file: DiskFile, sizes: Mapping[str, int]) -> None:
        """`sizes`: the raw bytes of every tensor that may come."""
        self._file = file
        most = sum(size + (size >> 7) + 1024 for size in sizes.values())  # zstd's bound, and some
        self._room = len(_header(dict.fromkeys(sizes, (most, 2 * most))))
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0

    def add(self, name: str, packed: bytes) -> None:
        self._file.write_at(8 + self._room + self._end, packed)
        self._places[name] = (self._end, self._end + len(packed))
        self._end += len(packed)

    def finish(self) -> None:
        """Write the header; the caller syncs."""
        header = _header(self._places).ljust(self._room)
        self._file.write_at(0, struct.pack("<Q", len(header)) + header)


def read_delta(file: Path) -> dict[str, torch.Tensor]:
    """Packed differences by tensor name, all at once. A tensor that is not named did not move."""
    delta = Delta(file)
    found = {name: delta.packed(name) for name in delta.names}
    return {n: torch.frombuffer(bytearray(p), dtype=torch.uint8) for n, p in found.items() if p is not None}


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's tensors, with offsets from the file's start, and how many bytes come before them.

    Raises HistoryBroken when it is no such file.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("its header is cut short")
            described: dict[str, Any] = json.loads(stream.read(length))
        described.pop("__metadata__", None)
        for entry in described.values():
            start, end = entry["data_offsets"]
            entry["data_offsets"] = [8 + length + start, 8 + length + end]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HistoryBroken(f"expected a safetensors file at {file}: {error}") from error
    return described, 8 + length


def _header(places: Mapping[str, tuple[int, int]]) -> bytes:
    entries = {
        name: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
        for name, (start, end) in places.items()
    }
    text = json.dumps({"__metadata__": {"format": "understudy-delta"}, **entries}).encode()
    return text.ljust(-(-len(text) // 8) * 8)
