"""The trainer process: owns gradients and optimizer state, and writes into the weights that are being served.

Started by `TrainerHandle` as `python -m understudy.training.trainer`. A session is all or nothing: either
its weight commit exists, or the weights are those of the commit before. A trainer that dies in the middle
leaves the mapping's dirty mark; the next one sees it and puts the last commit back before it takes work.
"""

import argparse
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch
import zmq

from understudy.config import TrainingSettings
from understudy.engine import skeleton
from understudy.training.apollo import Apollo, parameter_groups
from understudy.training.frozen import self_test
from understudy.training.protocol import (
    Cancel,
    Failed,
    Finished,
    Outcome,
    Ready,
    Reply,
    Request,
    Restore,
    Restored,
    RunSession,
    Stepped,
    Stop,
    decode_request,
    encode,
)
from understudy.training.session import SessionResult, StepReport, run_session
from understudy.training.state import load_optimizer, save_optimizer
from understudy.weights import SharedWeights, WeightHistory, WeightsError

log = logging.getLogger(__name__)
POLL_MILLISECONDS = 500
"""How often an idle trainer looks whether its parent still lives."""


class SessionCancelled(RuntimeError):
    """Someone asked for the running session to stop."""


class Trainer:
    """One model, one optimizer, one socket."""

    def __init__(self, socket: "zmq.Socket[bytes]", weights: SharedWeights, directory: Path) -> None:
        self._socket = socket
        self._weights = weights
        self._parent = os.getppid()
        self._waiting: deque[Request] = deque()
        self._cancelled: set[str] = set()
        self._history = WeightHistory.open(directory)
        self._history.check(weights.tensors)
        self._state_file = directory / ".understudy" / "optimizer.pt"
        self._recovered = weights.dirty
        if self._recovered:
            self._put_back()
        self._model = skeleton(directory)
        weights.bind(self._model)
        self._optimizer: Apollo | None = None
        self._optimizer_settings: TrainingSettings | None = None

    def serve(self) -> None:
        """Test the frozen context, say so, and take requests until told to stop or left alone."""
        self_test(self._model)
        self._send(Ready(os.getpid(), self._history.head, self._recovered))
        while (request := self._next()) is not None:
            match request:
                case Stop():
                    return
                case Cancel():
                    self._cancelled.add(request.session)
                case RunSession() | Restore():
                    self._answer(request)

    def _answer(self, request: RunSession | Restore) -> None:
        try:
            self._send(self._run(request) if isinstance(request, RunSession) else self._restore(request))
        except (ValueError, RuntimeError, WeightsError) as error:
            log.exception("session %s failed", request.session)
            if self._weights.dirty:
                self._put_back()
            self._optimizer = None
            self._send(Failed(request.session, f"{type(error).__name__}: {error}"))
        self._cancelled.discard(request.session)  # the same id may be asked for again

    # ------------------------------------------------------------------ a session

    def _run(self, request: RunSession) -> Finished:
        made = self._history.commit_of(request.session)
        if made is not None:  # it was committed, and whoever asked never heard of it
            held = msgspec.convert(made.details["result"], Finished)
            return msgspec.structs.replace(held, commit=made.id, update_norm=made.update_norm)
        settings = TrainingSettings.model_validate(request.settings)
        optimizer = self._optimizer_for(settings)
        if not request.dry_run:
            self._weights.dirty = True
        result = run_session(
            self._model,
            optimizer,
            request.examples,
            request.replay,
            settings,
            lessons_before=self._lessons_before(),
            report=self._reporter(request),
            cancelled=lambda: self._is_cancelled(request.session),
            dry_run=request.dry_run,
        )
        if self._is_cancelled(request.session):
            raise SessionCancelled(f"session {request.session} was cancelled: the weights are as before it")
        if request.dry_run:
            return _finished(request.session, None, result)
        return self._commit(request, settings, result, optimizer)

    def _commit(
        self, request: RunSession, settings: TrainingSettings, result: SessionResult, optimizer: Apollo
    ) -> Finished:
        finished = _finished(request.session, None, result)
        commit = self._history.commit(
            self._weights.tensors,
            message=request.message,
            author=request.author,
            created=_now(),
            session=request.session,
            lessons=request.lessons,
            details={
                "settings": settings.model_dump(mode="json"),
                "result": msgspec.to_builtins(finished),
            },
        )
        self._weights.dirty = False
        save_optimizer(self._state_file, optimizer, settings, commit.id)
        return msgspec.structs.replace(finished, commit=commit.id, update_norm=commit.update_norm)

    def _restore(self, request: Restore) -> Restored:
        self._weights.dirty = True
        commit = self._history.restore(
            self._weights.tensors, request.commit, author=request.author, created=_now()
        )
        self._weights.dirty = False
        self._optimizer = None  # its moments belong to steps that no longer happened
        return Restored(request.session, commit.id)

    def _lessons_before(self) -> int:
        """Lessons of earlier sessions, so that replay keeps its share over many short ones."""
        return sum(
            len(commit.details.get("result", {}).get("outcomes", ())) for commit in self._history.commits
        )

    def _reporter(self, request: RunSession) -> Callable[[StepReport], None]:
        tokens, seconds = 0, 0.0

        def report(step: StepReport) -> None:
            nonlocal tokens, seconds
            tokens, seconds = tokens + step.tokens, seconds + step.seconds
            if not (step.gated or request.dry_run):
                self._weights.step += 1
            self._send(
                Stepped(
                    request.session,
                    step.step,
                    step.of,
                    step.loss,
                    step.grad_norm,
                    step.gated,
                    tokens,
                    seconds,
                )
            )

        return report

    # ------------------------------------------------------------------ state

    def _optimizer_for(self, settings: TrainingSettings) -> Apollo:
        """The optimizer with its moments when they belong to these weights and settings, else a fresh one."""
        if self._optimizer is None or self._optimizer_settings != settings:
            self._optimizer = Apollo(parameter_groups(self._model, settings), settings)
            load_optimizer(self._state_file, self._optimizer, settings, self._history.head)
            self._optimizer_settings = settings
        return self._optimizer

    def _put_back(self) -> None:
        """The last commit's weights again, whatever a session left behind."""
        self._history.load(self._weights.tensors)
        self._weights.dirty = False

    # ------------------------------------------------------------------ messages

    def _next(self) -> Request | None:
        """The next request; None when the parent is gone."""
        while not self._waiting:
            if self._socket.poll(POLL_MILLISECONDS):
                self._waiting.append(decode_request(self._socket.recv()))
            elif os.getppid() != self._parent:
                return None
        return self._waiting.popleft()

    def _is_cancelled(self, session: str) -> bool:
        while self._socket.poll(0):
            request = decode_request(self._socket.recv())
            if isinstance(request, Cancel):
                self._cancelled.add(request.session)
            else:
                self._waiting.append(request)
        if os.getppid() != self._parent:
            raise SessionCancelled("the server is gone: nobody owns these weights any more")
        return session in self._cancelled

    def _send(self, reply: Reply) -> None:
        self._socket.send(encode(reply))


def _finished(session: str, commit: str | None, result: SessionResult) -> Finished:
    return Finished(
        session=session,
        commit=commit,
        outcomes=tuple(Outcome(**asdict(outcome)) for outcome in result.outcomes),
        losses=tuple(result.losses),
        steps=result.steps,
        gated=result.gated,
        tokens=result.tokens,
        seconds=result.seconds,
        update_norm=0.0,
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Understudy's trainer process; started by the server.")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest of the shared weights")
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument("--socket", required=True, help="path of the server's socket")
    parser.add_argument("--threads", type=int, required=True, help="threads for the mathematics")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s trainer %(levelname)s %(message)s")
    torch.set_num_threads(given.threads)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 2000)
        socket.connect(f"ipc://{given.socket}")
        Trainer(socket, SharedWeights.attach(given.manifest), given.model).serve()


if __name__ == "__main__":
    main()
