"""Training beside serving: sessions of the one trainer, over approved lessons and over raw examples."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from understudy.config import TrainingSettings
from understudy.lessons import Example, LedgerEntry, LessonError, LessonResult
from understudy.server.errors import ApiError
from understudy.server.preparation import Preparation, Unteachable
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import EmbeddedEngine
    from understudy.training import Finished, RunSession, TrainerHandle

log = logging.getLogger(__name__)
APPROVAL_POLL_SECONDS = 0.2

Result = dict[str, Any]
"""A session's result as the API answers it."""


class TrainingService:
    """Turns approved lessons and raw examples into sessions. All methods belong to one event loop."""

    def __init__(self, workspace: Workspace, engine: "EmbeddedEngine", trainer: "TrainerHandle") -> None:
        self.workspace = workspace
        self.engine = engine
        self.trainer = trainer
        self._ledger = workspace.ledger
        self._preparation = Preparation(workspace, engine)
        self._queued: set[asyncio.Task[Result]] = set()
        self._set_aside: set[str] = set()
        self._last: Result | None = None
        self._stopped: str | None = None

    # ------------------------------------------------------------------ by itself

    async def run(self) -> None:
        """Start the trainer, finish what an earlier server left open, then train what gets approved.

        Without a trainer the server goes on serving; the status says why. Any other failure is raised,
        and the status says that training stopped.
        """
        try:
            await self._run()
        except Exception as error:
            self._stopped = f"{type(error).__name__}: {error}"
            raise

    async def _run(self) -> None:
        from understudy.training import TrainerUnavailable

        try:
            await self.trainer.start()
        except TrainerUnavailable as error:
            log.error("training is not available: %s", error)
            self._stopped = str(error)
            return
        self.engine.weight_commit = self.trainer.status.commit
        await asyncio.to_thread(self._preparation.rehearsals)
        await self._finish_open_sessions()
        self._settle("server")
        while True:
            waiting = [e.id for e in self._ledger.list("approved") if e.id not in self._set_aside]
            if waiting and self.workspace.settings.training.on_approval:
                await self._train_quietly(waiting)
            await asyncio.sleep(APPROVAL_POLL_SECONDS)

    async def _train_quietly(self, ids: Sequence[str]) -> None:
        from understudy.training import TrainingFailed

        try:
            result = await self.train_lessons(ids, {}, dry_run=False)
            self._set_aside.update(one["id"] for one in result["not_taught"])
        except (TrainingFailed, ApiError, LessonError) as error:
            log.warning("approved lessons were not trained: %s", error)
            self._set_aside.update(ids)  # until someone asks: the same failure would come again at once
            self._last = {"state": "failed", "error": str(error)}

    async def _finish_open_sessions(self) -> None:
        """Sessions open when a server died: the trainer knows which were committed, and runs the others."""
        from understudy.training import TrainingFailed

        ledger = self._ledger
        for session in ledger.open_sessions():
            entries = [ledger.get(identity) for identity in session.lesson_ids]
            settings = TrainingSettings.model_validate(dict(session.settings))
            taught = [(entry, self._preparation.example(entry)) for entry in entries]
            try:
                await self._teach(session.id, taught, settings)
            except TrainingFailed as error:
                log.warning("session %s was given up: %s", session.id, error)

    # ------------------------------------------------------------------ sessions

    async def train_lessons(
        self, ids: Sequence[str] | None, overrides: dict[str, Any], *, dry_run: bool
    ) -> Result:
        """One session over approved lessons (all of them when `ids` is None).

        Raises ApiError when there is nothing approved or the settings cannot be used, TrainingFailed when
        the trainer undid it; the lessons are approved again then.
        """
        settings = await self.settings(overrides)
        ledger = self._ledger
        entries = [entry for entry in ledger.list("approved") if ids is None or entry.id in ids]
        taught, unteachable = await asyncio.to_thread(self._preparation.teachable, entries)
        if not taught:
            reasons = "".join(f"; lesson {one.lesson} cannot be taught: {one.why}" for one in unteachable)
            raise ApiError(409, f"expected approved lessons to train, found none{reasons}")
        session = uuid.uuid4().hex
        if dry_run:
            finished = await self.trainer.run(self._request(session, taught, settings, dry_run=True))
        else:
            ledger.begin_session(session, [entry.id for entry, _ in taught], settings.model_dump(mode="json"))
            finished = await self._teach(session, taught, settings)
        return self._result(finished, settings, [entry for entry, _ in taught], unteachable)

    async def _teach(
        self, session: str, taught: Sequence[tuple[LedgerEntry, Example]], settings: TrainingSettings
    ) -> "Finished":
        """Run a session that the ledger holds open, and close it there.

        While the trainer is unavailable it stays open: the next server asks what became of it.
        """
        from understudy.training import TrainingFailed

        ledger = self._ledger
        try:
            finished = await self.trainer.run(self._request(session, taught, settings, dry_run=False))
        except TrainingFailed as error:
            ledger.abandon_session(session, str(error))
            raise
        results = {
            entry.id: LessonResult(outcome.loss_before, outcome.loss_after, outcome.gated)
            for (entry, _), outcome in zip(taught, finished.outcomes, strict=True)
        }
        assert finished.commit is not None
        ledger.finish_session(session, finished.commit, results)
        self.engine.weight_commit = finished.commit
        log.info("session %s: %d lessons, commit %s", session, len(taught), finished.commit)
        return finished

    async def train_examples(
        self, request: "RunSession", overrides: dict[str, Any], *, replay: bool, wait: bool
    ) -> Result:
        """One session over raw token ids; `request` comes without settings and replay.

        Raises ApiError for examples or settings that cannot be used, TrainingFailed when `wait` and the
        trainer undid it.
        """
        settings = await self.settings({**overrides, **({} if replay else {"replay": 0.0})})
        self._preparation.check(request.examples)
        complete = msgspec.structs.replace(
            request,
            replay=self._preparation.rehearsals() if replay else (),
            settings=settings.model_dump(mode="json"),
        )
        running = asyncio.create_task(self._run_examples(complete, settings))
        if wait:
            return await running
        self._queued.add(running)
        running.add_done_callback(self._note_end)
        return {"session": request.session, "state": "queued", "settings": settings.model_dump(mode="json")}

    async def _run_examples(self, request: "RunSession", settings: TrainingSettings) -> Result:
        finished = await self.trainer.run(request)
        if finished.commit is not None:
            self.engine.weight_commit = finished.commit
        return self._result(finished, settings, (), ())

    async def restore(self, commit: str | None, author: str) -> str:
        """Bring the weights back to a commit, in place, while they are being served."""
        from understudy.training import Restore

        made = await self.trainer.restore(Restore(uuid.uuid4().hex, commit, author))
        self.engine.weight_commit = made
        self._settle(author)
        return made

    def _settle(self, author: str) -> None:
        """What the weights no longer hold is no longer trained, and the other way round."""
        from understudy.weights import lessons_held, read_commits

        commits = read_commits(self.engine.directory)
        why = commits[-1].message if commits else "no weight commit"
        for entry in self._ledger.settle(lessons_held(commits), author, why):
            log.info("lesson %s is %s: %s", entry.short, entry.state, why)

    # ------------------------------------------------------------------ parts

    async def settings(self, overrides: dict[str, Any]) -> TrainingSettings:
        """The workspace's settings with `overrides` for a session to come.

        Raises ApiError(400) naming what cannot be used, and ApiError(503) when training has stopped.
        """
        if self._stopped is not None:
            raise ApiError(503, self._stopped, code="trainer_unavailable")
        base = self.workspace.settings.training.model_dump()
        if not await asyncio.to_thread(self._preparation.rehearsals):
            base["replay"] = 0.0  # there is nothing to rehearse; the answer's settings say so
        try:
            return TrainingSettings.model_validate({**base, **overrides})
        except ValidationError as error:
            problems = "; ".join(
                f"settings.{'.'.join(map(str, problem['loc']))}: {problem['msg']}, got {problem['input']!r}"
                for problem in error.errors()
            )
            raise ApiError(400, problems, param="settings") from error

    def status(self) -> dict[str, Any]:
        """What `GET /train/status` says."""
        ledger = self._ledger
        return {
            "trainer": asdict(self.trainer.status),
            "weight_commit": self.engine.weight_commit,
            "proposed": len(ledger.list("proposed")),
            "approved": len(ledger.list("approved")),
            "queued": len(self._queued),
            "stopped": self._stopped,
            "last": self._last,
        }

    def _request(
        self,
        session: str,
        taught: Sequence[tuple[LedgerEntry, Example]],
        settings: TrainingSettings,
        *,
        dry_run: bool,
    ) -> "RunSession":
        from understudy.training import RunSession

        return RunSession(
            session=session,
            examples=tuple(example for _, example in taught),
            replay=self._preparation.rehearsals(),
            settings=settings.model_dump(mode="json"),
            message=f"Learn {len(taught)} lesson{'s' if len(taught) != 1 else ''}",
            author=", ".join(sorted({entry.lesson.source.author for entry, _ in taught})),
            lessons=tuple(entry.id for entry, _ in taught),
            dry_run=dry_run,
        )

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

    def _note_end(self, task: "asyncio.Task[Result]") -> None:
        self._queued.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a session that was asked for did not happen: %s", error)
            self._last = {"state": "failed", "error": str(error)}
