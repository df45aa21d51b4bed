"""What one session did: from the record of its weight commit and from the weights before and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.lessons import Decisions, SessionDecision
from understudy.training import ExampleOutcome
from understudy.weights import (
    HistoryView,
    MovementReport,
    UnknownCommit,
    WeightCommit,
    WeightHistory,
    measure_movement,
    pair_streams,
    read_config,
)


@dataclass(frozen=True, slots=True)
class SessionReport:
    """A weight commit and what it did. Without a session (a restore, a merge) only the weights moved.

    `outcomes` are in the order of the examples; `losses` has one entry per step, in nats per token. `kl`
    and `stopped` are as the session said them, `decisions` what was decided about it, oldest first.
    """

    commit: str
    parent: str | None
    session: str | None
    created: str
    author: str
    message: str
    lessons: tuple[str, ...]
    settings: Mapping[str, Any]
    steps: int
    gated: int
    seconds: float
    outcomes: tuple[ExampleOutcome, ...]
    losses: tuple[float, ...]
    kl: Mapping[str, Any] | None
    stopped: str | None
    movement: MovementReport
    decisions: tuple[SessionDecision, ...] = ()

    @property
    def gate(self) -> float | None:
        """The loss under which a lesson was known."""
        found: float | None = self.settings.get("gate")
        return found


def read_session_report(directory: Path, named: str, decisions: Decisions | None = None) -> SessionReport:
    """The report of a session, or of a weight commit by the beginning of its id, with what was decided.

    Only reads: a server may be running. Raises UnknownCommit when nothing has that name.
    """
    history = WeightHistory.view(directory)
    commit = history.commit_of(named) or _commit(history, named)
    result: Mapping[str, Any] = commit.details.get("result") or {}
    return SessionReport(
        commit=commit.id,
        parent=commit.parent,
        session=commit.session,
        created=commit.created,
        author=commit.author,
        message=commit.message,
        lessons=tuple(commit.lessons),
        settings=commit.details.get("settings") or {},
        steps=result.get("steps", 0),
        gated=result.get("gated", 0),
        seconds=result.get("seconds", 0.0),
        outcomes=tuple(ExampleOutcome(**one) for one in result.get("outcomes", ())),
        losses=tuple(result.get("losses", ())),
        kl=result.get("kl"),
        stopped=result.get("stopped"),
        movement=measure_movement(
            pair_streams(history.tensors_at(commit.parent), history.tensors_at(commit.id)),
            read_config(directory),
        ),
        decisions=decisions.of(commit.session) if decisions is not None and commit.session else (),
    )


def _commit(history: HistoryView, named: str) -> WeightCommit:
    try:
        return history.find(named)
    except UnknownCommit as error:
        raise UnknownCommit(f"{error.args[0]}; no session is called {named!r} either") from error
