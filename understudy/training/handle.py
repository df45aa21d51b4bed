"""The trainer as the server sees it: started, watched, restarted, and given one request at a time."""

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import zmq
import zmq.asyncio

from understudy.training.launching import Launch, TrainerProcess, launch_process
from understudy.training.protocol import (
    Adopt,
    Adopted,
    Answer,
    Cancel,
    Checkpoint,
    Failed,
    Finished,
    Phase,
    Ready,
    Reply,
    Request,
    Restore,
    Restored,
    RunSession,
    State,
    Stepped,
    Stop,
    Synced,
    Work,
    decode_reply,
    encode,
)

log = logging.getLogger(__name__)
START_SECONDS = 180.0
"""A trainer that has not reported by then is taken for hung. Loading code is slow on a busy machine."""
MAX_DEATHS = 3
"""A request during which the trainer died this often is given up: it is probably the cause."""
STOP_SECONDS = 60.0
"""How long a trainer may take to notice that it is to end: a step of a large model is not interrupted. Once
it has, it is waited for: what remains is to bring the model directory up to date.
"""
REVIVE_SECONDS = 5.0
"""Between attempts to bring back a trainer that cannot start."""
ERRORS_KEPT = 10

Given = TypeVar("Given", Finished, Restored, Adopted, Synced)


class TrainingFailed(RuntimeError):
    """A session did not happen; the weights are those of the last commit."""


class TrainingCancelled(TrainingFailed):
    """It did not happen because someone asked for that."""


class TrainerUnavailable(RuntimeError):
    """There is no trainer: it could not be started, or it is being shut down."""


@dataclass(frozen=True, slots=True)
class TrainerError:
    """Something that went wrong: when (ISO 8601, UTC), in which session if in one, and what."""

    at: str
    session: str | None
    error: str


@dataclass(frozen=True, slots=True)
class TrainerStatus:
    """What the trainer is doing, as last heard. Times in seconds.

    `synced`: the commit that the model directory holds; `pending`: commits it does not hold yet, the oldest
    made at `unsynced_since`, to be synced at `sync_due` (both seconds since the epoch). `errors`: the last
    few, newest last.
    """

    alive: bool = False
    pid: int | None = None
    phase: Phase = "absent"
    commit: str | None = None
    deaths: int = 0
    session: str | None = None
    step: int = 0
    of: int = 0
    loss: float | None = None
    kl: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    last_error: str | None = None
    errors: tuple[TrainerError, ...] = ()
    synced: str | None = None
    pending: int = 0
    unsynced_since: float | None = None
    sync_due: float | None = None
    last_sync: Synced | None = None
    sync_error: str | None = None


@dataclass(slots=True)
class _Life:
    """One incarnation of the process, with a socket of its own, so that no message outlives it."""

    process: TrainerProcess
    socket: zmq.asyncio.Socket
    died: "asyncio.Task[int]"
    inbox: "asyncio.Queue[Reply]"
    reading: "asyncio.Task[None]"


