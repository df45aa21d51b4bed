"""Requests to train that came over the API: a queue on disk, in the ledger's database.

What `accept` returned is there after any death, and is run once: the key is the session's id, and a session
that was committed is not run again. Ended requests stay for a while: the same key gets the same answer.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from understudy.lessons.errors import QueueFull, RequestConflict, UnknownRequest
from understudy.lessons.schema import prepare, reading, writing

RequestState = Literal["queued", "running", "cancelling", "finished", "failed", "cancelled"]
EndState = Literal["finished", "failed", "cancelled"]

MAX_QUEUED = 256
"""Requests that may wait. More would hold someone's answer for hours; they are told to come again."""
KEPT = 1000
"""Ended requests whose answers are kept."""

_ENDED = "('finished', 'failed', 'cancelled')"
_COLUMNS = "number, key, content, state, about, answer, accepted_at, began_at, ended_at"


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A request as the queue knows it. `about` is what it asked for in short, `answer` what came of it.

    `content` is the fingerprint of all it asked for. Times are ISO 8601 in UTC.
    """

    number: int
    key: str
    content: str
    state: RequestState
    about: Mapping[str, Any]
    answer: Mapping[str, Any] | None
    accepted_at: str
    began_at: str | None
    ended_at: str | None

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "failed", "cancelled")


class RequestQueue:
    """Requests in the order in which they came. Safe across threads, processes and their death.

    A method that returns has its effect on disk; one that raises has none.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Open the queue of the ledger at `path`; `LedgerVersion` if a newer program made it."""
        self._path = path
        self._clock = clock
        prepare(path)

    def known(self, key: str, content: str) -> TrainingRequest | None:
        """The request of this key, None if there is none; RequestConflict if it asked for something else."""
        with reading(self._path) as connection:
            return _known(connection, key, content)

    def accept(self, key: str, content: str, about: Mapping[str, Any], work: bytes) -> TrainingRequest:
        """Take on a request, or find it. Raises RequestConflict or QueueFull."""
        with writing(self._path) as connection:
            there = _known(connection, key, content)
            if there is not None:
                return there
            count = connection.execute(
                "select count(*) from requests where state in ('queued', 'running', 'cancelling')"
            ).fetchone()[0]
            if count >= MAX_QUEUED:
                raise QueueFull(f"expected fewer than {MAX_QUEUED} requests in the queue, it has {count}")
            connection.execute(
                "insert into requests (key, content, state, about, work, accepted_at)"
                " values (?, ?, 'queued', ?, ?, ?)",
                (key, content, json.dumps(dict(about)), work, self._now()),
            )
            return _require(connection, key)

    def find(self, key: str) -> TrainingRequest:
        """The request of this key. Raises UnknownRequest."""
        with reading(self._path) as connection:
            return _require(connection, key)

    def waiting(self) -> tuple[TrainingRequest, ...]:
        """The requests that have not ended, in their order; the first may be running."""
        with reading(self._path) as connection:
            found = connection.execute(
                f"select {_COLUMNS} from requests where state in ('queued', 'running', 'cancelling')"
                " order by number"
            )
            return tuple(_request(row) for row in found)

    def begin(self) -> tuple[TrainingRequest, bytes] | None:
        """The oldest request that has not ended, marked as running, with its work. None if there is none.

        After a death that is the one that ran then. One in the state `cancelling` stays that.
        """
        with writing(self._path) as connection:
            row = connection.execute(
                "select key, work from requests where state in ('queued', 'running', 'cancelling')"
                " order by number limit 1"
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "update requests set state = 'running', began_at = ? where key = ? and state = 'queued'",
                (self._now(), row["key"]),
            )
            return _require(connection, row["key"]), row["work"]

    def cancel(self, key: str) -> TrainingRequest:
        """Cancel a request that waits, mark one that runs. Raises UnknownRequest, or RequestConflict when it
        has ended.
        """
        with writing(self._path) as connection:
            request = _require(connection, key)
            if request.ended:
                raise RequestConflict(f"expected a request that waits or runs, {key!r} is {request.state}")
            if request.state == "queued":
                answer = json.dumps({"error": "cancelled before it began"})
                connection.execute(
                    "update requests set state = 'cancelled', answer = ?, ended_at = ?, work = null"
                    " where key = ?",
                    (answer, self._now(), key),
                )
            else:
                connection.execute("update requests set state = 'cancelling' where key = ?", (key,))
            return _require(connection, key)

    def end(self, key: str, state: EndState, answer: Mapping[str, Any]) -> TrainingRequest:
        """Note what came of a request, and forget the oldest beyond KEPT."""
        with writing(self._path) as connection:
            connection.execute(
                "update requests set state = ?, answer = ?, ended_at = ?, work = null where key = ?",
                (state, json.dumps(dict(answer)), self._now(), key),
            )
            connection.execute(
                f"delete from requests where state in {_ENDED} and number <= ("
                f" select number from requests where state in {_ENDED} order by number desc"
                " limit 1 offset ?)",
                (KEPT,),
            )
            return _require(connection, key)

    def last_failures(self, count: int) -> tuple[TrainingRequest, ...]:
        """The newest requests that failed, oldest first."""
        with reading(self._path) as connection:
            found = connection.execute(
                f"select {_COLUMNS} from requests where state = 'failed' order by number desc limit ?",
                (count,),
            ).fetchall()
            return tuple(_request(row) for row in reversed(found))

    def _now(self) -> str:
        return self._clock().astimezone(UTC).isoformat()


def _row(connection: sqlite3.Connection, key: str) -> TrainingRequest | None:
    row = connection.execute(f"select {_COLUMNS} from requests where key = ?", (key,)).fetchone()
    return None if row is None else _request(row)


def _known(connection: sqlite3.Connection, key: str, content: str) -> TrainingRequest | None:
    there = _row(connection, key)
    if there is not None and there.content != content:
        raise RequestConflict(
            f"the key {key!r} stands for another request, accepted {there.accepted_at}: use a new key"
        )
    return there


def _require(connection: sqlite3.Connection, key: str) -> TrainingRequest:
    there = _row(connection, key)
    if there is None:
        raise UnknownRequest(f"no request with the key {key!r}: it was never accepted, or ended long ago")
    return there


def _request(row: sqlite3.Row) -> TrainingRequest:
    return TrainingRequest(
        row["number"],
        row["key"],
        row["content"],
        row["state"],
        json.loads(row["about"]),
        json.loads(row["answer"]) if row["answer"] else None,
        row["accepted_at"],
        row["began_at"],
        row["ended_at"],
    )
