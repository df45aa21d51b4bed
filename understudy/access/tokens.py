"""API tokens: what a participant's scripts show, narrowed to what each is for."""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from understudy.access.errors import InvalidEntry, UnknownEntry
from understudy.access.schema import Store, hashed, moment, new_secret

Scope = Literal["read", "talk", "teach", "train", "weights", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
TOKEN_PREFIX = "us_"
"""How every API token begins, so that people and programs that look for leaked secrets know one."""
TOUCH_SECONDS = 60.0
MAX_TOKENS = 50
"""Tokens of one participant: more is a script that makes one at each run."""
_COLUMNS = "number, name, label, scopes, created, expires, last_used"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept. `label` is what its maker calls it; without `expires` it lasts until revoked."""

    number: int
    name: str
    label: str
    scopes: frozenset[Scope]
    created: datetime
    expires: datetime | None
    last_used: datetime | None


class Tokens:
    """All tokens."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def make(self, name: str, label: str, scopes: Collection[Scope], lasts: timedelta | None) -> str:
        """A new token, to be shown once. Raises InvalidEntry."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if not scopes or unknown:
            came = ", ".join(unknown) or "none"
            raise InvalidEntry(f"a token is for one or more of {', '.join(SCOPES)}; got {came}")
        if not label.strip():
            raise InvalidEntry("a token has a label that says what it is for; got none")
        secret, now = TOKEN_PREFIX + new_secret(), self._store.now()
        expires = None if lasts is None else now + lasts.total_seconds()
        with self._store.writing() as connection:
            connection.execute("delete from tokens where expires <= ?", (now,))
            [count] = connection.execute("select count(*) from tokens where name = ?", (name,)).fetchone()
            if count >= MAX_TOKENS:
                raise InvalidEntry(f"{name} has {count} tokens, and may have {MAX_TOKENS}: revoke some first")
            connection.execute(
                "insert into tokens (hash, name, label, scopes, created, expires) values (?, ?, ?, ?, ?, ?)",
                (hashed(secret), name, label.strip(), " ".join(sorted(set(scopes))), now, expires),
            )
        return secret

    def find(self, secret: str) -> Token | None:
        """The token, None if there is none or it has run out. Notes that it was used."""
        now = self._store.now()
        with self._store.reading() as connection:
            row = connection.execute(
                f"select {_COLUMNS} from tokens where hash = ? and (expires is null or expires > ?)",
                (hashed(secret), now),
            ).fetchone()
        if row is None:
            return None
        if row["last_used"] is None or now - row["last_used"] >= TOUCH_SECONDS:
            with self._store.writing() as connection:
                connection.execute("update tokens set last_used = ? where number = ?", (now, row["number"]))
        return _token(row)

    def of(self, name: str) -> tuple[Token, ...]:
        """A participant's tokens, newest first."""
        with self._store.reading() as connection:
            found = connection.execute(
                f"select {_COLUMNS} from tokens where name = ? and (expires is null or expires > ?)"
                " order by number desc",
                (name, self._store.now()),
            )
            return tuple(_token(row) for row in found)

    def revoke(self, number: int, name: str) -> None:
        """End a token of this participant's. Raises UnknownEntry."""
        with self._store.writing() as connection:
            gone = connection.execute("delete from tokens where number = ? and name = ?", (number, name))
            if not gone.rowcount:
                raise UnknownEntry(f"{name} has no token {number}: it may be revoked already")


def _token(row: sqlite3.Row) -> Token:
    expires, used = row["expires"], row["last_used"]
    scopes: frozenset[Scope] = frozenset(scope for scope in SCOPES if scope in row["scopes"].split())
    return Token(
        row["number"],
        row["name"],
        row["label"],
        scopes,
        moment(row["created"]),
        None if expires is None else moment(expires),
        None if used is None else moment(used),
    )
