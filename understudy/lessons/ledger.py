"""The ledger: every lesson once, what became of it, and who decided."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from understudy.lessons import rows
from understudy.lessons.errors import SessionConflict
from understudy.lessons.lesson import Lesson, digest
from understudy.lessons.records import (
    Event,
    LedgerEntry,
    LessonResult,
    Proposal,
    Session,
    State,
    Training,
    entry_from_row,
    lesson_json,
    session_from_row,
    training_from_row,
)
from understudy.lessons.schema import prepare, reading, writing


def utc_now() -> datetime:
    """The default clock."""
    return datetime.now(UTC)


class Ledger:
    """Lessons and training sessions in one SQLite file, safe across threads, processes and their death.

    A method that returns has its effect on disk; one that raises has none. Times are ISO 8601 in UTC. Lessons
    are named by their digest or any unambiguous beginning of it.
    """

    def __init__(self, path: Path | str, clock: Callable[[], datetime] = utc_now) -> None:
        """Open the ledger, or make it; `LedgerVersion` if a newer program made it."""
        self.path = Path(path)
        self._clock = clock
        prepare(self.path)

    # Lessons

    def propose(self, lesson: Lesson) -> Proposal:
        """Enter a lesson, or find it: the same content is one entry, whatever its state.

        Older lessons of the same message that are still only proposed are superseded: refused, with that
        reason.
        """
        key, at = digest(lesson), self._now()
        with writing(self.path) as connection:
            found = connection.execute(f"{rows.ENTRY} where lessons.id = ?", (key,)).fetchone()
            if found is None:
                connection.execute(
                    "insert into lessons (id, content, message, state, proposed_at, changed_at)"
                    " values (?, ?, ?, 'proposed', ?, ?)",
                    (key, lesson_json(lesson), rows.message_of(lesson), at, at),
                )
                rows.record(connection, key, None, "proposed", at, lesson.source.author, "")
            elif found["superseded_by"]:
                connection.execute("update lessons set superseded_by = null where id = ?", (key,))
                rows.move(connection, key, "proposed", at, lesson.source.author, "this text was put back")
            if found is None or found["superseded_by"]:
                rows.supersede_older(connection, key, rows.message_of(lesson), at)
            return Proposal(rows.entry(connection, key), found is None)

    def supersede(self, lesson_id: str, by_id: str) -> LedgerEntry:
        """Refuse a proposed lesson because another of the same message takes its place."""
        with writing(self.path) as connection:
            key, successor = rows.resolve(connection, lesson_id), rows.resolve(connection, by_id)
            rows.supersede(connection, key, successor, self._now())
            return rows.entry(connection, key)

    def approve(self, lesson_id: str, by: str, why: str = "") -> LedgerEntry:
        """Let a lesson be trained."""
        return self._decide(lesson_id, "approved", by, why)

    def approve_together(self, lesson_ids: Sequence[str], by: str, why: str = "") -> tuple[LedgerEntry, ...]:
        """Let lessons be trained, all or none: a server that watches sees them at once, as one session."""
        with writing(self.path) as connection:
            keys = [rows.resolve(connection, lesson_id) for lesson_id in lesson_ids]
            for key in keys:
                rows.move(connection, key, "approved", self._now(), by, why)
                connection.execute("update lessons set superseded_by = null where id = ?", (key,))
            return tuple(rows.entry(connection, key) for key in keys)

    def refuse(self, lesson_id: str, by: str, reason: str) -> LedgerEntry:
        """Decide that a lesson is not to be trained."""
        return self._decide(lesson_id, "refused", by, reason)

    def keep(self, lesson_id: str, by: str, why: str = "") -> LedgerEntry:
        """Note that a trained lesson has held."""
        return self._decide(lesson_id, "kept", by, why)

    def revert(self, lesson_id: str, by: str, why: str) -> LedgerEntry:
        """Note that a trained lesson's effect was taken out of the weights again."""
        return self._decide(lesson_id, "reverted", by, why)

    def settle(self, held: Collection[str], by: str, why: str) -> tuple[LedgerEntry, ...]:
        """Make the ledger agree with the weights, after these went back or forth in their history.

        `held` are the ids of the lessons that the weights have learned. A trained or kept lesson that is
        not among them becomes reverted; one that was reverted and is among them is trained again. Lessons
        of an open session are left alone. Returns the entries that changed.
        """
        changed = []
        with writing(self.path) as connection:
            for row in rows.settled(connection, held):
                rows.overrule(connection, row["id"], row["state"], row["settled"], self._now(), by, why)
                changed.append(rows.entry(connection, row["id"]))
        return tuple(changed)

    def get(self, lesson_id: str) -> LedgerEntry:
        """The lesson's entry, `UnknownLesson` or `AmbiguousLesson`."""
        with reading(self.path) as connection:
            return rows.entry(connection, rows.resolve(connection, lesson_id))

    def list(self, state: State | None = None) -> tuple[LedgerEntry, ...]:
        """The entries (in this state), oldest first."""
        with reading(self.path) as connection:
            found = connection.execute(
                f"{rows.ENTRY} where ?1 is null or lessons.state = ?1 order by lessons.number", (state,)
            )
            return tuple(entry_from_row(row) for row in found)

    def learned(self) -> tuple[LedgerEntry, ...]:
        """The lessons that the weights hold, trained or kept, oldest first."""
        with reading(self.path) as connection:
            found = connection.execute(
                f"{rows.ENTRY} where lessons.state in ('trained', 'kept') order by lessons.number"
            )
            return tuple(entry_from_row(row) for row in found)

    def history(self, lesson_id: str) -> tuple[Event, ...]:
        """Every step of a lesson's life, oldest first."""
        with reading(self.path) as connection:
            found = connection.execute(
                "select lesson, state_from, state_to, at, by, why from events"
                " where lesson = ? order by number",
                (rows.resolve(connection, lesson_id),),
            )
            return tuple(Event(*row) for row in found)

    def trainings(self, lesson_id: str) -> tuple[Training, ...]:
        """Every time the lesson was trained, oldest first."""
        with reading(self.path) as connection:
            found = connection.execute(
                "select sessions.*, session_lessons.result from session_lessons"
                " join sessions on sessions.id = session_lessons.session"
                " where session_lessons.lesson = ? and session_lessons.result is not null"
                " order by sessions.number",
                (rows.resolve(connection, lesson_id),),
            )
            return tuple(training_from_row(row) for row in found)

    def _decide(self, lesson_id: str, state: State, by: str, why: str) -> LedgerEntry:
        with writing(self.path) as connection:
            key = rows.resolve(connection, lesson_id)
            rows.move(connection, key, state, self._now(), by, why)
            connection.execute("update lessons set superseded_by = null where id = ?", (key,))
            return rows.entry(connection, key)

    # Sessions

    def begin_session(
        self, session_id: str, lesson_ids: Sequence[str], settings: Mapping[str, object]
    ) -> Session:
        """Open a session over approved lessons that are in no other open one, or find this one."""
        stored = json.dumps(dict(settings), sort_keys=True)
        with writing(self.path) as connection:
            keys = [rows.resolve(connection, lesson_id) for lesson_id in lesson_ids]
            if not keys or len(set(keys)) < len(keys):
                raise SessionConflict(f"a session needs lessons, each once; got {rows.list_short(keys)}")
            row = rows.session_row(connection, session_id)
            if row is not None:
                there = session_from_row(connection, row)
                if there.state == "open" and there.lesson_ids == tuple(keys) and row["settings"] == stored:
                    return there
                raise SessionConflict(
                    f"session {session_id!r} is in the ledger, {there.state}, "
                    f"over {rows.list_short(there.lesson_ids)}: "
                    "begin a new session under a new id"
                )
            for key in keys:
                rows.require_free(connection, key)
                rows.require(connection, key, "trained")
            connection.execute(
                "insert into sessions (id, state, settings, began_at) values (?, 'open', ?, ?)",
                (session_id, stored, self._now()),
            )
            connection.executemany(
                "insert into session_lessons (session, position, lesson, is_open) values (?, ?, ?, 1)",
                [(session_id, position, key) for position, key in enumerate(keys)],
            )
            return rows.session(connection, session_id)

    def finish_session(
        self, session_id: str, weight_commit: str | None, results: Mapping[str, LessonResult]
    ) -> Session:
        """Close a session: its lessons are trained, with a result for each. The same call again changes
        nothing.

        `weight_commit` is None where every lesson was gated, so that no weight moved.
        """
        with writing(self.path) as connection:
            session = rows.session(connection, session_id)
            if session.state == "finished" and session.weight_commit == weight_commit:
                return session
            rows.require_open(session, "finished")
            given = {rows.resolve(connection, lesson_id): result for lesson_id, result in results.items()}
            if set(given) != set(session.lesson_ids):
                raise SessionConflict(
                    f"session {session_id!r} has the lessons {rows.list_short(session.lesson_ids)}; "
                    f"results came for {rows.list_short(given)}: give one for each"
                )
            at = self._now()
            rows.close_session(connection, session_id, "finished", weight_commit, at, "")
            for key in session.lesson_ids:
                rows.move(
                    connection,
                    key,
                    "trained",
                    at,
                    f"session {session_id}",
                    weight_commit or "no weight moved",
                )
                connection.execute("update lessons set session = ? where id = ?", (session_id, key))
                connection.execute(
                    "update session_lessons set result = ? where session = ? and lesson = ?",
                    (json.dumps(asdict(given[key])), session_id, key),
                )
            return rows.session(connection, session_id)

    def abandon_session(self, session_id: str, why: str) -> Session:
        """Close a session that did not come to an end: its lessons are free for another."""
        with writing(self.path) as connection:
            rows.require_open(rows.session(connection, session_id), "abandoned")
            rows.close_session(connection, session_id, "abandoned", None, self._now(), why)
            return rows.session(connection, session_id)

    def session(self, session_id: str) -> Session:
        """The session of this id, or `UnknownSession`."""
        with reading(self.path) as connection:
            return rows.session(connection, session_id)

    def sessions(self) -> tuple[Session, ...]:
        """Every session, oldest first."""
        with reading(self.path) as connection:
            found = connection.execute("select * from sessions order by number").fetchall()
            return tuple(session_from_row(connection, row) for row in found)

    def open_sessions(self) -> tuple[Session, ...]:
        """The sessions that have neither ended nor been abandoned."""
        return tuple(session for session in self.sessions() if session.state == "open")

    # How far the history was mined

    def watermark(self) -> str | None:
        """The last commit whose corrections were proposed, None before the first."""
        with reading(self.path) as connection:
            row = connection.execute("select value from marks where name = 'mined'").fetchone()
            return str(row["value"]) if row else None

    def set_watermark(self, commit: str) -> None:
        """Note that all corrections up to this commit were proposed."""
        with writing(self.path) as connection:
            connection.execute("insert or replace into marks (name, value) values ('mined', ?)", (commit,))

    def _now(self) -> str:
        return self._clock().astimezone(UTC).isoformat()
