"""In vLLM's API server: readouts as the worker sends them, kept until their tokens are told."""

import asyncio
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import zmq
import zmq.asyncio

from understudy.engine.errors import EngineClosed
from understudy.engine.vllm.tapping import ReadoutRows

log = logging.getLogger(__name__)
LATE_SECONDS = 30.0
"""How long a readout may come after its token."""


class ReadoutInbox:
    """A socket that only this user can open, and what came through it for requests that run.

    A row that comes again, after vLLM preempted the request, replaces the earlier one.
    """

    def __init__(self, layers: int, concepts: int) -> None:
        """Opens the socket; in a running event loop."""
        self._shape = (-1, layers, concepts)
        self._folder = tempfile.TemporaryDirectory(prefix="understudy-")  # mode 0700
        self.address = f"ipc://{Path(self._folder.name) / 'readouts'}"
        self._rows: dict[str, dict[int, npt.NDArray[np.float32]]] = {}
        self._awaited: dict[str, asyncio.Event] = {}
        self._socket = zmq.asyncio.Context.instance().socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.bind(self.address)
        self._reading = asyncio.create_task(self._read())

    def expect(self, key: str) -> None:
        """Keep what comes under this key, until it is forgotten."""
        self._rows[key] = {}

    def forget(self, key: str) -> None:
        self._rows.pop(key, None)

    async def take(self, key: str, first: int, count: int) -> list[list[list[float]]]:
        """The readouts of `count` positions from `first`, [positions][layers][concepts].

        Raises EngineClosed when they do not come.
        """
        rows, wanted = self._rows[key], range(first, first + count)
        came = self._awaited[key] = asyncio.Event()
        try:
            async with asyncio.timeout(LATE_SECONDS):
                while not all(position in rows for position in wanted):
                    came.clear()
                    await came.wait()
        except TimeoutError as error:
            raise EngineClosed(
                f"expected the readouts of a token within {LATE_SECONDS:.0f} s, vLLM's worker sent none"
            ) from error
        finally:
            del self._awaited[key]
        return [rows.pop(position).tolist() for position in wanted]

    def close(self) -> None:
        """Stop reading and remove the socket."""
        self._reading.cancel()
        self._socket.close(linger=0)
        self._folder.cleanup()

    async def _read(self) -> None:
        while True:
            parts: Sequence[bytes] = await self._socket.recv_multipart()
            for sent in msgspec.msgpack.decode(parts[0], type=list[ReadoutRows]):
                rows = self._rows.get(sent.key)
                if rows is not None:  # else of a client that left
                    values = np.frombuffer(sent.values, np.float32).reshape(self._shape)
                    rows.update(enumerate(values, start=sent.first))
                    if sent.key in self._awaited:
                        self._awaited[sent.key].set()
