"""Sessions on the one trainer, each with the decision about it, and the weights' way back."""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from understudy.config import TrainingSettings
from understudy.lessons import Example, KeepOrRevert
from understudy.server.deciding import Decider, Told
from understudy.server.gating import GateClosed, Shown
from understudy.server.lesson_answers import LessonAnswers
from understudy.server.loss_curve import LossCurve
from understudy.server.preparation import Preparation
from understudy.server.training_status import Result
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Engine
    from understudy.training import Finished, RunSession, Stepped, TrainerHandle

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """What the metrics tell: steps taken, sessions by how they ended, the last step's loss, the last KL; and
    the losses of the session that runs.
    """

    steps: int = 0
    sessions: Counter[str] = field(default_factory=Counter)
    loss: float | None = None
    kl: float | None = None
    curve: LossCurve = field(default_factory=LossCurve)


class Sessions:
    """Runs sessions one at a time. What is restored, adopted or answered waits for its turn: a session and
    the decision about it are one.
    """

    def __init__(
        self, workspace: Workspace, engine: "Engine", trainer: "TrainerHandle", preparation: Preparation
    ) -> None:
        self.engine = engine
        self.trainer = trainer
        self.counts = Counts()
        self.decider = Decider(workspace, engine, self._bring_back)
        self.running: str | None = None
        """The session whose turn it is, until it is decided about."""
        self.judging = False
        """Whether its training is over."""
        self.ended: str | None = None
        """The session that ended last, however it did."""
        self._speaks = workspace.settings.participant
        self._preparation = preparation
        self._ledger = workspace.ledger
        self._turn = asyncio.Lock()

    async def take_up(self) -> None:
        """What a server that died left undone: the ledger as the weights are, decisions taken and carried
        out; and what the first session will need.
        """
        self._settle("server")
        async with self._turn:
            await self._decide_undecided()
            await self.decider.finish()
            await self.decider.gatekeeper.warm_up()

    async def carry_out(self) -> None:
        """Decisions that could not be carried out while there was no trainer."""
        async with self._turn:
            await self.decider.finish()

    # ------------------------------------------------------------------ a session

    async def accompanied(self, work: "RunSession", taught: Sequence[str]) -> "RunSession":
        """With what is mixed in, and what the session is measured on, as they are now."""
        settings = TrainingSettings.model_validate(work.settings)
        learned = [entry for entry in self._ledger.learned() if entry.id not in taught]
        preparation = self._preparation
        wanted = settings.replay or settings.reviews
        replay = await asyncio.to_thread(preparation.replay, learned, await self._shown()) if wanted else ()
        probe = await asyncio.to_thread(preparation.probe, settings.probe_tokens)
        return msgspec.structs.replace(work, replay=replay, probe=probe)

    async def _shown(self) -> Sequence[Shown]:
        """What the model did by itself that must survive. Raises TrainingFailed when that cannot be had."""
        from understudy.training import TrainingFailed

        try:
            return await self.decider.gatekeeper.contrast()
        except GateClosed as error:
            raise TrainingFailed(f"nothing was trained: {error}") from error

    def answers(self, examples: Sequence[Example] = ()) -> LessonAnswers:
        """Asks for what the model says to these examples before and after a session, when it is given to
        `train`.
        """
        return LessonAnswers(self.engine, self._speaks, examples)

    async def train(
        self,
        work: "RunSession",
        close: "Callable[[Finished], None]" = lambda _: None,
        said: LessonAnswers | None = None,
    ) -> "tuple[Finished, Told | None]":
        """Run a session, have its end noted, and decide about it. A dry run is not decided about. What the
        model says before and after is in `said` when the end is noted.

        Raises TrainingFailed, before anything is trained, when it could not be judged afterwards.
        """
        from understudy.training import TrainingFailed

        said = said or self.answers()
        async with self._turn:
            self.running = work.session
            try:
                try:
                    watch = None if work.dry_run else await self.decider.gatekeeper.before()
                except GateClosed as error:
                    raise TrainingFailed(f"nothing was trained: {error}") from error
                before = self.engine.weight_commit
                await said.ask_before()
                finished = await self.trainer.run(work, self._note_step)
                if finished.commit is not None:
                    self.engine.weight_commit = finished.commit
                self.counts.kl = None if finished.kl is None else finished.kl.mean
                self.judging, fresh = True, finished.commit != before
                await said.ask_after(fresh=fresh)
                close(finished)
                return finished, await self.decider.decide(watch, finished, fresh=fresh)
            finally:
                self.running, self.judging, self.ended = None, False, work.session

    def _note_step(self, step: "Stepped") -> None:
        self.counts.steps += step.skipped is None
        self.counts.loss = step.loss
        self.counts.curve.note(step.session, step.step, step.loss)

    async def _decide_undecided(self) -> None:
        """The last session, if a server died between its end and the decision about it."""
        from understudy.training import Finished
        from understudy.weights import read_commits

        commits = read_commits(self.engine.directory)
        newest = commits[-1] if commits else None
        ended = {session.id for session in self._ledger.sessions() if session.state == "finished"}
        if newest is None or newest.session not in ended or "result" not in newest.details:
            return
        known = {"commit": newest.id, "update_norm": newest.update_norm}
        finished = msgspec.convert({**newest.details["result"], **known}, Finished)
        try:
            await self.decider.decide(await self.decider.gatekeeper.before(), finished, fresh=False)
        except GateClosed as error:
            log.error("session %s was not judged: %s", newest.session, error)

    # ------------------------------------------------------------------ weights

    async def restore(self, commit: str | None, author: str) -> str:
        """Bring the weights back to a commit, in place, while they are being served."""
        async with self._turn:
            made = await self._bring_back(commit, author, "")
            self.decider.close_moot(author, f"the weights were brought back to {commit or 'the beginning'}")
            return made

    async def _bring_back(self, commit: str | None, author: str, why: str) -> str:
        from understudy.training import Restore

        made = await self.trainer.restore(Restore(uuid.uuid4().hex, commit, author))
        self.engine.weight_commit = made
        self._settle(author, why)
        return made

    async def answer(self, session: str, choice: KeepOrRevert, by: str, why: str) -> Result:
        """A person's decision about a session that waits for one. Raises NoOpenQuestion."""
        async with self._turn:
            made = await self.decider.answer(session, choice, by, why)
        return {
            "session": made.session,
            "decision": choice,
            "by": by,
            "why": why,
            "weight_commit": self.engine.weight_commit,
        }

    async def adopt(self, source: str, message: str, author: str, parent: str | None) -> Result:
        """Take the values of a safetensors file or model directory into the served weights, as a commit."""
        from understudy.training import Adopt

        async with self._turn:
            self.decider.require_none_waiting()
            made = await self.trainer.adopt(Adopt(uuid.uuid4().hex, source, message, author, parent))
        self.engine.weight_commit = made
        return {"commit": made, "source": source}

    async def checkpoint(self) -> Result:
        """Bring the model directory up to the newest commit."""
        synced: Result = msgspec.to_builtins(await self.trainer.checkpoint(uuid.uuid4().hex))
        return {name: value for name, value in synced.items() if name not in ("type", "session")}

    def _settle(self, author: str, why: str = "") -> None:
        """What the weights no longer hold is no longer trained, and the other way round."""
        from understudy.weights import lessons_held, read_commits

        commits = read_commits(self.engine.directory)
        why = why or (commits[-1].message if commits else "no weight commit")
        for entry in self._ledger.settle(lessons_held(commits), author, why):
            log.info("lesson %s is %s: %s", entry.short, entry.state, why)


def describe_gate(told: Told | None) -> Result:
    """The decision about a session, as part of what is told of it."""
    return {} if told is None else {"gate": told}
