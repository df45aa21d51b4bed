"""What each participant has read, in this clone."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from understudy.conversation.errors import UnknownRevision
from understudy.conversation.repository import ConversationRepository

_TABLE = (
    "CREATE TABLE IF NOT EXISTS mark(participant TEXT NOT NULL, file TEXT NOT NULL, blob TEXT NOT NULL, "
    "PRIMARY KEY(participant, file)) WITHOUT ROWID"
)
_WAIT_SECONDS = 10.0


class ReadMarks:
    """For each participant and file, the version (blob) that they read last.

    Nobody else's concern and not derived from Git, so it is neither in Git nor in the index.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, participant: str, blobs: Mapping[str, str]) -> None:
        """The participant has read these versions."""
        with self._connected() as db, db:
            db.executemany(
                "INSERT OR REPLACE INTO mark VALUES(?, ?, ?)",
                [(participant, file, blob) for file, blob in blobs.items()],
            )

    def get(self, participant: str) -> dict[str, str]:
        """The participant's marks: file to blob."""
        with self._connected() as db:
            rows = db.execute("SELECT file, blob FROM mark WHERE participant = ?", (participant,))
            return {file: blob for file, blob in rows}  # noqa: C416 - typed rows

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=_WAIT_SECONDS)) as db:
            db.execute(_TABLE)
            yield db


class ReadBefore:
    """What stood in versions that someone has read."""

    def __init__(self, repository: ConversationRepository, file: str, blobs: Collection[str]) -> None:
        """`blobs` are versions of the file; one that history no longer holds counts as never read."""
        self.ids: set[str] = set()
        self._said: Counter[tuple[str, str]] = Counter()
        for blob in blobs:
            try:
                messages = repository.read(file, blob).messages
            except UnknownRevision:
                continue
            self.ids.update(message.id for message in messages)
            self._said.update((message.author, message.created) for message in messages)

    def unread(self, messages: Collection[tuple[str, str, str]]) -> set[str]:
        """Which of all these messages (id, author, creation time) of the file are new.

        A message that was moved has another id, but the author and time of one that is gone.
        """
        gone = self._said.copy()
        for identity, author, created in messages:
            if identity in self.ids:
                gone[author, created] -= 1
        new: set[str] = set()
        for identity, author, created in messages:
            if identity in self.ids:
                continue
            if gone[author, created] > 0:
                gone[author, created] -= 1
            else:
                new.add(identity)
        return new
