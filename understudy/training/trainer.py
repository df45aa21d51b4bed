"""The trainer process: owns gradients and optimizer state, and writes into the weights that are being served.

Started by `TrainerHandle` as `python -m understudy.training.trainer`. A session is all or nothing: either
its weight commit exists, or the weights are those of the commit before. A trainer that dies in the middle
leaves the mapping's dirty mark; the next one sees it and puts the last commit back before it takes work.
The model directory follows the commits by a sync: some time after the first that it does not hold, when
asked, and before the process ends.
"""

import argparse
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch
import zmq

from understudy.config import TrainingSettings
from understudy.engine import skeleton
from understudy.training.apollo import Apollo, parameter_groups
from understudy.training.frozen import self_test
from understudy.training.outcomes import SessionResult, StepReport
from understudy.training.protocol import (
    Adopt,
    Adopted,
    Answer,
    Cancel,
    Checkpoint,
    Failed,
    Finished,
    Kl,
    Outcome,
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
    decode_request,
    encode,
)
from understudy.training.session import run_session
from understudy.training.state import StateStore, read_state, write_state
from understudy.weights import SharedWeights, WeightCommit, WeightHistory, WeightsError, teaching

log = logging.getLogger(__name__)
POLL_MILLISECONDS = 500
"""How often an idle trainer looks whether its parent still lives."""
RETRY_SECONDS = 60.0
"""After a sync that did not happen (a full disk, say), the next try is at least so much later."""


class SessionCancelled(RuntimeError):
    """Someone asked for the running session to stop."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How the model directory is kept. `sync_seconds` from a commit to the directory; `optimizer_states`
    that are kept.
    """

    sync_seconds: float
    optimizer_states: int


