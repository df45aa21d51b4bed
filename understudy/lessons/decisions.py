"""What was decided about training sessions, by whom, and on which evidence: part of the ledger."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from understudy.lessons.errors import NoOpenQuestion
from understudy.lessons.schema import prepare, reading, writing

KeepOrRevert = Literal["keep", "revert"]
Choice = Literal["keep", "revert", "ask"]


@dataclass(frozen=True, slots=True)
class SessionDecision:
    """`choice` about a session that made `weight_commit`, with the reason and the evidence (plain data).

    `by` is "gate" or a person. `ask` waits for a person's keep or revert.
    """

    session: str
    weight_commit: str | None
    choice: Choice
    at: str
    by: str
    why: str
    evidence: Mapping[str, Any]


class Decisions:
    """Decisions in the ledger's file, in the order in which they were taken; none is ever changed."""

    def __init__(self, path: Path | str, clock: Callable[[], datetime] | None = None) -> None:
        self._path = Path(path)
        self._clock = clock or (lambda: datetime.now(UTC))
        prepare(self._path)

    def record(
        self,
        session: str,
        weight_commit: str | None,
        choice: Choice,
        *,
        by: str,
        why: str,
        evidence: Mapping[str, Any],
    ) -> SessionDecision:
        """Write a decision down."""
        made = SessionDecision(session, weight_commit, choice, self._now(), by, why, dict(evidence))
        with writing(self._path) as connection:
            _insert(connection, made)
        return made

    def answer(self, session: str, choice: KeepOrRevert, *, by: str, why: str) -> SessionDecision:
        """A person's answer to an open question about a session, named by the beginning of its id.

        Raises NoOpenQuestion when nothing was asked about it, or it was answered.
        """
        with writing(self._path) as connection:
            questions = _open(connection)
            waiting = [one for one in questions if one.session == session]
            waiting = waiting or [one for one in questions if session and one.session.startswith(session)]
            if len(waiting) != 1:
                known = ", ".join(one.session for one in questions) or "none"
                raise NoOpenQuestion(
                    f"expected a session that waits for a decision ({known}), got {session!r}: see "
                    "`understudy behaviours decisions`"
                )
            asked = waiting[0]
            made = SessionDecision(asked.session, asked.weight_commit, choice, self._now(), by, why, {})
            _insert(connection, made)
            return made

    def list(self) -> tuple[SessionDecision, ...]:
        """All decisions, oldest first."""
        with reading(self._path) as connection:
            return tuple(map(_decision, connection.execute("select * from decisions order by number")))

    def of(self, session: str) -> tuple[SessionDecision, ...]:
        """Those about one session, oldest first."""
        return tuple(one for one in self.list() if one.session == session)

    def open(self) -> tuple[SessionDecision, ...]:
        """The questions that no one has answered yet."""
        with reading(self._path) as connection:
            return _open(connection)

    def _now(self) -> str:
        return self._clock().astimezone(UTC).isoformat()


def _insert(connection: sqlite3.Connection, made: SessionDecision) -> None:
    connection.execute(
        "insert into decisions (session, weight_commit, decision, at, by, why, evidence)"
        " values (?, ?, ?, ?, ?, ?, ?)",
        (
            made.session,
            made.weight_commit,
            made.choice,
            made.at,
            made.by,
            made.why,
            json.dumps(made.evidence, allow_nan=False),
        ),
    )


def _open(connection: sqlite3.Connection) -> tuple[SessionDecision, ...]:
    found = connection.execute(
        "select * from decisions where decision = 'ask' and number in"
        " (select max(number) from decisions group by session) order by number"
    )
    return tuple(map(_decision, found))


def _decision(row: sqlite3.Row) -> SessionDecision:
    return SessionDecision(
        row["session"],
        row["weight_commit"],
        row["decision"],
        row["at"],
        row["by"],
        row["why"],
        json.loads(row["evidence"]),
    )
