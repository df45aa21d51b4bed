"""Idempotency keys: which commit was made for which key, found in trailers, remembered beside the repository.

`.understudy/keys.sqlite` only saves reading the whole history again; it can be deleted at any time.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pygit2
from pygit2.enums import SortMode

from understudy.conversation.trailers import KEY

_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, commit_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS read_up_to (one INTEGER PRIMARY KEY CHECK (one = 1), commit_id TEXT NOT NULL);
"""


class Keys:
    """The keys used in a history. To be asked by one writer at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def commit(self, git: pygit2.Repository, tip: str | None, key: str) -> str | None:
        """The first commit reachable from `tip` that was made for this key, None if there is none."""
        if tip is None:
            return None
        try:
            return self._remembered(git, tip, key)
        except sqlite3.Error:  # damaged, unwritable or on a full disk: the history itself still knows
            for file in self._path.parent.glob(self._path.name + "*"):
                with suppress(OSError):
                    file.unlink()
            return dict(_keys_in(git, tip, None)).get(key)

    def _remembered(self, git: pygit2.Repository, tip: str, key: str) -> str | None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
            read = database.execute("SELECT commit_id FROM read_up_to").fetchone()
            if read is None or read[0] != tip:
                self._follow(database, git, read[0] if read else None, tip)
            found = database.execute("SELECT commit_id FROM keys WHERE key = ?", (key,)).fetchone()
            return found[0] if found else None

    def _follow(
        self, database: sqlite3.Connection, git: pygit2.Repository, since: str | None, tip: str
    ) -> None:
        if since is not None and not _is_ancestor(git, since, tip):
            since = None
        database.execute("BEGIN IMMEDIATE")
        if since is None:
            database.execute("DELETE FROM keys")
        database.executemany(
            "INSERT INTO keys VALUES (?, ?) ON CONFLICT DO NOTHING", _keys_in(git, tip, since)
        )
        database.execute("INSERT OR REPLACE INTO read_up_to VALUES (1, ?)", (tip,))
        database.execute("COMMIT")


def _is_ancestor(git: pygit2.Repository, commit: str, tip: str) -> bool:
    return commit in git and git.descendant_of(pygit2.Oid(hex=tip), pygit2.Oid(hex=commit))


def _keys_in(git: pygit2.Repository, tip: str, since: str | None) -> Iterator[tuple[str, str]]:
    """Keys and their commits, oldest first."""
    walker = git.walk(pygit2.Oid(hex=tip), SortMode.TOPOLOGICAL | SortMode.TIME | SortMode.REVERSE)
    if since is not None:
        walker.hide(pygit2.Oid(hex=since))
    seen: set[str] = set()
    for commit in walker:
        if KEY in commit.message and (key := commit.message_trailers.get(KEY)) and key not in seen:
            seen.add(key)
            yield key, str(commit.id)