class Trainer:
    """One model, one optimizer, one socket."""

    def __init__(
        self, socket: "zmq.Socket[bytes]", weights: SharedWeights, directory: Path, upkeep: Upkeep
    ) -> None:
        self._socket = socket
        self._weights = weights
        self._parent = os.getppid()
        self._upkeep = upkeep
        self._waiting: deque[Request] = deque()
        self._cancelled: set[str] = set()
        self._stopping = False
        self._due: float | None = None
        self._last_sync: Synced | None = None
        self._sync_error: str | None = None
        self._history = WeightHistory.open(directory)
        self._history.check(weights.tensors)
        self._states = StateStore(directory, upkeep.optimizer_states)
        self._states.settle(self._history.commits)
        self._recovered = weights.dirty
        if self._recovered:
            self._put_back()
        weights.commit = self._history.head
        self._model = skeleton(directory)
        weights.bind(self._model)
        self._optimizer: Apollo | None = None
        self._optimizer_settings: TrainingSettings | None = None

    def serve(self) -> None:
        """Test the frozen context, say so, and take requests until told to stop or left alone."""
        self_test(self._model)
        self._send(Ready(os.getpid(), self._history.head, self._recovered))
        self._tell("idle")
        while not self._stopping and (request := self._next()) is not None:
            match request:
                case Stop():
                    self._stopping = True
                case Cancel():
                    self._cancelled.add(request.session)
                case _:
                    self._answer(request)
        if self._stopping:
            self._end()

    def _end(self) -> None:
        """The directory as the newest commit has it, so that any program can load it from now on."""
        self._tell("ending")
        try:
            if self._history.pending:
                self._sync("")
        except (WeightsError, OSError):
            log.exception("the model directory was not brought up to date; the next start does it")

    def _answer(self, request: Work) -> None:
        try:
            self._send(self._done(request))
        except (ValueError, RuntimeError, WeightsError, OSError, MemoryError) as error:
            log.exception("session %s failed", request.session)
            self._optimizer = None
            if self._weights.dirty:
                self._put_back()
            cancelled = isinstance(error, SessionCancelled) and request.session in self._cancelled
            self._send(Failed(request.session, f"{type(error).__name__}: {error}", cancelled))
        self._cancelled.discard(request.session)  # the same id may be asked for again
        self._tell("idle")

    def _done(self, request: Work) -> Answer:
        match request:
            case RunSession():
                return self._run(request)
            case Restore():
                return self._restore(request)
            case Adopt():
                return self._adopt(request)
            case Checkpoint():
                return self._sync(request.session)

    # ------------------------------------------------------------------ a session

    def _run(self, request: RunSession) -> Finished:
        made = self._history.commit_of(request.session)
        if made is not None:  # it was committed, and whoever asked never heard of it
            return _recorded(request, made)
        settings = TrainingSettings.model_validate(request.settings)
        optimizer = self._optimizer_for(settings)
        self._tell("training")
        if not request.dry_run:
            self._weights.dirty = True
        result = run_session(
            self._model,
            optimizer,
            request.examples,
            request.replay,
            settings,
            probe=request.probe,
            lessons_before=lessons_before(self._history.commits),
            report=self._reporter(request),
            cancelled=lambda: self._is_cancelled(request.session),
            dry_run=request.dry_run,
        )
        if self._is_cancelled(request.session):
            raise SessionCancelled(f"session {request.session} was cancelled: the weights are as before it")
        if request.dry_run:
            return _finished(request.session, result)
        return self._commit(request, settings, result, optimizer)

    def _commit(
        self, request: RunSession, settings: TrainingSettings, result: SessionResult, optimizer: Apollo
    ) -> Finished:
        self._tell("committing")
        finished = _finished(request.session, result)
        if result.steps:
            self._states.begin(request.session, optimizer)
        commit = self._history.commit(
            self._weights.tensors,
            message=request.message,
            author=request.author,
            created=_now(),
            session=request.session,
            lessons=request.lessons,
            details={
                "settings": settings.model_dump(mode="json"),
                "result": _to_record(finished),
                "digest": request.digest,
            },
        )
        self._committed(commit.id)
        return msgspec.structs.replace(finished, commit=commit.id, update_norm=commit.update_norm)

    def _committed(self, commit: str) -> None:
        """The live weights are a commit's again; nothing after this may undo it."""
        self._weights.publish()
        self._weights.dirty = False
        self._weights.commit = commit
        if self._due is None:
            self._due = time.monotonic() + self._upkeep.sync_seconds
        try:
            self._states.settle(self._history.commits)
        except OSError:
            log.exception("optimizer states were not tidied; the next start does it")

    def _restore(self, request: Restore) -> Restored:
        made = self._history.commit_of(request.session)
        if made is not None:
            return Restored(request.session, made.id)
        self._tell("restoring")
        self._weights.dirty = True
        commit = self._history.restore(
            self._weights.tensors,
            request.commit,
            author=request.author,
            created=_now(),
            session=request.session,
        )
        self._committed(commit.id)
        self._optimizer = None  # its moments belong to steps that no longer happened
        return Restored(request.session, commit.id)

    def _adopt(self, request: Adopt) -> Adopted:
        made = self._history.commit_of(request.session)
        if made is not None:
            return Adopted(request.session, made.id)
        newest = self._history.head or "initial"
        if request.parent not in (None, newest):
            raise ValueError(
                f"expected values made from the newest weights, {newest}, got some made from "
                f"{request.parent}: make them again, or give no parent to undo what was learned meanwhile"
            )
        self._tell("adopting")
        self._weights.dirty = True
        commit = self._history.adopt(
            self._weights.tensors,
            Path(request.source),
            message=request.message,
            author=request.author,
            created=_now(),
            session=request.session,
        )
        self._committed(commit.id)
        self._optimizer = None  # no step led to these weights
        return Adopted(request.session, commit.id)

    def _reporter(self, request: RunSession) -> Callable[[StepReport], None]:
        tokens, seconds = 0, 0.0

        def report(step: StepReport) -> None:
            nonlocal tokens, seconds
            tokens, seconds = tokens + step.tokens, seconds + step.seconds
            if step.taken and not request.dry_run:
                self._weights.publish()
                self._weights.step += 1
            self._send(
                Stepped(
                    session=request.session,
                    step=step.step,
                    of=step.of,
                    loss=_number(step.loss),
                    grad_norm=_number(step.grad_norm),
                    gated=step.skipped == "gated",
                    tokens=tokens,
                    seconds=seconds,
                    skipped=step.skipped,
                    kl=None if step.kl is None else _number(step.kl),
                )
            )

        return report

    # ------------------------------------------------------------------ the directory

    def _sync(self, session: str) -> Synced:
        """Bring the directory up to the newest commit. Raises OSError or WeightsError; then it is retried."""
        self._tell("syncing")
        try:
            report = self._history.sync()
        except (OSError, WeightsError) as error:
            self._sync_error = f"{type(error).__name__}: {error}"
            self._due = time.monotonic() + max(self._upkeep.sync_seconds, RETRY_SECONDS)
            self._tell("syncing")  # whoever hears of the failure finds it in the status
            raise
        self._due = self._sync_error = None
        self._last_sync = Synced(
            session,
            report.commit,
            report.files,
            report.blocks_written,
            report.blocks_total,
            report.bytes_written,
            report.seconds,
        )
        return self._last_sync

    def _sync_when_due(self) -> None:
        if self._due is None or time.monotonic() < self._due:
            return
        try:
            self._sync("")
        except (OSError, WeightsError):
            log.exception("the model directory was not brought up to date: it is tried again later")
        self._tell("idle")

    # ------------------------------------------------------------------ state

    def _optimizer_for(self, settings: TrainingSettings) -> Apollo:
        """The optimizer under these settings, with the moments that led to these weights."""
        if self._optimizer is None or self._optimizer_settings != settings:
            fresh = Apollo(parameter_groups(self._model, settings), settings)
            held = (
                self._states.load(self._history.commits)
                if self._optimizer is None
                else read_state(self._optimizer)
            )
            if held is not None:
                write_state(fresh, held)
            self._optimizer, self._optimizer_settings = fresh, settings
        return self._optimizer

    def _put_back(self) -> None:
        """The last commit's weights again, whatever a session left behind."""
        self._history.load(self._weights.tensors)
        self._weights.publish()
        self._weights.dirty = False

    # ------------------------------------------------------------------ messages

    def _next(self) -> Request | None:
        """The next request; None when the parent is gone. What is due is synced meanwhile."""
        while not self._waiting:
            if self._socket.poll(self._patience()):
                self._waiting.append(decode_request(self._socket.recv()))
            elif os.getppid() != self._parent:
                return None
            else:
                self._sync_when_due()
        return self._waiting.popleft()

    def _patience(self) -> int:
        """Milliseconds to wait for a request."""
        if self._due is None:
            return POLL_MILLISECONDS
        return min(POLL_MILLISECONDS, max(0, math.ceil(1000 * (self._due - time.monotonic()))))

    def _is_cancelled(self, session: str) -> bool:
        while self._socket.poll(0):
            request = decode_request(self._socket.recv())
            if isinstance(request, Cancel):
                self._cancelled.add(request.session)
            elif isinstance(request, Stop):
                self._stopping = True
            else:
                self._waiting.append(request)
        if self._stopping:
            raise SessionCancelled("the server ends: the session is undone, and run again by the next one")
        if os.getppid() != self._parent:
            raise SessionCancelled("the server is gone: nobody owns these weights any more")
        return session in self._cancelled

    def _tell(self, phase: Phase) -> None:
        pending = self._history.pending
        due = None if self._due is None else time.time() + self._due - time.monotonic()
        since = datetime.fromisoformat(pending[0].created).timestamp() if pending else None
        self._send(
            State(
                phase,
                self._history.head,
                self._history.synced,
                len(pending),
                since,
                due,
                self._last_sync,
                self._sync_error,
            )
        )

    def _send(self, reply: Reply) -> None:
        self._socket.send(encode(reply))


