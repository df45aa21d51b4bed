"""One-time links: whoever opens one first is signed in, and it opens nothing again."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from understudy.access.errors import LinkRefused, UnknownEntry
from understudy.access.schema import Store, hashed, moment, new_secret

LinkKind = Literal["owner", "invitation", "device"]
OWNER_LASTS = timedelta(hours=24)
"""How long the link of the first start opens: a working day, and the evening before."""
DEVICE_LASTS = timedelta(minutes=15)
"""How long a link for another device opens: it is made with that device in the other hand."""
_COLUMNS = "number, kind, name, made_by, created, expires, used, revoked"


@dataclass(frozen=True, slots=True)
class Link:
    """A link as it is kept: who made it, for whom. An owner's link has no name until it is used."""

    number: int
    kind: LinkKind
    name: str
    made_by: str
    created: datetime
    expires: datetime


class Links:
    """All links. Used ones stay, so that it is known how each participant came in."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def make(self, kind: LinkKind, name: str, made_by: str, lasts: timedelta) -> str:
        """A new link's secret. A new owner's link takes the earlier ones back."""
        secret, now = new_secret(), self._store.now()
        with self._store.writing() as connection:
            if kind == "owner":
                connection.execute(
                    "update links set revoked = ? where kind = 'owner' and used is null", (now,)
                )
            connection.execute(
                "insert into links (hash, kind, name, made_by, created, expires) values (?, ?, ?, ?, ?, ?)",
                (hashed(secret), kind, name, made_by, now, now + lasts.total_seconds()),
            )
        return secret

    def look(self, secret: str) -> Link:
        """What a link would do, without using it. Raises LinkRefused when it does nothing."""
        with self._store.reading() as connection:
            return self._open_one(connection, secret)

    def take(self, connection: sqlite3.Connection, secret: str, name: str) -> Link:
        """Use a link, inside a transaction, to sign `name` in. Raises LinkRefused."""
        link = self._open_one(connection, secret)
        connection.execute(
            "update links set used = ?, name = ? where number = ?", (self._store.now(), name, link.number)
        )
        return link

    def open_ones(self, name: str | None = None) -> tuple[Link, ...]:
        """The links that still open (for this participant), newest first."""
        with self._store.reading() as connection:
            found = connection.execute(
                f"select {_COLUMNS} from links where used is null and revoked is null and expires > ?"
                " and (? is null or name = ?) order by number desc",
                (self._store.now(), name, name),
            )
            return tuple(_link(row) for row in found)

    def revoke(self, number: int) -> None:
        """Take a link back. Raises UnknownEntry for one that is not open."""
        with self._store.writing() as connection:
            taken = connection.execute(
                "update links set revoked = ? where number = ? and used is null and revoked is null",
                (self._store.now(), number),
            )
            if not taken.rowcount:
                raise UnknownEntry(f"there is no open link {number}: it was used or taken back")

    def owner(self) -> str | None:
        """Who came in with the first start's link, None if nobody did."""
        with self._store.reading() as connection:
            row = connection.execute(
                "select name from links where kind = 'owner' and used is not null order by used limit 1"
            ).fetchone()
        return None if row is None else str(row["name"])

    def any_used(self) -> bool:
        """Whether anybody ever came in."""
        with self._store.reading() as connection:
            row = connection.execute("select 1 from links where used is not null limit 1").fetchone()
        return row is not None

    def _open_one(self, connection: sqlite3.Connection, secret: str) -> Link:
        row = connection.execute(f"select {_COLUMNS} from links where hash = ?", (hashed(secret),)).fetchone()
        ask = "ask whoever gave it to you for a new one"
        if row is None:
            raise LinkRefused(f"this link is not known here: see that all of it was copied, or {ask}")
        if row["revoked"] is not None:
            raise LinkRefused(f"this link was taken back: {ask}")
        if row["used"] is not None:
            raise LinkRefused(f"this link was used already, and it opens once: {ask}")
        if row["expires"] <= self._store.now():
            raise LinkRefused(f"this link has run out: {ask}")
        return _link(row)


def _link(row: sqlite3.Row) -> Link:
    return Link(
        row["number"],
        row["kind"],
        row["name"],
        row["made_by"],
        moment(row["created"]),
        moment(row["expires"]),
    )
