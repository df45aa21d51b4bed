"""Training beside serving: sessions of the one trainer, over approved lessons and over requests."""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from understudy.config import TrainingSettings
from understudy.lessons import (
    Example,
    KeepOrRevert,
    LedgerEntry,
    LessonError,
    QueueFull,
    RequestConflict,
    RequestQueue,
    TrainingRequest,
    UnknownRequest,
)
from understudy.server.approvals import Approvals
from understudy.server.deciding import Told
from understudy.server.errors import ApiError
from understudy.server.preparation import Preparation, Unteachable
from understudy.server.session_settings import check_steps, resolve_settings
from understudy.server.sessions import Sessions, describe_gate
from understudy.server.training_status import (
    Result,
    describe_request,
    describe_running,
    describe_trainer,
    describe_waiting,
    lesson_result,
)
from understudy.server.waiting import set_within
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Engine
    from understudy.training import Finished, RunSession, TrainerHandle

log = logging.getLogger(__name__)
APPROVAL_POLL_SECONDS = 0.2
TRAINER_RETRY_SECONDS = 2.0


class TrainingService:
    """Turns approved lessons and requests into sessions. All methods belong to one event loop.

    Requests wait in a queue on disk: what `submit` acknowledged is run once, by the next server if this one
    dies. Approved lessons wait in the ledger.
    """

    def __init__(self, workspace: Workspace, engine: "Engine", trainer: "TrainerHandle") -> None:
        self.workspace = workspace
        self.engine = engine
        self.trainer = trainer
        self.preparation = Preparation(workspace, engine)
        self.sessions = Sessions(workspace, engine, trainer, self.preparation)
        self.decider, self.counts = self.sessions.decider, self.sessions.counts
        self._ledger = workspace.ledger
        self._approvals = Approvals(self._ledger)
        self._requests = RequestQueue(self._ledger.path)
        self._wake = asyncio.Event()
        self._ends: dict[str, asyncio.Event] = {}
        self._last: Result | None = None
        self._stopped: str | None = None

    # ------------------------------------------------------------------ by itself

    async def run(self) -> None:
        """Start the trainer, finish what an earlier server left open, then train what comes.

        Without a trainer the server goes on serving; the status says why. Any other failure is raised,
        and the status says that training stopped.
        """
        try:
            await self._run()
        except Exception as error:
            self._stopped = f"{type(error).__name__}: {error}"
            raise
        finally:
            for end in self._ends.values():
                end.set()  # whoever waits sees that it did not happen

    async def _run(self) -> None:
        from understudy.training import TrainerUnavailable

        try:
            await self.trainer.start()
        except TrainerUnavailable as error:
            log.error("training is not available: %s", error)
            self._stopped = str(error)
            return
        self.engine.weight_commit = self.trainer.status.commit
        await asyncio.to_thread(self.preparation.rehearsals)
        await self._finish_open_sessions()
        await self.sessions.take_up()
        overdue = False
        while True:
            self._wake.clear()
            busy = False
            try:
                if overdue:
                    await self.sessions.carry_out()
                    overdue = False
                if not self.decider.waiting:
                    busy = await self._run_next_request()
                if not self.decider.waiting:
                    busy = await self._train_approved() or busy
            except TrainerUnavailable as error:  # its handle goes on trying to bring it back
                log.error("training waits for a trainer: %s", error)
                await asyncio.sleep(TRAINER_RETRY_SECONDS)
                overdue = True
                continue
            if not busy:
                await set_within(self._wake, APPROVAL_POLL_SECONDS)

    async def _train_approved(self) -> bool:
        from understudy.training import TrainingFailed

        training = self.workspace.settings.training
        asked = self._approvals.take(by_themselves=training.on_approval)
        if asked is None:
            return False
        try:
            result = await self.train_lessons(asked.lessons, asked.settings, dry_run=False)
            self._approvals.settled(asked.lessons)
            self._approvals.set_aside([one["id"] for one in result["not_taught"]])
        except (TrainingFailed, ApiError, LessonError) as error:
            log.warning("approved lessons were not trained: %s", error)
            self._approvals.set_aside(asked.lessons)
            self._last = {"state": "failed", "error": str(error)}
        return True

    async def _finish_open_sessions(self) -> None:
        """Sessions open when a server died: the trainer knows which were committed, and runs the others."""
        from understudy.training import TrainingFailed

        ledger = self._ledger
        for session in ledger.open_sessions():
            entries = [ledger.get(identity) for identity in session.lesson_ids]
            settings = TrainingSettings.model_validate(dict(session.settings))
            taught = [(entry, self.preparation.example(entry)) for entry in entries]
            try:
                await self._teach(session.id, taught, settings)
            except TrainingFailed as error:
                log.warning("session %s was given up: %s", session.id, error)

    async def answer(self, session: str, choice: KeepOrRevert, by: str, why: str) -> Result:
        """A person's decision about a session that waits for one. Raises NoOpenQuestion."""
        told = await self.sessions.answer(session, choice, by, why)
        self._wake.set()
        return told

    # ------------------------------------------------------------------ requests

    async def submit(
        self,
        examples: tuple[Example, ...],
        *,
        settings: Mapping[str, Any],
        key: str,
        message: str,
        author: str,
        dry_run: bool = False,
        wait: bool = False,
        content: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Take on a session over examples, or find the one of this key; with `wait`, see it through.

        Once this returns the request is on disk. `content` is the fingerprint of what was asked (by default
        made of the other arguments): the same key with another one is refused. `extra` goes into all answers.

        Raises ApiError for examples, settings or a key that cannot be used and for a full queue, and
        TrainingFailed when `wait` and the session did not happen.
        """
        if content is None:
            asked = [examples, dict(settings), message, author, dry_run]
            content = hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()
        if self.known(key, content) is None:
            resolved = await self.settings(settings)
            self.preparation.check(examples)
            self.decider.require_none_waiting()  # a dry run too: it would stand in a queue that waits
            await self._accept(
                self._work(key, examples, resolved, message, author, dry_run, content), resolved, extra or {}
            )
        return await self._end_of(key) if wait else describe_request(self._requests.find(key))

    def known(self, key: str, content: str) -> Result | None:
        """The answer about a request that was taken on before; ApiError(409) if it asked otherwise."""
        try:
            request = self._requests.known(key, content)
        except RequestConflict as error:
            raise ApiError(409, str(error), param="key", code="key_conflict") from error
        return None if request is None else describe_request(request)

    async def cancel(self, key: str) -> Result:
        """Take a waiting request back, or have a running session undone (also that of lessons).

        Raises ApiError(404) for a key that is not known, ApiError(409) when it is over.
        """
        if key == self.trainer.status.session and not self._is_request(key):
            await self.trainer.cancel(key)
            return {"key": key, "state": "cancelling"}
        try:
            request = await asyncio.to_thread(self._requests.cancel, key)
        except UnknownRequest as error:
            raise ApiError(404, str(error), param="key", code="unknown_key") from error
        except RequestConflict as error:
            raise ApiError(409, str(error), param="key", code="request_ended") from error
        if request.state == "cancelling":
            await self.trainer.cancel(key)
        else:
            self._note_end(request)
        return {"key": key, "state": request.state}

    async def _accept(
        self, work: "RunSession", settings: TrainingSettings, extra: Mapping[str, Any]
    ) -> TrainingRequest:
        about = {
            "settings": settings.model_dump(mode="json"),
            "examples": len(work.examples),
            "dry_run": work.dry_run,
            "message": work.message,
            "author": work.author,
            "extra": dict(extra),
        }
        try:
            accepted = await asyncio.to_thread(
                self._requests.accept, work.session, work.digest, about, msgspec.msgpack.encode(work)
            )
        except RequestConflict as error:
            raise ApiError(409, str(error), param="key", code="key_conflict") from error
        except QueueFull as error:
            raise ApiError(429, str(error), code="training_busy", headers={"Retry-After": "1"}) from error
        self._wake.set()
        return accepted

    async def _end_of(self, key: str) -> Result:
        """What came of a request, once it has ended. Raises TrainingFailed when it did not happen."""
        from understudy.training import TrainingCancelled, TrainingFailed

        while not (request := self._requests.find(key)).ended:
            if self._stopped is not None:
                raise ApiError(503, self._stopped, code="trainer_unavailable")
            await self._ends.setdefault(key, asyncio.Event()).wait()
        if request.state != "finished":
            error = str((request.answer or {}).get("error"))
            raise (TrainingCancelled if request.state == "cancelled" else TrainingFailed)(error)
        return describe_request(request)

    async def _run_next_request(self) -> bool:
        """Run the oldest request that has not ended; False if there is none.

        While the trainer is unavailable it stays: the next server asks what became of it.
        """
        from understudy.training import RunSession, TrainingCancelled, TrainingFailed

        begun = await asyncio.to_thread(self._requests.begin)
        if begun is None:
            return False
        request, stored = begun
        if request.state == "cancelling":
            await self.trainer.cancel(request.key)
        try:
            work = await self.sessions.accompanied(msgspec.msgpack.decode(stored, type=RunSession), ())
            finished, told = await self.sessions.train(work)
        except TrainingCancelled as error:
            ended = self._requests.end(request.key, "cancelled", {"error": str(error)})
        except TrainingFailed as error:
            log.warning("a session that was asked for did not happen: %s", error)
            ended = self._requests.end(request.key, "failed", {"error": str(error)})
        else:
            ended = self._requests.end(
                request.key, "finished", {**msgspec.to_builtins(finished), **describe_gate(told)}
            )
        self._note_end(ended)
        return True

    def _note_end(self, request: TrainingRequest) -> None:
        self.counts.sessions[request.state] += 1
        self._last = describe_request(request)
        end = self._ends.pop(request.key, None)
        if end is not None:
            end.set()

    def _is_request(self, key: str) -> bool:
        try:
            return not self._requests.find(key).ended
        except UnknownRequest:
            return False

    # ------------------------------------------------------------------ lessons

    async def approve(
        self,
        lessons: Sequence[str],
        by: str,
        *,
        why: str = "",
        overrides: Mapping[str, Any] | None = None,
    ) -> tuple[LedgerEntry, ...]:
        """Approve lessons, all or none. The loop trains them at once, unless the workspace says otherwise;
        with `overrides` as a session of their own, with these settings.

        `overrides` are in memory only: if the server dies first, the lessons are approved and the next
        server trains them with the workspace's settings. Raises ApiError and LessonError; nothing changed.
        """
        if overrides:
            check_steps(len(lessons), await self.settings(overrides))
        approved = self._approvals.approve(lessons, by, why, overrides)
        self._wake.set()
        return approved

    def train_soon(self, lessons: Sequence[str]) -> None:
        """Have approved lessons trained that failed once, or wait for someone to say so."""
        self._approvals.ask(lessons)
        self._wake.set()

    async def train_lessons(
        self, ids: Sequence[str] | None, overrides: Mapping[str, Any], *, dry_run: bool
    ) -> Result:
        """One session over approved lessons (all of them when `ids` is None).

        Raises ApiError when there is nothing approved or the settings cannot be used, TrainingFailed when
        the trainer undid it; the lessons are approved again then.
        """
        settings = await self.settings(overrides)
        ledger = self._ledger
        entries = [entry for entry in ledger.list("approved") if ids is None or entry.id in ids]
        taught, unteachable = await asyncio.to_thread(self.preparation.teachable, entries)
        if not taught:
            reasons = "".join(f"; lesson {one.lesson} cannot be taught: {one.why}" for one in unteachable)
            raise ApiError(409, f"expected approved lessons to train, found none{reasons}")
        session = uuid.uuid4().hex
        if dry_run:
            work = await self._lesson_work(session, taught, settings, dry_run=True)
            finished, told = await self.sessions.train(work)
        else:
            self.decider.require_none_waiting()
            ledger.begin_session(session, [entry.id for entry, _ in taught], settings.model_dump(mode="json"))
            finished, told = await self._teach(session, taught, settings)
        result = self._result(finished, settings, [entry for entry, _ in taught], unteachable)
        result.update(describe_gate(told))
        return result

    async def _teach(
        self, session: str, taught: Sequence[tuple[LedgerEntry, Example]], settings: TrainingSettings
    ) -> "tuple[Finished, Told | None]":
        """Run a session that the ledger holds open, close it there, and decide about it.

        While the trainer is unavailable it stays open: the next server asks what became of it.
        """
        from understudy.training import TrainingFailed

        ledger = self._ledger
        said = self.sessions.answers([example for _, example in taught])

        def close(finished: "Finished") -> None:
            assert finished.commit is not None
            results = {
                entry.id: lesson_result(outcome, *said.of(number))
                for number, ((entry, _), outcome) in enumerate(zip(taught, finished.outcomes, strict=True))
            }
            ledger.finish_session(session, finished.commit, results)
            self.counts.sessions["finished"] += 1
            log.info("session %s: %d lessons, commit %s", session, len(taught), finished.commit)

        try:
            work = await self._lesson_work(session, taught, settings, dry_run=False)
            return await self.sessions.train(work, close, said)
        except TrainingFailed as error:
            if ledger.session(session).state == "open":
                ledger.abandon_session(session, str(error))
                self.counts.sessions["failed"] += 1
            raise

    async def _lesson_work(
        self,
        session: str,
        taught: Sequence[tuple[LedgerEntry, Example]],
        settings: TrainingSettings,
        *,
        dry_run: bool,
    ) -> "RunSession":
        message = f"Learn {len(taught)} lesson{'s' if len(taught) != 1 else ''}"
        author = ", ".join(sorted({entry.lesson.source.author for entry, _ in taught}))
        examples = tuple(example for _, example in taught)
        work = self._work(session, examples, settings, message, author, dry_run, "")
        ids = tuple(entry.id for entry, _ in taught)
        return await self.sessions.accompanied(msgspec.structs.replace(work, lessons=ids), ids)

    # ------------------------------------------------------------------ parts

    async def settings(self, overrides: Mapping[str, Any]) -> TrainingSettings:
        """The workspace's settings with `overrides` for a session to come.

        Raises ApiError(400) naming what cannot be used, and ApiError(503) when training has stopped.
        """
        if self._stopped is not None:
            raise ApiError(503, self._stopped, code="trainer_unavailable")
        base = self.workspace.settings.training
        if not await asyncio.to_thread(self.preparation.rehearsals):
            base = base.model_copy(update={"replay": 0.0})  # nothing to rehearse; the answer says so
        return resolve_settings(base, overrides)

    def _work(
        self,
        session: str,
        examples: tuple[Example, ...],
        settings: TrainingSettings,
        message: str,
        author: str,
        dry_run: bool,
        digest: str,
    ) -> "RunSession":
        from understudy.training import RunSession

        resolved = settings.model_dump(mode="json")
        return RunSession(session, examples, (), resolved, message, author, dry_run=dry_run, digest=digest)

    def _result(
        self,
        finished: "Finished",
        settings: TrainingSettings,
        entries: Sequence[LedgerEntry],
        unteachable: Sequence[Unteachable],
    ) -> Result:
        self._last = {
            **msgspec.to_builtins(finished),
            "state": "finished",
            "settings": settings.model_dump(mode="json"),
            "lessons": [entry.short for entry in entries],
            "not_taught": [asdict(one) for one in unteachable],
        }
        return self._last

    # ------------------------------------------------------------------ status

    @property
    def stopped(self) -> str | None:
        """Why nothing is trained any more; None while training goes on."""
        return self._stopped

    @property
    def last(self) -> Result | None:
        """What came of the last session or request."""
        return self._last

    @property
    def queue_length(self) -> int:
        """Requests that have not ended."""
        return len(self._requests.waiting())

    def status(self, key: str | None = None) -> Result:
        """What `GET /train/status` says: everything, or of one request. ApiError(404) for an unknown key."""
        if key is not None:
            return self._status_of(key)
        ledger, waiting = self._ledger, self._requests.waiting()
        return {
            **describe_trainer(self.trainer.status),
            "weight_commit": self.engine.weight_commit,
            "proposed": len(ledger.list("proposed")),
            "approved": len(ledger.list("approved")),
            "queued": sum(request.state == "queued" for request in waiting),
            "queue": [describe_waiting(request) for request in waiting],
            "decisions": [
                {"session": one.session, "commit": one.weight_commit, "why": one.why, "at": one.at}
                for one in self.decider.waiting
            ],
            "stopped": self._stopped,
            "last": self._last,
        }

    def _status_of(self, key: str) -> Result:
        running = describe_running(self.trainer.status)
        if running is not None and running["session"] != key:
            running = None
        try:
            return {**describe_request(self._requests.find(key)), **(running or {})}
        except UnknownRequest as error:
            if running is not None:  # a session over lessons
                session = self._ledger.session(key)
                return {"state": "running", "settings": dict(session.settings), **running}
            raise ApiError(404, str(error), param="key", code="unknown_key") from error
