"""Storages that stay where an engine put them, handed to other processes of the same user.

On a GPU parameters cannot be moved (captured graphs hold their addresses), so what is shared is the memory
that they lie in: by the inter-process handles that torch makes of it (CUDA IPC; on a processor a segment of
shared memory). The handles go through a Unix socket in the mapping's private folder, and only to processes of
the user that the engine runs as.
"""

import logging
import os
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from understudy.weights.errors import MappingBroken, WeightsMismatch

log = logging.getLogger(__name__)
SOCKET = "handles.sock"
_CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid: `struct ucred`, see unix(7)."""
_LENGTH = struct.Struct("<Q")
_RECEIVE_SECONDS = 30.0


class Handle(msgspec.Struct, frozen=True):
    """What another process needs to map a storage: torch's own tuple, without a pickle around it."""

    device: str
    parts: list[int | bool | bytes | None]


def export_storage(storage: torch.UntypedStorage) -> Handle:
    """A handle for one receiver: torch counts them. Raises WeightsMismatch for memory that has none."""
    raw: Any = storage
    try:
        parts = raw._share_cuda_() if storage.device.type == "cuda" else raw._share_filename_cpu_()
    except RuntimeError as error:
        raise WeightsMismatch(
            f"expected memory that another process can map, got some on {storage.device} that it cannot "
            f"({error}): serve without expandable segments and without sleep mode"
        ) from error
    return Handle(storage.device.type, list(parts))


def open_storage(handle: Handle) -> torch.UntypedStorage:
    """The storage that a handle stands for. Raises MappingBroken when its owner is gone."""
    kind: Any = torch.UntypedStorage
    opening = kind._new_shared_cuda if handle.device == "cuda" else kind._new_shared_filename_cpu
    try:
        storage: torch.UntypedStorage = opening(*handle.parts)
    except RuntimeError as error:
        raise MappingBroken(f"expected weights on {handle.device} to map: {error}") from error
    return storage


class HandleServer:
    """Gives handles of storages to whoever of this user asks, until it is closed."""

    def __init__(self, directory: Path, storages: Sequence[torch.UntypedStorage]) -> None:
        self._storages = list(storages)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(directory / SOCKET))
        (directory / SOCKET).chmod(0o600)
        self._socket.listen()
        threading.Thread(target=self._serve, name="understudy-handles", daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            with connection:
                try:
                    self._answer(connection)
                except (OSError, WeightsMismatch):  # this one's: the next is answered all the same
                    log.exception("another process asked for handles and got none")

    def _answer(self, connection: socket.socket) -> None:
        if _peer(connection) == os.getuid():
            told = msgspec.msgpack.encode([export_storage(storage) for storage in self._storages])
            connection.sendall(_LENGTH.pack(len(told)) + told)


def receive_storages(directory: Path) -> list[torch.UntypedStorage]:
    """The storages of the mapping in this directory. Raises MappingBroken when nobody gives them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_RECEIVE_SECONDS)
        try:
            connection.connect(str(directory / SOCKET))
            [size] = _LENGTH.unpack(_read(connection, _LENGTH.size))
            told = _read(connection, size)
        except OSError as error:
            raise MappingBroken(f"expected the engine to answer at {directory / SOCKET}: {error}") from error
    return [open_storage(handle) for handle in msgspec.msgpack.decode(told, type=list[Handle])]


def _peer(connection: socket.socket) -> int:
    """The user that is at the other end."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(raw)[1]
    return user


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise MappingBroken(
                "expected handles of the engine's memory, it gave none: it is another user's, or its log "
                "tells why"
            )
        parts += part
    return bytes(parts)
