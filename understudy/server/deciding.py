"""What becomes of a session: the gate's ruling written down, and carried out, whatever dies in between."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from understudy.behaviours import Ruling
from understudy.lessons import KeepOrRevert, Ledger, SessionDecision
from understudy.server.errors import ApiError
from understudy.server.gating import Gatekeeper, Watch
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Engine
    from understudy.training import Finished

log = logging.getLogger(__name__)
GATE = "gate"
"""Who decides when no person does."""

Told = dict[str, Any]
"""What the API tells of a decision."""
Restoring = Callable[[str | None, str, str], Awaitable[str]]
"""Brings the weights back to a commit, in whose name, and why."""


class Decider:
    """Decides about sessions, once each. The ledger has every decision with its evidence."""

    def __init__(self, workspace: Workspace, engine: "Engine", restore: Restoring) -> None:
        self.gatekeeper = Gatekeeper(workspace, engine)
        self._decisions = self.gatekeeper.decisions
        self._engine = engine
        self._ledger: Ledger = workspace.ledger
        self._restore = restore

    @property
    def waiting(self) -> tuple[SessionDecision, ...]:
        """What a person is asked and has not answered."""
        return self._decisions.open()

    def require_none_waiting(self) -> None:
        """Raises ApiError(409) while a decision is open: what is built on weights in doubt is in doubt."""
        if self.waiting:
            [first, *_] = self.waiting
            raise ApiError(
                409,
                f"expected no open decision, session {first.session} waits for one ({first.why}): "
                f"`understudy behaviours keep {first.session[:12]}`, or `revert`",
                code="decision_open",
            )

    async def decide(
        self, watch: Watch | None, finished: "Finished", *, fresh: bool
    ) -> dict[str, Any] | None:
        """Decide about a session that was just trained, or find what was decided, and carry it out.

        `fresh`: nothing happened to the weights between the watch and the session. Returns what is told of
        it; None without a gate.
        """
        if watch is None or finished.commit is None:
            return None
        known = self._decisions.of(finished.session)
        if known:
            await self._carry_out(known[-1])
            return describe_decision(known[-1])
        kl = None if finished.kl is None else finished.kl.mean
        ruling = (
            await self.gatekeeper.rule(watch, kl, fresh=fresh)
            if finished.steps
            else Ruling("keep", "no step was taken", {}, {}, {})
        )
        made = self._decisions.record(
            finished.session,
            finished.commit,
            ruling.choice,
            by=GATE,
            why=ruling.why,
            evidence=ruling.evidence,
        )
        if ruling.choice == "keep" and finished.steps:
            await asyncio.to_thread(self.gatekeeper.remember, watch, ruling)
        await self._carry_out(made)
        if ruling.choice == "revert":
            made = await self._look_back(watch, made)
        return describe_decision(made)

    async def answer(self, session: str, choice: KeepOrRevert, by: str, why: str) -> SessionDecision:
        """A person's decision, carried out. Raises NoOpenQuestion."""
        made = self._decisions.answer(session, choice, by=by, why=why)
        await self._carry_out(made)
        return made

    async def finish(self) -> None:
        """Carry out what was decided before the server died, and close what no longer matters."""
        for decision in self._newest():
            if decision.choice == "keep" or self._is_due(decision):
                await self._carry_out(decision)
        self.close_moot("server", "its weights were left behind")

    def close_moot(self, by: str, why: str) -> None:
        """Questions about sessions whose weights are no longer held are answered by that."""
        held = self._held()
        for question in self.waiting:
            if question.weight_commit not in held:
                self._decisions.answer(question.session, "revert", by=by, why=why)

    # ------------------------------------------------------------------ parts

    async def _carry_out(self, decision: SessionDecision) -> None:
        """Make the weights and the ledger what was decided; what is so already stays."""
        from understudy.weights import read_commits

        if decision.choice == "keep":
            self._keep(decision)
        if decision.choice != "revert" or decision.weight_commit not in self._held():
            return
        commits = {commit.id: commit for commit in read_commits(self._engine.directory)}
        parent = commits[decision.weight_commit].parent
        await self._restore(parent, decision.by, decision.why)
        log.info("session %s was reverted: %s", decision.session, decision.why)

    def _is_due(self, decision: SessionDecision) -> bool:
        """Whether a revert was not carried out: nothing was restored since the session. Where something was,
        a person may have brought the session's weights back on purpose.
        """
        from understudy.weights import read_commits

        if decision.choice != "revert":
            return False
        commits = read_commits(self._engine.directory)
        places = [place for place, one in enumerate(commits) if one.id == decision.weight_commit]
        return bool(places) and not any("restores" in one.details for one in commits[places[0] + 1 :])

    def _keep(self, decision: SessionDecision) -> None:
        for entry in self._ledger.list("trained"):
            if entry.session == decision.session:
                self._ledger.keep(entry.id, decision.by, decision.why)

    async def _look_back(self, watch: Watch, made: SessionDecision) -> SessionDecision:
        """After a revert: if what was violated was so before the session, a second entry says that."""
        names = [
            one["invariant"] for one in made.evidence.get("verdicts", ()) if one["decision"] == "violated"
        ]
        before = await self.gatekeeper.violated(watch, names)
        if not before:
            return made
        why = (
            f"{made.why}; violated before this session as well: {', '.join(before)}. No session can pass "
            'until it is learned, or its file says kind = "wanted"'
        )
        return self._decisions.record(
            made.session, made.weight_commit, "revert", by=GATE, why=why, evidence={"before": list(before)}
        )

    def _newest(self) -> Sequence[SessionDecision]:
        """The last decision about each session."""
        return list({one.session: one for one in self._decisions.list()}.values())

    def _held(self) -> frozenset[str]:
        from understudy.weights import changes_held, read_commits

        return frozenset(commit.id for commit in changes_held(read_commits(self._engine.directory)))


def describe_decision(decision: SessionDecision) -> Told:
    """A decision as the API tells it."""
    return {
        "decision": decision.choice,
        "by": decision.by,
        "why": decision.why,
        "at": decision.at,
        "evidence": dict(decision.evidence),
    }
