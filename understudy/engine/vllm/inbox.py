"""In vLLM's API server: readouts as the worker sends them, kept until their tokens are told."""

import asyncio
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt
import zmq
import zmq.asyncio

from understudy.engine.errors import EngineClosed
from understudy.engine.request import Readout, ReadoutSpan
from understudy.engine.vllm.tapping import KEY, ReadoutRows

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
            message: bytes = await self._socket.recv()
            for sent in msgspec.msgpack.decode(message, type=list[ReadoutRows]):
                rows = self._rows.get(sent.key)
                if rows is not None:  # else of a client that left
                    values = np.frombuffer(sent.values, np.float32).reshape(self._shape)
                    rows.update(enumerate(values, start=sent.first))
                    if sent.key in self._awaited:
                        self._awaited[sent.key].set()


class RowReadouts:
    """The readouts of one row: asked for with its request, taken as its tokens come."""

    def __init__(self, inbox: ReadoutInbox, prompt_tokens: int, span: ReadoutSpan) -> None:
        self._inbox = inbox
        self._key = uuid.uuid4().hex
        self._last = prompt_tokens - 1  # where the first token of the answer is chosen
        self._span = span
        self._told = 0

    @property
    def extra_arguments(self) -> dict[str, Any]:
        """What tells the worker."""
        return {KEY: [self._key, 0 if self._span == "all" else self._last]}

    async def take(self, tokens: int) -> tuple[Readout, Readout]:
        """Those of the next tokens of the answer; the first time, of the prompt's too if they were asked for.

        Raises EngineClosed when they do not come.
        """
        whole = self._span == "all" and self._told == 0 and tokens > 0
        before = self._last if whole else 0
        first = self._last + self._told - before
        rows = await self._inbox.take(self._key, first, before + tokens)
        self._told += tokens
        return rows[before:], rows[: before + 1] if whole else ()

    def __enter__(self) -> Self:
        self._inbox.expect(self._key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inbox.forget(self._key)
