"""Sessions: browsers that a participant signed in with."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

from understudy.access.errors import UnknownEntry
from understudy.access.schema import Store, hashed, moment, new_secret

TOUCH_SECONDS = 60.0
"""How old `last_seen` may get before it is written anew: not every request is a write."""
_COLUMNS = "number, name, device, via, created, last_seen"


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. `device` is what it said it was, `via` how it was signed in."""

    number: int
    name: str
    device: str
    via: str
    created: datetime
    last_seen: datetime


class Sessions:
    """All sessions. One that nobody used for `lasts` is over."""

    def __init__(self, store: Store, lasts: timedelta) -> None:
        self._store, self._lasts = store, lasts.total_seconds()

    def open(self, name: str, device: str, via: str) -> str:
        """Sign a browser in; the secret is for its cookie."""
        with self._store.writing() as connection:
            return self.add(connection, name, device, via)

    def add(self, connection: sqlite3.Connection, name: str, device: str, via: str) -> str:
        """The same inside a transaction. Forgets sessions that are over."""
        secret, now = new_secret(), self._store.now()
        connection.execute("delete from sessions where last_seen <= ?", (now - self._lasts,))
        connection.execute(
            "insert into sessions (hash, name, device, via, created, last_seen) values (?, ?, ?, ?, ?, ?)",
            (hashed(secret), name, device, via, now, now),
        )
        return secret

    def find(self, secret: str) -> Session | None:
        """The session of this secret, None if there is none or it is over. It then lasts anew."""
        now = self._store.now()
        with self._store.reading() as connection:
            row = connection.execute(
                f"select {_COLUMNS} from sessions where hash = ? and last_seen > ?",
                (hashed(secret), now - self._lasts),
            ).fetchone()
        if row is None:
            return None
        if now - row["last_seen"] >= TOUCH_SECONDS:
            with self._store.writing() as connection:
                connection.execute(
                    "update sessions set last_seen = max(last_seen, ?) where number = ?", (now, row["number"])
                )
        return _session(row)

    def of(self, name: str) -> tuple[Session, ...]:
        """A participant's sessions, the last used one first."""
        with self._store.reading() as connection:
            found = connection.execute(
                f"select {_COLUMNS} from sessions where name = ? and last_seen > ?"
                " order by last_seen desc, number desc",
                (name, self._store.now() - self._lasts),
            )
            return tuple(_session(row) for row in found)

    def end(self, number: int, name: str) -> None:
        """Sign a browser of this participant's out. Raises UnknownEntry."""
        with self._store.writing() as connection:
            ended = connection.execute("delete from sessions where number = ? and name = ?", (number, name))
            if not ended.rowcount:
                raise UnknownEntry(f"{name} has no session {number}: it may be over already")


def _session(row: sqlite3.Row) -> Session:
    return Session(
        row["number"],
        row["name"],
        row["device"],
        row["via"],
        moment(row["created"]),
        moment(row["last_seen"]),
    )
