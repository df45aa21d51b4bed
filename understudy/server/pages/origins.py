"""How messages came to be as they stand: with which weights the model spoke, and who reworded them since."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from understudy.conversation import Change, ConversationRepository
from understudy.lessons import WEIGHTS_TRAILER
from understudy.participant import STOPPED_TRAILER


@dataclass(frozen=True, slots=True)
class Origin:
    """What the history says of one message. `weights` is the weight commit it was spoken with, `initial`
    before the first, None for what no model said; `edits` counts later wordings, the last by `edited_by`.
    """

    weights: str | None = None
    edits: int = 0
    edited_by: str | None = None
    stopped_by: str | None = None


UNKNOWN = Origin()
BY_HAND = (None, "hand")
"""Commits of other programs, and hand edits that were committed on the way: only their trees tell."""


class Origins:
    """The origins of all messages, read from commits' metadata once and followed from there.

    Safe among threads. Commits made by hand are read from their trees.
    """

    def __init__(self, repository: ConversationRepository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._head: str | None = None
        self._found: dict[str, dict[str, Origin]] = {}

    def of(self, file: str) -> Mapping[str, Origin]:
        """Of the messages of a conversation, by id, as of the newest commit; those that nothing is known of
        are left out. The mapping changes as commits come: use it at once.
        """
        with self._lock:
            self._follow()
            return dict(self._found.get(file, {}))

    def get(self, file: str, message: str) -> Origin:
        """Of one message."""
        with self._lock:
            self._follow()
            return self._found.get(file, {}).get(message, UNKNOWN)

    def _follow(self) -> None:
        head = self._repository.head()
        if head == self._head:
            return
        for change in self._repository.changes(self._head, until=head):
            self._note(change)
        self._head = head

    def _note(self, change: Change) -> None:
        known = self._found.setdefault(change.file, {})
        if change.moved:
            moving = {old: known.pop(old) for old in change.moved if old in known}
            known.update({change.moved[old]: origin for old, origin in moving.items()})
        if change.operation in BY_HAND:
            for message in change.added:
                self._said(known, message.id, change)
            for _, message in change.edited:
                self._reworded(known, message.id, change)
        elif change.message is not None and change.operation in ("start", "post", "reply", "split"):
            self._said(known, change.message, change)
        elif change.message is not None and change.operation == "edit":
            self._reworded(known, change.message, change)

    @staticmethod
    def _said(known: dict[str, Origin], message: str, change: Change) -> None:
        trailers = change.trailers
        if WEIGHTS_TRAILER in trailers:
            known[message] = Origin(trailers[WEIGHTS_TRAILER], stopped_by=trailers.get(STOPPED_TRAILER))
        else:
            known.pop(message, None)

    @staticmethod
    def _reworded(known: dict[str, Origin], message: str, change: Change) -> None:
        origin = known.get(message, UNKNOWN)
        if WEIGHTS_TRAILER in change.trailers:  # the model said it anew
            origin = Origin(change.trailers[WEIGHTS_TRAILER], origin.edits, origin.edited_by)
        known[message] = replace(origin, edits=origin.edits + 1, edited_by=change.author)
