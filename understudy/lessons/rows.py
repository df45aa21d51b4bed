"""One statement's worth of the ledger at a time: every function works inside its caller's transaction."""

import json
import sqlite3
from collections.abc import Collection, Iterable

from understudy.lessons.errors import (
    AmbiguousLesson,
    IllegalTransition,
    SessionConflict,
    UnknownLesson,
    UnknownSession,
)
from understudy.lessons.lesson import SHORT_ID, Lesson
from understudy.lessons.records import (
    TRANSITIONS,
    LedgerEntry,
    Session,
    SessionState,
    State,
    entry_from_row,
    session_from_row,
)

ENTRY = """select lessons.*, sessions.weight_commit, sessions.ended_at, sessions.settings,
        session_lessons.result
    from lessons left join sessions on sessions.id = lessons.session
    left join session_lessons on session_lessons.session = lessons.session
        and session_lessons.lesson = lessons.id"""
LEDGER = "ledger"
"""Who is named where the ledger itself moves a lesson."""


def list_short(keys: Iterable[str]) -> str:
    """Lessons as people see them, for messages."""
    return ", ".join(key[:SHORT_ID] for key in keys) or "none"


def message_of(lesson: Lesson) -> str:
    """The message that a lesson corrects; empty for one that was imported, which supersedes nothing."""
    return f"{lesson.source.file}#{lesson.source.message}" if lesson.source.commit else ""


def resolve(connection: sqlite3.Connection, beginning: str) -> str:
    """The one lesson whose id begins like this."""
    found = connection.execute(
        "select id from lessons where substr(id, 1, length(?1)) = ?1 and ?1 != '' limit 9",
        (beginning.lower(),),
    ).fetchall()
    if not found:
        count = connection.execute("select count(*) from lessons").fetchone()[0]
        raise UnknownLesson(
            f"no lesson {beginning!r} among the {count} in the ledger: list them to see their ids"
        )
    if len(found) > 1:
        names = list_short([row["id"] for row in found])
        raise AmbiguousLesson(f"several lessons begin with {beginning!r} ({names}): give more digits")
    return str(found[0]["id"])


def entry(connection: sqlite3.Connection, key: str) -> LedgerEntry:
    """The entry of this whole id."""
    return entry_from_row(connection.execute(f"{ENTRY} where lessons.id = ?", (key,)).fetchone())


def require(connection: sqlite3.Connection, key: str, wanted: State) -> State:
    """The lesson's state, or `IllegalTransition` if it cannot become `wanted`."""
    current: State = connection.execute("select state from lessons where id = ?", (key,)).fetchone()["state"]
    if wanted not in TRANSITIONS[current]:
        raise IllegalTransition(
            f"lesson {key[:SHORT_ID]}", current, wanted, " or ".join(TRANSITIONS[current])
        )
    return current


def require_free(connection: sqlite3.Connection, key: str) -> None:
    """`SessionConflict` if an open session holds the lesson."""
    row = connection.execute(
        "select session from session_lessons where lesson = ? and is_open = 1", (key,)
    ).fetchone()
    if row is not None:
        raise SessionConflict(
            f"lesson {key[:SHORT_ID]} is in the open session {row['session']!r}: let it finish, or abandon it"
        )


def move(connection: sqlite3.Connection, key: str, state: State, at: str, by: str, why: str) -> None:
    """One transition, recorded; refused where the table forbids it or an open session holds the lesson."""
    current = require(connection, key, state)
    require_free(connection, key)
    connection.execute("update lessons set state = ?, changed_at = ? where id = ?", (state, at, key))
    record(connection, key, current, state, at, by, why)


def settled(connection: sqlite3.Connection, held: Collection[str]) -> list[sqlite3.Row]:
    """Lessons whose state differs from what the weights hold, with the state that fits (`settled`)."""
    return connection.execute(
        "with held(id) as (select value from json_each(?)),"
        " fitting as (select id, state, case"
        "  when state in ('trained', 'kept') and id not in held then 'reverted'"
        "  when state = 'reverted' and id in held then 'trained' end as settled from lessons)"
        " select * from fitting where settled is not null"
        " and id not in (select lesson from session_lessons where is_open = 1)",
        (json.dumps(sorted(held)),),
    ).fetchall()


def overrule(
    connection: sqlite3.Connection, key: str, current: State, state: State, at: str, by: str, why: str
) -> None:
    """A change of state that the weights dictate, recorded; no table is asked."""
    connection.execute("update lessons set state = ?, changed_at = ? where id = ?", (state, at, key))
    record(connection, key, current, state, at, by, why)


def record(
    connection: sqlite3.Connection, key: str, current: State | None, state: State, at: str, by: str, why: str
) -> None:
    """Write an event."""
    connection.execute(
        "insert into events (lesson, state_from, state_to, at, by, why) values (?, ?, ?, ?, ?, ?)",
        (key, current, state, at, by, why),
    )


def supersede(connection: sqlite3.Connection, key: str, successor: str, at: str) -> None:
    """Refuse a lesson in favour of another."""
    move(connection, key, "refused", at, LEDGER, f"superseded by {successor[:SHORT_ID]}")
    connection.execute("update lessons set superseded_by = ? where id = ?", (successor, key))


def supersede_older(connection: sqlite3.Connection, key: str, message: str, at: str) -> None:
    """Refuse what else is proposed for this message."""
    older = connection.execute(
        "select id from lessons where message = ? and message != '' and state = 'proposed' and id != ?",
        (message, key),
    ).fetchall()
    for row in older:
        supersede(connection, row["id"], key, at)


def session_row(connection: sqlite3.Connection, session_id: str) -> sqlite3.Row | None:
    """The session's row, None if there is none."""
    row: sqlite3.Row | None = connection.execute(
        "select * from sessions where id = ?", (session_id,)
    ).fetchone()
    return row


def session(connection: sqlite3.Connection, session_id: str) -> Session:
    """The session, or `UnknownSession`."""
    row = session_row(connection, session_id)
    if row is None:
        known = [found["id"] for found in connection.execute("select id from sessions order by number desc")]
        raise UnknownSession(f"no session {session_id!r}; there are: {', '.join(known[:8]) or 'none'}")
    return session_from_row(connection, row)


def require_open(session: Session, wanted: str) -> None:
    """`IllegalTransition` if the session has ended."""
    if session.state != "open":
        raise IllegalTransition(f"session {session.id!r}", session.state, wanted, "nothing else")


def close_session(
    connection: sqlite3.Connection,
    session_id: str,
    state: SessionState,
    weight_commit: str | None,
    at: str,
    why: str,
) -> None:
    """End a session and free its lessons."""
    connection.execute(
        "update sessions set state = ?, weight_commit = ?, ended_at = ?, why = ? where id = ?",
        (state, weight_commit, at, why, session_id),
    )
    connection.execute("update session_lessons set is_open = 0 where session = ?", (session_id,))
