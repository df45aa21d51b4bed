"""The ledger's tables, and how a database file is opened so that what was acknowledged stays."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from understudy.lessons.errors import LedgerVersion

VERSION = 3
BUSY_SECONDS = 30.0
"""How long a process waits for another's transaction; one takes milliseconds."""

_RETRY_SECONDS = 0.01
_REQUESTS = """
create table requests (
    number integer primary key,
    key text not null unique,
    content text not null,
    state text not null
        check (state in ('queued', 'running', 'cancelling', 'finished', 'failed', 'cancelled')),
    about text not null,
    work blob,
    answer text,
    accepted_at text not null,
    began_at text,
    ended_at text
);
create index requests_by_state on requests (state);
"""
_DECISIONS = """
create table decisions (
    number integer primary key,
    session text not null,
    weight_commit text,
    decision text not null check (decision in ('keep', 'revert', 'ask')),
    at text not null,
    by text not null,
    why text not null,
    evidence text not null
);
create index decisions_by_session on decisions (session);
create trigger decisions_stay_as_written before update on decisions
    begin select raise(abort, 'decisions are append-only'); end;
create trigger decisions_stay before delete on decisions
    begin select raise(abort, 'decisions are append-only'); end;
"""
_TABLES = (
    _REQUESTS
    + _DECISIONS
    + """
create table lessons (
    number integer primary key,
    id text not null unique,
    content text not null,
    message text not null,
    state text not null
        check (state in ('proposed', 'approved', 'trained', 'kept', 'reverted', 'refused')),
    proposed_at text not null,
    changed_at text not null,
    superseded_by text references lessons (id),
    session text references sessions (id)
);
create index lessons_by_state on lessons (state);
create index lessons_by_message on lessons (message);
create table events (
    number integer primary key,
    lesson text not null references lessons (id),
    state_from text,
    state_to text not null,
    at text not null,
    by text not null,
    why text not null
);
create index events_by_lesson on events (lesson);
create trigger events_stay_as_written before update on events
    begin select raise(abort, 'events are append-only'); end;
create trigger events_stay before delete on events
    begin select raise(abort, 'events are append-only'); end;
create table sessions (
    number integer primary key,
    id text not null unique,
    state text not null check (state in ('open', 'finished', 'abandoned')),
    settings text not null,
    weight_commit text,
    began_at text not null,
    ended_at text,
    why text not null default ''
);
create table session_lessons (
    session text not null references sessions (id),
    position integer not null,
    lesson text not null references lessons (id),
    is_open integer not null,
    result text,
    primary key (session, position)
);
create unique index one_open_session on session_lessons (lesson) where is_open = 1;
create table marks (name text primary key, value text not null);
"""
)
_MIGRATIONS = {
    1: _REQUESTS
    + """
alter table session_lessons add column result text;
update session_lessons set result = (
    select lessons.result from lessons
    where lessons.id = session_lessons.lesson and lessons.session = session_lessons.session
);
alter table lessons drop column result;
""",
    2: _DECISIONS,
}
"""What leads from each older schema to the next. 1 kept a lesson's last result only and no requests, 2 had no
decisions.
"""


def prepare(path: Path) -> None:
    """Make the database if there is none, and bring an older one to this schema.

    Raises `LedgerVersion` if a newer program made it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(_open(path)) as connection:
        _set_wal(connection)
        connection.execute("begin immediate")
        version = connection.execute("pragma user_version").fetchone()[0]
        scripts = [_TABLES] if version == 0 else [_MIGRATIONS[old] for old in range(version, VERSION)]
        for statement in (one for script in scripts for one in _statements(script)):
            connection.execute(statement)
        if scripts:
            connection.execute(f"pragma user_version = {VERSION}")
        connection.execute("commit")
    if version > VERSION:
        raise LedgerVersion(
            f"{path} has schema {version}, this program knows up to {VERSION}: use the newer program"
        )


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _set_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite's busy timeout does not cover this switch."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("pragma foreign_keys = on")
    connection.execute("pragma synchronous = full")
    return connection


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one state of the ledger throughout."""
    with closing(_open(path)) as connection:
        connection.execute("begin")
        yield connection


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction: all of it is on disk when the block ends, none of it if the block raises or dies."""
    with closing(_open(path)) as connection:
        connection.execute("begin immediate")
        yield connection
        connection.execute("commit")
