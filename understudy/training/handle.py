"""The trainer as the server sees it: started, watched, restarted, and given one request at a time."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import zmq
import zmq.asyncio

from understudy.training.protocol import (
    Cancel,
    Failed,
    Finished,
    Ready,
    Reply,
    Restore,
    Restored,
    RunSession,
    Stepped,
    Stop,
    decode_reply,
    encode,
)

log = logging.getLogger(__name__)
START_SECONDS = 180.0
"""A trainer that has not reported by then is taken for hung. Loading code is slow on a busy machine."""
MAX_DEATHS = 3
"""A request during which the trainer died this often is given up: it is probably the cause."""
STOP_SECONDS = 5.0


class TrainingFailed(RuntimeError):
    """A session did not happen; the weights are those of the last commit."""


class TrainerUnavailable(RuntimeError):
    """There is no trainer: it could not be started, or it is being shut down."""


@dataclass(frozen=True, slots=True)
class TrainerStatus:
    """What the trainer is doing, as last heard. Times in seconds."""

    alive: bool = False
    pid: int | None = None
    commit: str | None = None
    deaths: int = 0
    session: str | None = None
    step: int = 0
    of: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    last_error: str | None = None


@dataclass(slots=True)
class _Life:
    """One incarnation of the process, with a socket of its own, so that no message outlives it."""

    process: asyncio.subprocess.Process
    socket: zmq.asyncio.Socket
    died: "asyncio.Task[int]"


class TrainerHandle:
    """Supervises one trainer process. All methods belong to one event loop."""

    def __init__(
        self, manifest: Path, model: Path, *, threads: int = 1, log_file: Path | None = None
    ) -> None:
        self._manifest = manifest
        self._model = model
        self._threads = threads
        self._log_file = log_file
        self._context = zmq.asyncio.Context()
        self._life: _Life | None = None
        self._lives = 0
        self._turn = asyncio.Lock()
        self._closing = False
        self._status = TrainerStatus()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def status(self) -> TrainerStatus:
        return self._status

    async def start(self) -> None:
        """Start the process and wait until it is ready; it is restarted whenever it dies.

        Raises TrainerUnavailable with the end of its log when it cannot start.
        """
        async with self._turn:
            await self._revive()
        self._watcher = asyncio.create_task(self._watch())

    async def run(self, request: RunSession, on_step: Callable[[Stepped], None] | None = None) -> Finished:
        """Run a session. If the trainer dies it is restarted and the session run again: once in effect.

        Raises TrainingFailed when the trainer refused or undid it, or died over it `MAX_DEATHS` times.
        """
        reply = await self._ask(request, on_step)
        assert isinstance(reply, Finished)
        return reply

    async def restore(self, request: Restore) -> str:
        """Bring the weights back; returns the commit that records it. Raises TrainingFailed."""
        reply = await self._ask(request, None)
        assert isinstance(reply, Restored)
        return reply.commit

    async def cancel(self, session: str) -> None:
        """Ask for a running session to be undone."""
        if self._life is not None:
            await self._life.socket.send(encode(Cancel(session)))

    async def close(self) -> None:
        """Let the process end, and make sure that it did."""
        self._closing = True
        if self._watcher is not None:
            self._watcher.cancel()
        if self._life is not None:
            await self._life.socket.send(encode(Stop()))
            try:
                await asyncio.wait_for(asyncio.shield(self._life.died), STOP_SECONDS)
            except TimeoutError:
                self._life.process.kill()
                await self._life.died
            self._bury()
        self._context.term()

    # ------------------------------------------------------------------ one request

    async def _ask(self, request: RunSession | Restore, on_step: Callable[[Stepped], None] | None) -> Reply:
        async with self._turn:
            for _ in range(MAX_DEATHS):
                if self._closing:
                    raise TrainerUnavailable("the trainer is shutting down")
                life = await self._revive()
                self._status = replace(self._status, session=request.session, step=0, of=0, loss=None)
                await life.socket.send(encode(request))
                reply = await self._hear(life, request.session, on_step)
                self._status = replace(self._status, session=None, eta_seconds=None)
                if isinstance(reply, Failed):
                    self._status = replace(self._status, last_error=reply.error)
                    raise TrainingFailed(reply.error)
                if reply is not None:
                    return reply
            error = f"the trainer died {MAX_DEATHS} times over session {request.session}: it is given up"
            self._status = replace(self._status, last_error=error)
            raise TrainingFailed(error)

    async def _hear(
        self, life: _Life, session: str, on_step: Callable[[Stepped], None] | None
    ) -> Reply | None:
        """Replies until the request is answered; None when the process died first."""
        while True:
            receiving = asyncio.ensure_future(life.socket.recv())
            await asyncio.wait({receiving, life.died}, return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                receiving.cancel()
                self._lose(life)
                return None
            reply = decode_reply(receiving.result())
            if isinstance(reply, Ready) or reply.session != session:
                continue  # of a request whose caller gave up waiting
            if not isinstance(reply, Stepped):
                return reply
            self._note(reply)
            if on_step is not None:
                on_step(reply)

    def _note(self, step: Stepped) -> None:
        per_step = step.seconds / step.step if step.step else None
        self._status = replace(
            self._status,
            step=step.step,
            of=step.of,
            loss=step.loss,
            tokens_per_second=step.tokens / step.seconds if step.seconds else None,
            eta_seconds=None if per_step is None else per_step * (step.of - step.step),
        )

    # ------------------------------------------------------------------ life and death

    async def _watch(self) -> None:
        """Bring an idle trainer back when it dies, so that the next lesson need not wait for it."""
        while True:
            life = self._life
            if life is not None:
                await asyncio.wait({life.died})
            async with self._turn:
                try:
                    await self._revive()
                except TrainerUnavailable as error:
                    log.error("%s", error)
                    self._status = replace(self._status, last_error=str(error))
                    await asyncio.sleep(STOP_SECONDS)

    async def _revive(self) -> _Life:
        """The living process, a new one if need be."""
        if self._life is not None and not self._life.died.done():
            return self._life
        if self._life is not None:
            self._lose(self._life)
        self._lives += 1
        path = self._manifest.parent / f"trainer-{self._lives}.sock"
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(f"ipc://{path}")
        with _opened(self._log_file) as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "understudy.training.trainer",
                "--manifest", str(self._manifest), "--model", str(self._model),
                "--socket", str(path), "--threads", str(self._threads),
                stdout=output, stderr=output, stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            )  # fmt: skip
        life = _Life(process, socket, asyncio.create_task(process.wait()))
        self._life = life
        receiving = asyncio.ensure_future(socket.recv())
        await asyncio.wait({receiving, life.died}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            receiving.cancel()
            if not life.died.done():
                process.kill()
                await life.died
            self._bury()
            problem = f"expected the trainer to start, it did not: {self._last_words()}"
            self._status = replace(self._status, last_error=problem)
            raise TrainerUnavailable(problem)
        ready = decode_reply(receiving.result())
        assert isinstance(ready, Ready)
        log.info(
            "trainer %d is ready%s", ready.pid, ", a session cut off was undone" if ready.recovered else ""
        )
        self._status = replace(self._status, alive=True, pid=ready.pid, commit=ready.commit)
        return life

    def _lose(self, life: _Life) -> None:
        code = life.died.result()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        log.warning("trainer %d died (%s)", life.process.pid, how)
        self._bury()
        self._status = replace(
            self._status, deaths=self._status.deaths + 1, last_error=f"the trainer died ({how})"
        )

    def _bury(self) -> None:
        if self._life is not None:
            self._life.socket.close()
            self._life = None
        self._status = replace(self._status, alive=False, pid=None)

    def _last_words(self) -> str:
        if self._log_file is None or not self._log_file.is_file():
            return "see its output above"
        lines = self._log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing in {self._log_file}"


def _opened(file: Path | None) -> "IO[bytes] | _Inherited":
    return _Inherited() if file is None else file.open("ab")


class _Inherited:
    """Our own output, left open."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
