"""A workspace's index: search, mentions, what is new, and where moved messages stand now.

It holds nothing that Git does not hold: delete `.understudy/index.sqlite` at any time, the next question
builds it anew. Each question first follows the newest commit; of the files, only those that changed are read.
"""

import json
import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from understudy.conversation.anchors import Place, read_anchor, written_anchor
from understudy.conversation.errors import AmbiguousAnchor, UnknownMessage
from understudy.conversation.files import STATE_FOLDER
from understudy.conversation.indexing import IndexFile
from understudy.conversation.reading import ReadBefore, ReadMarks
from understudy.conversation.repository import ConversationRepository
from understudy.conversation.searching import (
    MATCH_END,
    MATCH_START,
    SNIPPET_WORDS,
    excerpt,
    plain,
    read_query,
)

_ENTRY = "m.file, m.id, words.title, m.author, m.created, words.body, m.depth, m.parent"
_NEWEST = "m.moment DESC, m.file, m.place DESC"  # as the index on it is; no moment stands last
_FROM = "message m CROSS JOIN words ON words.rowid = m.number"  # SQLite takes the left one first
_FROM_WORDS = "words CROSS JOIN message m ON words.rowid = m.number"
_SNIPPET = f"snippet(words, 0, '{MATCH_START}', '{MATCH_END}', '…', {SNIPPET_WORDS})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as the index tells of it. In a snippet, what matched stands between two marks."""

    file: str
    id: str
    thread: str
    author: str
    created: str
    body: str
    depth: int
    parent: str | None
    snippet: str = ""


@dataclass(frozen=True, slots=True)
class Activity:
    """A thread, and when someone last spoke in it. `root` is its first message's id."""

    file: str
    thread: str
    root: str
    messages: int
    newest: str
    authors: tuple[str, ...]


