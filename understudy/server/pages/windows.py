"""Which part of a long conversation a page shows."""

from collections.abc import Sequence

from understudy.conversation import Message
from understudy.server.pages.message_views import place_of

SIZE = 60
"""Messages on a page at first, and in each further piece."""


def opening(messages: Sequence[Message], at: str | None, unread: str | None) -> range:
    """The messages to begin with: around `at`, else from a little before the first unread, else the end.

    All of them where they are few.
    """
    count = len(messages)
    if count <= SIZE * 3 // 2:
        return range(count)
    for wanted in (at, unread):
        place = None if wanted is None else place_of(messages, wanted)
        if place is not None:
            start = max(0, min(place - SIZE // 3, count - SIZE))
            return range(start, min(count, start + SIZE))
    return range(count - SIZE, count)


def before(start: int) -> range:
    """The piece that ends where a page begins."""
    return range(max(0, start - SIZE), start)


def after(end: int, count: int) -> range:
    """The piece that begins where a page ends."""
    return range(end, min(count, end + SIZE))
