"""The file of the accounts: its tables, and how it is opened.

No secret stands in it, only SHA-256 hashes: secrets have 256 random bits, so there is nothing to guess and a
slow hash would gain nothing. They are found by an index over the hashes, which leaks no more than a hash's
beginning.
"""

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from understudy.access.errors import AccountsVersion

VERSION = 1
BUSY_SECONDS = 30.0
"""How long a process waits for another's transaction; one takes milliseconds."""

_TABLES = """
create table sessions (
    number integer primary key autoincrement,
    hash blob not null unique,
    name text not null,
    device text not null,
    via text not null,
    created real not null,
    last_seen real not null
);
create table links (
    number integer primary key autoincrement,
    hash blob not null unique,
    kind text not null check (kind in ('owner', 'invitation', 'device')),
    name text not null,
    made_by text not null,
    created real not null,
    expires real not null,
    used real,
    revoked real
);
create table tokens (
    number integer primary key autoincrement,
    hash blob not null unique,
    name text not null,
    label text not null,
    scopes text not null,
    created real not null,
    expires real,
    last_used real
);
create table logins (
    account integer primary key,
    login text not null,
    name text not null unique
);
"""


class Store:
    """The file, readable by this user only. Safe among threads and processes: each call has its own
    connection, each change is one transaction.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        """Open the file, or make it. Raises AccountsVersion for one of a newer program."""
        self._path, self._clock = path, clock
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with self.writing() as connection:
            version = connection.execute("pragma user_version").fetchone()[0]
            if version > VERSION:
                raise AccountsVersion(
                    f"{path} has schema {version}, this program knows up to {VERSION}: use the newer program"
                )
            if version == 0:
                for statement in _TABLES.split(";\n")[:-1]:
                    connection.execute(statement)
                connection.execute(f"pragma user_version = {VERSION}")

    def now(self) -> float:
        """Seconds since 1970, by the clock that was passed in."""
        return self._clock().timestamp()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to look things up with."""
        with closing(self._open()) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, one at a time: on disk when the block ends, without effect when it raises."""
        with closing(self._open()) as connection:
            connection.execute("begin immediate")
            yield connection
            connection.execute("commit")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("pragma synchronous = full")
        return connection


def new_secret() -> str:
    """256 random bits, as a URL can carry them."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def moment(seconds: float) -> datetime:
    """A stored time."""
    return datetime.fromtimestamp(seconds, UTC)