class Index:
    """The index of one workspace. Safe among threads and processes: each question opens its own connection.

    `reader`, where it can be given, narrows an answer to the conversations that this participant may read.
    """

    def __init__(self, repository: ConversationRepository, path: Path | None = None) -> None:
        self._repository = repository
        self._file = IndexFile(repository, path or repository.root / STATE_FOLDER / "index.sqlite")
        self._marks = ReadMarks(repository.root / STATE_FOLDER / "reading.sqlite")

    @property
    def path(self) -> Path:
        """The file, which may be deleted."""
        return self._file.path

    def update(self) -> str:
        """Follow the newest commit, which is returned. Each question does so first, too."""
        with self._file.following() as db:
            return str(db.execute("SELECT value FROM state WHERE key = 'head'").fetchone()[0])

    def rebuild(self) -> str:
        """Build the index anew from Git."""
        self._file.remove()
        return self.update()

    def search(
        self,
        query: str,
        *,
        author: str | None = None,
        file: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        newest: bool = False,
        reader: str | None = None,
        limit: int = 20,
    ) -> tuple[Entry, ...]:
        """The messages that say this, best first, or newest first. Words are also looked for in titles.

        `query` is read by `read_query`: words, "phrases", `begin*`, `-not`. `since` and `until` (aware) bound
        the time of creation.
        """
        wanted = read_query(query)
        where, values = ["NOT m.deleted"], list[object]()
        if wanted.expression:
            where.append("words MATCH ?")
            values.append(wanted.expression)
        for term, like in [(t, "LIKE") for t in wanted.within] + [(t, "NOT LIKE") for t in wanted.without]:
            where.append(f"words.body {like} ? ESCAPE '!'")
            values.append(f"%{''.join('!' + c if c in '!%_' else c for c in term)}%")
        for condition, value in (
            ("m.author = ?", author),
            ("m.file = ?", file),
            ("m.moment >= ?", since and since.timestamp()),
            ("m.moment < ?", until and until.timestamp()),
        ):
            if value is not None:
                where.append(condition)
                values.append(value)
        if wanted.expression:
            order = _NEWEST if newest else f"words.rank, {_NEWEST}"
            return self._entries(" AND ".join(where), values, reader, limit, _FROM_WORDS, order, _SNIPPET)
        found = self._entries(" AND ".join(where), values, reader, limit)
        return tuple(replace(entry, snippet=excerpt(entry.body, wanted.within[0])) for entry in found)

    def recent(
        self, *, file: str | None = None, reader: str | None = None, limit: int = 50
    ) -> tuple[Entry, ...]:
        """The newest messages, newest first; those with a time that no calendar has stand last."""
        values: list[object] = [] if file is None else [file]
        only = "TRUE" if file is None else "m.file = ?"
        return self._entries(f"{only} AND NOT m.deleted", values, reader, limit)

    def mentions(self, name: str, *, reader: str | None = None, limit: int = 50) -> tuple[Entry, ...]:
        """The messages of others that call this participant by `@name`, newest first."""
        where = "m.number IN (SELECT number FROM mention WHERE name = ?) AND m.author != ? AND NOT m.deleted"
        return self._entries(where, [name, name], reader, limit)

    def activity(self, *, reader: str | None = None) -> tuple[Activity, ...]:
        """Every thread that has messages, the one where someone spoke last first."""
        values: list[object] = []
        sql = (
            "SELECT m.file, m.thread, words.title, m.id, m.author, m.created, m.moment "
            f"FROM {_FROM} WHERE {self._readable(reader, values)} ORDER BY m.file, m.place"
        )
        threads: dict[tuple[str, int], list[tuple[str, str, str, str, float | None]]] = {}
        with self._file.following() as db:
            for name, number, *rest in db.execute(sql, values):
                threads.setdefault((name, number), []).append(tuple(rest))
        found = []
        for (name, _), rows in threads.items():
            last = max(rows, key=lambda row: float("-inf") if row[4] is None else row[4])
            authors = tuple(dict.fromkeys(row[2] for row in rows))
            found.append((last[4], Activity(name, rows[0][0], rows[0][1], len(rows), last[3], authors)))
        found.sort(key=lambda pair: float("-inf") if pair[0] is None else pair[0], reverse=True)
        return tuple(activity for _, activity in found)

    def unread(
        self, participant: str, *, file: str | None = None, reader: str | None = None
    ) -> tuple[Entry, ...]:
        """What others have said since the participant last read, in the files' order.

        A message that was moved or edited is not new.
        """
        files = self._repository.files(reader=reader)
        marks = self._marks.get(participant)
        vanished = [blob for name, blob in marks.items() if name not in files]  # renamed by hand, perhaps
        found: list[Entry] = []
        with self._file.following() as db:
            for name in files if file is None else set(files) & {file}:
                mark = [marks[name]] if name in marks else vanished
                blob = db.execute("SELECT blob FROM file WHERE name = ?", (name,)).fetchone()
                if blob is None or mark == [blob[0]]:
                    continue
                rows = db.execute(
                    f"SELECT {_ENTRY}, '', m.deleted FROM {_FROM} WHERE m.file = ? ORDER BY m.place", (name,)
                )
                entries = [(Entry(*row[:-1]), row[-1]) for row in rows]
                new = ReadBefore(self._repository, name, mark).unread(
                    [(entry.id, entry.author, entry.created) for entry, _ in entries]
                )
                me = plain(participant)
                found += [e for e, deleted in entries if e.id in new and e.author != me and not deleted]
        return tuple(found)

    def mark_read(self, participant: str, *, file: str | None = None, revision: str | None = None) -> None:
        """The participant has read this file, or all, as of a commit (default: the newest).

        Marks are kept beside the index, in this clone alone: they survive a deleted index.
        """
        files = self._repository.files(revision) if file is None else (file,)
        self._marks.set(participant, {name: self._repository.revision(name, revision) for name in files})

    def anchor(self, file: str, id: str) -> str:  # noqa: A002 - a message's id
        """The permanent link of the message that stands here now; `UnknownMessage` if none does."""
        with self._file.following() as db:
            if not _stands(db, Place(file, id)):
                raise UnknownMessage(f"no message {id!r} in {file}")
            born = db.execute(
                "SELECT old_file, old_id FROM alias WHERE file = ? AND id = ? AND born", (file, id)
            ).fetchone()
        return written_anchor(Place(*born) if born else Place(file, id))

    def resolve(self, anchor: str) -> Place:
        """Where the message of a permanent link stands now.

        The link is what `anchor` gave, or an id alone: the one the message was born with or has now.
        `UnknownMessage` if it was deleted or never was; `AmbiguousAnchor` if several messages have that id.
        """
        file, identity = read_anchor(anchor)
        named = (identity, file)
        with self._file.following() as db:
            moved = db.execute(
                "SELECT old_file, file, id FROM alias WHERE old_id = ?1 AND ifnull(?2, old_file) = old_file",
                named,
            ).fetchall()
            here = db.execute(
                "SELECT file, id FROM message WHERE id = ?1 AND ifnull(?2, file) = file", named
            ).fetchall()
            left = {Place(row[0], identity) for row in moved}
            places = {Place(*row[1:]) for row in moved} | ({Place(*row) for row in here} - left)
            standing = sorted(place for place in places if _stands(db, place))
        if not standing:
            raise UnknownMessage(
                f"no message {anchor!r} is left in this workspace: it was deleted, or never was"
            )
        if len(standing) > 1:
            raise AmbiguousAnchor(
                f"{len(standing)} messages have the id {identity!r}: name the file, as in "
                + " or ".join(written_anchor(place) for place in standing)
            )
        return standing[0]

    def _entries(
        self,
        where: str,
        values: list[object],
        reader: str | None,
        limit: int,
        tables: str = _FROM,
        order: str = _NEWEST,
        snippet: str = "''",
    ) -> tuple[Entry, ...]:
        readable = self._readable(reader, values)
        sql = (
            f"SELECT {_ENTRY}, {snippet} FROM {tables} WHERE {where} AND {readable} ORDER BY {order} LIMIT ?"
        )
        with self._file.following() as db:
            return tuple(Entry(*row) for row in db.execute(sql, (*values, limit)))

    def _readable(self, reader: str | None, values: list[object]) -> str:
        if reader is None:
            return "TRUE"
        values.append(json.dumps(self._repository.files(reader=reader)))
        return "m.file IN (SELECT value FROM json_each(?))"


def _stands(db: sqlite3.Connection, place: Place) -> bool:
    row = db.execute("SELECT 1 FROM message WHERE file = ? AND id = ?", (place.file, place.id))
    return row.fetchone() is not None