class TrainerHandle:
    """Supervises one trainer process. All methods belong to one event loop."""

    def __init__(
        self,
        manifest: Path,
        model: Path,
        *,
        threads: int = 1,
        log_file: Path | None = None,
        sync_seconds: float = 600.0,
        optimizer_states: int = 8,
        launch: Launch = launch_process,
    ) -> None:
        """`sync_seconds` and `optimizer_states` are those of WeightsSettings."""
        self._manifest = manifest
        self._model = model
        self._threads = threads
        self._log_file = log_file
        self._upkeep = (sync_seconds, optimizer_states)
        self._launch = launch
        self._context = zmq.asyncio.Context()
        self._life: _Life | None = None
        self._lives = 0
        self._turn = asyncio.Lock()
        self._closing = False
        self._cancelled: set[str] = set()
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

        Raises TrainingFailed when the trainer refused or undid it, or died over it `MAX_DEATHS` times, and
        TrainingCancelled when `cancel` was called for it.
        """
        return await self._ask(request, Finished, on_step)

    async def restore(self, request: Restore) -> str:
        """Bring the weights back; returns the commit that records it. Raises TrainingFailed."""
        return (await self._ask(request, Restored)).commit

    async def adopt(self, request: Adopt) -> str:
        """Take weights from elsewhere; returns the commit that records it. Raises TrainingFailed."""
        return (await self._ask(request, Adopted)).commit

    async def checkpoint(self, session: str) -> Synced:
        """Bring the model directory up to the newest commit. Raises TrainingFailed."""
        return await self._ask(Checkpoint(session), Synced)

    async def cancel(self, session: str) -> None:
        """Ask for a session to be undone, one that runs or that `run` is about to be called for."""
        self._cancelled.add(session)
        if self._life is not None:
            await self._say(self._life, Cancel(session))

    async def close(self) -> None:
        """Let the process bring the model directory up to date and end, and make sure that it did."""
        self._closing = True
        if self._watcher is not None:
            self._watcher.cancel()
        if self._life is not None:
            await self._say(self._life, Stop())
            await self._end(self._life)
            self._bury()
        self._context.term()

    async def _end(self, life: _Life) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(life.died), STOP_SECONDS)
        except TimeoutError:
            if self._status.phase not in ("committing", "syncing", "ending"):
                life.process.kill()
            await life.died

    # ------------------------------------------------------------------ one request

    async def _ask(
        self, request: Work, wanted: type[Given], on_step: Callable[[Stepped], None] | None = None
    ) -> Given:
        async with self._turn:
            try:
                reply = await self._insist(request, on_step)
            finally:
                self._cancelled.discard(request.session)
                self._status = replace(self._status, session=None, eta_seconds=None)
        if isinstance(reply, Failed):
            self._blame(request.session, reply.error)
            raise (TrainingCancelled if reply.cancelled else TrainingFailed)(reply.error)
        assert isinstance(reply, wanted)
        return reply

    async def _insist(self, request: Work, on_step: Callable[[Stepped], None] | None) -> Answer:
        """Ask until there is an answer: of a new process where the one asked has died."""
        for _ in range(MAX_DEATHS):
            if self._closing:
                raise TrainerUnavailable("the trainer is shutting down")
            life = await self._revive()
            self._status = replace(
                self._status,
                session=request.session,
                step=0,
                of=0,
                loss=None,
                kl=None,
                tokens_per_second=None,
            )
            if request.session in self._cancelled:
                await self._say(life, Cancel(request.session))
            await self._say(life, request)
            reply = await self._hear(life, request.session, on_step)
            if reply is not None:
                return reply
        return Failed(
            request.session,
            f"the trainer died {MAX_DEATHS} times over session {request.session}: it is given up",
        )

    async def _say(self, life: _Life, request: Request) -> None:
        """Send, unless the process ends first: a socket that nobody is connected to would wait for ever."""
        sending = asyncio.ensure_future(life.socket.send(encode(request)))
        try:
            await asyncio.wait({sending, life.died}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()

    async def _hear(
        self, life: _Life, session: str, on_step: Callable[[Stepped], None] | None
    ) -> Answer | None:
        """Replies until the request is answered; None when the process died first."""
        while True:
            receiving = asyncio.ensure_future(life.inbox.get())
            try:
                await asyncio.wait({receiving, life.died, life.reading}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not receiving.done():
                    receiving.cancel()
            if not receiving.done() and life.reading.done():
                life.reading.result()  # raises what it could not read
            if not receiving.done():
                self._lose(life)
                return None
            reply = receiving.result()
            if isinstance(reply, Ready | State) or reply.session != session:
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
            kl=step.kl,
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
                    await asyncio.sleep(REVIVE_SECONDS)

    async def _revive(self) -> _Life:
        """The living process, a new one if need be."""
        if self._life is not None and not self._life.died.done():
            return self._life
        if self._life is not None:
            self._lose(self._life)
        life = await self._bear()
        first = asyncio.ensure_future(life.inbox.get())
        await asyncio.wait({first, life.died}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            if not life.died.done():
                life.process.kill()
                await life.died
            self._bury()
            problem = f"expected the trainer to start, it did not: {self._last_words()}"
            self._blame(None, problem)
            raise TrainerUnavailable(problem)
        ready = first.result()
        assert isinstance(ready, Ready)
        log.info(
            "trainer %d is ready%s", ready.pid, ", a session cut off was undone" if ready.recovered else ""
        )
        self._status = replace(self._status, alive=True, pid=ready.pid, commit=ready.commit)
        return life

    async def _bear(self) -> _Life:
        """A new process and the socket to talk to it over."""
        self._lives += 1
        path = self._manifest.parent / f"trainer-{self._lives}.sock"
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(f"ipc://{path}")
        sync_seconds, optimizer_states = self._upkeep
        arguments = (
            "--manifest", str(self._manifest), "--model", str(self._model), "--socket", str(path),
            "--threads", str(self._threads), "--sync-seconds", str(sync_seconds),
            "--optimizer-states", str(optimizer_states),
        )  # fmt: skip
        self._status = replace(self._status, phase="starting")
        process = await self._launch(arguments, self._threads, self._log_file)
        inbox: asyncio.Queue[Reply] = asyncio.Queue()
        died = asyncio.create_task(process.wait())
        life = _Life(process, socket, died, inbox, asyncio.create_task(self._read(socket, inbox)))
        self._life = life
        return life

    async def _read(self, socket: zmq.asyncio.Socket, inbox: "asyncio.Queue[Reply]") -> None:
        """Everything the process says: what it does goes into the status, answers to whoever asked."""
        while True:
            reply = decode_reply(await socket.recv())
            if isinstance(reply, State):
                self._status = replace(
                    self._status,
                    phase=reply.phase,
                    commit=reply.commit,
                    synced=reply.synced,
                    pending=reply.pending,
                    unsynced_since=reply.unsynced_since,
                    sync_due=reply.due,
                    last_sync=reply.last_sync or self._status.last_sync,
                    sync_error=reply.error,
                )
            else:
                await inbox.put(reply)

    def _lose(self, life: _Life) -> None:
        code = life.died.result()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        log.warning("trainer %d died (%s)", life.process.pid, how)
        self._bury()
        self._status = replace(self._status, deaths=self._status.deaths + 1)
        self._blame(self._status.session, f"the trainer died ({how})")

    def _bury(self) -> None:
        if self._life is not None:
            self._life.reading.cancel()
            self._life.socket.close()
            self._life = None
        self._status = replace(self._status, alive=False, pid=None, phase="absent")

    def _blame(self, session: str | None, problem: str) -> None:
        error = TrainerError(datetime.now(UTC).isoformat(timespec="seconds"), session, problem)
        errors = (*self._status.errors, error)[-ERRORS_KEPT:]
        self._status = replace(self._status, last_error=problem, errors=errors)

    def _last_words(self) -> str:
        if self._log_file is None or not self._log_file.is_file():
            return "see its output above"
        lines = self._log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing in {self._log_file}"
