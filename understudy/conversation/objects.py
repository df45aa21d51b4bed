"""Writing objects into Git's store: quickly where a long text has changed in one place only.

A loose object is one zlib stream. Here it is made of pieces that can be decompressed one by one (each ends in
a full flush, which any zlib reads), so a text that grew by a message is compressed again only around that
message. The bytes are flushed to the disk before the object gets its name.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.conversation.staging import Staged

PIECE_BYTES = 1 << 14
"""Raw bytes of a piece; each forgets what zlib knew of the text before, so smaller ones take more room."""

_LEVEL = 1  # as Git's own default for loose objects: speed
_STREAM_HEADER = b"\x78\x01"
_LAST_BLOCK = b"\x03\x00"  # an empty final deflate block
_READ_ONLY = 0o444


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a blob: how many bytes it has, and these bytes compressed."""

    length: int
    deflated: bytes


def cut(data: bytes) -> tuple[Piece, ...]:
    """The whole blob in pieces."""
    return tuple(_cut(data, 0, len(data)))


def recut(data: bytes, head: int, tail: int, known: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces of `data`, which shares its first `head` and last `tail` bytes with the blob of `known`."""
    first, begin = _within(known, head)
    last, length = _within(list(reversed(known[first:])), tail)
    kept_behind = known[len(known) - last :] if last else ()
    return (*known[:first], *_cut(data, begin, len(data) - length), *kept_behind)


def _within(pieces: Iterable[Piece], limit: int) -> tuple[int, int]:
    """How many of the first pieces lie within `limit` bytes, and their bytes together."""
    count = total = 0
    for piece in pieces:
        if total + piece.length > limit:
            break
        count += 1
        total += piece.length
    return count, total


def _cut(data: bytes, begin: int, end: int) -> Iterator[Piece]:
    for start in range(begin, end, PIECE_BYTES):
        stretch = data[start : min(start + PIECE_BYTES, end)]
        yield Piece(len(stretch), _deflated(stretch))


def _deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush(zlib.Z_FULL_FLUSH)


def write_object(objects: Path, kind: str, data: bytes, pieces: Sequence[Piece] | None = None) -> str:
    """Write a loose object below `.git/objects` unless it is there, and give its id.

    Raises OSError; then there is no object, or a whole one.
    """
    with Staged() as staged:
        name = stage_object(staged, objects, kind, data, pieces)
        staged.flush()
        staged.put(*staged.places)
    return name


def stage_object(
    staged: Staged, objects: Path, kind: str, data: bytes, pieces: Sequence[Piece] | None = None
) -> str:
    """Prepare a loose object (`blob`, `tree` or `commit`) unless it is there, and give its id.

    `pieces`, if given, are those of `data`.
    """
    header = f"{kind} {len(data)}\0".encode()
    digest = hashlib.sha1(header, usedforsecurity=False)
    digest.update(data)
    name = digest.hexdigest()
    path = objects / name[:2] / name[2:]
    if _freshened(path):
        return name
    checksum = zlib.adler32(data, zlib.adler32(header)).to_bytes(4, "big")
    stretches = (piece.deflated for piece in (cut(data) if pieces is None else pieces))
    stream = b"".join((_STREAM_HEADER, _deflated(header), *stretches, _LAST_BLOCK, checksum))
    # So named, a leftover is removed by Git's own gc, which may also remove an empty folder at any moment.
    aside = objects / f"tmp_obj_{name[:18]}_{os.getpid()}_{time.monotonic_ns()}"
    staged.write(aside, path, stream, _READ_ONLY)
    return name


def _freshened(path: Path) -> bool:
    """Whether the object is there; it counts as new again, so that no cleaning of old things takes it."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