def lessons_before(commits: Sequence[WeightCommit]) -> int:
    """Turns of lessons that led to the newest weights: replay keeps its share over many short sessions.

    What was undone does not count: trained again from the same weights, a session is the same to the bit.
    """
    counts: dict[str | None, int] = {None: 0}
    for commit in commits:
        if "restores" in commit.details:
            counts[commit.id] = counts[commit.details["restores"]]
        else:
            counts[commit.id] = counts[commit.parent] + commit.details.get("result", {}).get("turns", 0)
    return counts[commits[-1].id if commits else None]


def _finished(session: str, result: SessionResult) -> Finished:
    return Finished(
        session=session,
        commit=None,
        outcomes=tuple(Outcome(**asdict(outcome)) for outcome in result.outcomes),
        losses=tuple(_number(loss) for loss in result.losses),
        steps=result.steps,
        gated=result.gated,
        tokens=result.tokens,
        seconds=result.seconds,
        update_norm=0.0,
        skipped=result.skipped,
        kl=None if result.kl is None else Kl(**asdict(result.kl)),
        stopped=result.stopped,
        turns=result.turns,
        relearned=result.relearned,
    )


def _recorded(request: RunSession, made: WeightCommit) -> Finished:
    """The result in a commit's record, for a session that is asked for again."""
    if request.digest and made.details.get("digest", "") not in ("", request.digest):
        raise ValueError(
            f"session {request.session!r} was committed for another request ({made.id}): use a new key"
        )
    known = {"commit": made.id, "update_norm": made.update_norm}
    return msgspec.convert({**made.details["result"], **known}, Finished)


def _to_record(finished: Finished) -> dict[str, object]:
    """What a commit keeps of its session's result: without what only the commit itself can tell."""
    result: dict[str, object] = msgspec.to_builtins(finished)
    del result["commit"], result["update_norm"]
    return result


def _number(value: float) -> float | None:
    """None for what JSON cannot say."""
    return value if math.isfinite(value) else None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Understudy's trainer process; started by the server.")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest of the shared weights")
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument("--socket", required=True, help="path of the server's socket")
    parser.add_argument("--threads", type=int, required=True, help="threads for the mathematics")
    parser.add_argument("--sync-seconds", type=float, required=True, help="from a commit to the directory")
    parser.add_argument("--optimizer-states", type=int, required=True, help="how many are kept")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s trainer %(levelname)s %(message)s")
    torch.set_num_threads(given.threads)
    upkeep = Upkeep(given.sync_seconds, given.optimizer_states)
    with teaching(given.model), zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 2000)
        socket.connect(f"ipc://{given.socket}")
        Trainer(socket, SharedWeights.attach(given.manifest), given.model, upkeep).serve()


if __name__ == "__main__":
    main()
