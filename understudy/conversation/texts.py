"""What was read lately: parsed conversations by blob, so that nothing is read twice while it stands."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from understudy.conversation.document import Conversation
from understudy.conversation.history import decode
from understudy.conversation.parser import parse
from understudy.conversation.sections import Sections
from understudy.conversation.store import GitStore

_KEPT = 6
"""Conversations held, each some ten times its file; a workspace's talk is about few of them at a time."""

_Value = TypeVar("_Value")


class _Recent(Generic[_Value]):
    """The values used last. Safe among threads."""

    def __init__(self, most: int) -> None:
        self._values: OrderedDict[str, _Value] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def get(self, key: str) -> _Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            return None

    def put(self, key: str, value: _Value) -> _Value:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class Texts:
    """Conversations and their sections, by blob id: what has an id never changes."""

    def __init__(self, store: GitStore) -> None:
        self._store = store
        self._conversations = _Recent[Conversation](_KEPT)
        self._sections = _Recent[Sections](_KEPT)

    def conversation(self, blob: str | None) -> Conversation:
        """The conversation in this blob; an empty one for None."""
        if blob is None:
            return parse("")
        known = self._conversations.get(blob)
        return (
            known
            if known is not None
            else self._conversations.put(blob, parse(decode(self._store.data(blob))))
        )

    def sections(self, blob: str | None) -> Sections:
        """The same thread by thread; of an empty file for None."""
        if blob is None:
            return Sections.of(self.conversation(None))
        known = self._sections.get(blob)
        return known if known is not None else self._sections.put(blob, Sections.of(self.conversation(blob)))

    def remember(self, blob: str | None, sections: Sections) -> None:
        """What was just written as this blob (None: it is gone again, by someone faster)."""
        if blob is None:
            return
        self._sections.put(blob, sections)
        self._store.remember(blob, sections.data)
