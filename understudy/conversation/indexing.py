"""How the index follows Git: its tables, and what a new commit changes in them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pygit2

from understudy.conversation.anchors import Moves, moves_by_commit
from understudy.conversation.document import Conversation, Message
from understudy.conversation.errors import RepositoryBusy, RepositoryFailure
from understudy.conversation.mentions import mentioned
from understudy.conversation.repository import ConversationRepository
from understudy.conversation.searching import plain

VERSION = "1"
"""Of the tables; an index of another version is built anew."""

WAIT_SECONDS = 60.0
"""How long to wait for another process that is building the same index."""

_TABLES = """
CREATE TABLE state(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE file(name TEXT PRIMARY KEY, blob TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE message(
  number INTEGER PRIMARY KEY, file TEXT NOT NULL, id TEXT NOT NULL, place INTEGER NOT NULL,
  thread INTEGER NOT NULL, author TEXT NOT NULL, created TEXT NOT NULL, moment REAL, depth INTEGER NOT NULL,
  parent TEXT, deleted INTEGER NOT NULL, UNIQUE(file, id));
CREATE INDEX message_id ON message(id);
CREATE INDEX message_newest ON message(moment DESC, file, place DESC);
CREATE TABLE mention(name TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY(name, number)) WITHOUT ROWID;
CREATE INDEX mention_number ON mention(number);
CREATE VIRTUAL TABLE words USING fts5(body, title, tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE alias(
  old_file TEXT NOT NULL, old_id TEXT NOT NULL, file TEXT NOT NULL, id TEXT NOT NULL, born INTEGER NOT NULL,
  PRIMARY KEY(old_file, old_id)) WITHOUT ROWID;
CREATE INDEX alias_old ON alias(old_id);
CREATE INDEX alias_place ON alias(file, id);
"""
_Row = tuple[int, int, str, str, float | None, int, str | None, int, str, str]


class IndexFile:
    """The SQLite file behind `Index`."""

    def __init__(self, repository: ConversationRepository, path: Path) -> None:
        self.repository = repository
        self.path = path

    @contextmanager
    def following(self) -> Iterator[sqlite3.Connection]:
        """A connection to tables that tell of the newest commit. A damaged file is built anew."""
        try:
            db = self._opened()
        except sqlite3.DatabaseError as error:
            if _locked(error):
                raise RepositoryBusy(
                    f"another process held {self.path} for {WAIT_SECONDS:g} s: try again"
                ) from error
            self.remove()
            db = self._opened()
        with closing(db):
            try:
                yield db
            except sqlite3.DatabaseError as error:
                self.remove()
                raise RepositoryFailure(
                    f"{self.path} is damaged ({error}) and was removed: ask again, and it is built anew"
                ) from error

    def remove(self) -> None:
        """Delete the file; the next question builds it anew."""
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            if _head(db) != self.repository.head():
                self._follow(db)
        except BaseException:
            db.close()
            raise
        return db

    def _follow(self, db: sqlite3.Connection) -> None:
        """Bring the tables to the newest commit, in one transaction; whoever comes second finds it done."""
        db.execute("BEGIN IMMEDIATE")
        try:
            head, known = self.repository.head(), _head(db)
            if known is None or not self._descends(head, known):
                _create(db)
                known = None
            if known != head:
                for moves in moves_by_commit(self.repository.changes(known, until=head)):
                    _follow_moves(db, moves)
                self._read_files(db, head)
                db.execute("INSERT OR REPLACE INTO state VALUES('head', ?)", (head,))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _descends(self, head: str, known: str) -> bool:
        git = self.repository._store.git
        if head == known:
            return True
        return known in git and bool(git.descendant_of(pygit2.Oid(hex=head), pygit2.Oid(hex=known)))

    def _read_files(self, db: sqlite3.Connection, head: str) -> None:
        repository = self.repository
        blobs = {name: repository.revision(name, head) for name in repository.files(head)}
        known = dict(db.execute("SELECT name, blob FROM file"))
        for name in known.keys() - blobs.keys():
            _store(db, name, None)
            db.execute("DELETE FROM file WHERE name = ?", (name,))
        for name, blob in blobs.items():
            if known.get(name) != blob:
                _store(db, name, repository.read(name, blob))
                db.execute("INSERT OR REPLACE INTO file VALUES(?, ?)", (name, blob))


def _locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _head(db: sqlite3.Connection) -> str | None:
    """The commit that the tables tell of, None where there are none of this version."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone() is None:
        return None
    state = dict(db.execute("SELECT key, value FROM state"))
    return state.get("head") if state.get("version") == VERSION else None


def _create(db: sqlite3.Connection) -> None:
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if name == "words" or not name.startswith(("words", "sqlite_")):
            db.execute(f'DROP TABLE IF EXISTS "{name}"')
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO state VALUES('version', ?)", (VERSION,))


def _follow_moves(db: sqlite3.Connection, moves: Moves) -> None:
    """All that pointed to where a message stood points to where it stands now; its old place joins them."""
    held = {
        old: db.execute(
            "SELECT old_file, old_id, born FROM alias WHERE file = ? AND id = ?", (old.file, old.id)
        ).fetchall()
        for old in moves
    }
    born_elsewhere = {  # a merge may lead two lines of history to one place
        new
        for new in moves.values()
        if new not in moves
        and db.execute(
            "SELECT 1 FROM alias WHERE file = ? AND id = ? AND born", (new.file, new.id)
        ).fetchone()
    }
    for old, new in moves.items():
        for old_file, old_id, born in held[old]:
            row = (old_file, old_id, new.file, new.id, born)
            db.execute("INSERT OR REPLACE INTO alias VALUES(?, ?, ?, ?, ?)", row)
        born_here = not any(born for _, _, born in held[old]) and new not in born_elsewhere
        row = (old.file, old.id, new.file, new.id, born_here)
        db.execute("INSERT OR IGNORE INTO alias VALUES(?, ?, ?, ?, ?)", row)
    db.execute("DELETE FROM alias WHERE old_file = file AND old_id = id AND NOT born")


def _store(db: sqlite3.Connection, file: str, conversation: Conversation | None) -> None:
    """Give the tables what the file says now, touching only the rows that differ."""
    known: dict[str, tuple[int, _Row]] = {
        identity: (number, row)
        for number, identity, *row in db.execute(
            "SELECT m.number, m.id, m.place, m.thread, m.author, m.created, m.moment, m.depth, m.parent, "
            "m.deleted, words.body, words.title FROM message m JOIN words ON words.rowid = m.number "
            "WHERE m.file = ?",
            (file,),
        )
    }
    threads = {thread: number for number, thread in enumerate(conversation.threads if conversation else ())}
    rows = {
        message.id: _row(message, place, threads[message.thread])
        for place, message in enumerate(conversation.messages if conversation else ())
    }
    for identity in known.keys() - rows.keys():
        _forget(db, known[identity][0])
    for identity, row in rows.items():
        if identity not in known:
            _remember(db, None, file, identity, row)
        elif list(known[identity][1]) != list(row):
            number, before = known[identity]
            if before[-2:] == row[-2:]:
                db.execute(
                    "UPDATE message SET place = ?, thread = ?, author = ?, created = ?, moment = ?, "
                    "depth = ?, parent = ?, deleted = ? WHERE number = ?",
                    (*row[:-2], number),
                )
            else:
                _forget(db, number)
                _remember(db, number, file, identity, row)


def _row(message: Message, place: int, thread: int) -> _Row:
    moment = message.created_at
    return (
        place,
        thread,
        plain(message.author),
        message.created,
        moment.timestamp() if moment else None,
        message.depth,
        message.parent.id if message.parent else None,
        int(message.deleted),
        plain(message.body),
        plain(message.thread.title),
    )


def _remember(db: sqlite3.Connection, number: int | None, file: str, identity: str, row: _Row) -> None:
    *columns, body, title = row
    cursor = db.execute(
        "INSERT INTO message(number, file, id, place, thread, author, created, moment, depth, parent, "
        "deleted) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, file, identity, *columns),
    )
    number = cursor.lastrowid
    db.execute("INSERT INTO words(rowid, body, title) VALUES(?, ?, ?)", (number, body, title))
    names = ((name, number) for name in mentioned(body))
    db.executemany("INSERT INTO mention(name, number) VALUES(?, ?)", names)


def _forget(db: sqlite3.Connection, number: int) -> None:
    db.execute("DELETE FROM message WHERE number = ?", (number,))
    db.execute("DELETE FROM words WHERE rowid = ?", (number,))
    db.execute("DELETE FROM mention WHERE number = ?", (number,))
