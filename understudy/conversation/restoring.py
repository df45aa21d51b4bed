"""Undoing a deletion: what was taken away stands again, where it stood."""

from collections.abc import Iterator, Sequence

from understudy.conversation.anchors import may_move
from understudy.conversation.document import Conversation, Message
from understudy.conversation.errors import (
    AmbiguousThread,
    DeletedMessage,
    InvalidTarget,
    StructureChanged,
    Unchanged,
    UnknownMessage,
    UnknownThread,
)
from understudy.conversation.grammar import TOMBSTONE, line_ending
from understudy.conversation.history import Change
from understudy.conversation.layout import placed, shifted, thread_end
from understudy.conversation.merging import merge
from understudy.conversation.operations import refilled
from understudy.conversation.pairing import pair
from understudy.conversation.parser import parse
from understudy.conversation.restructuring import Moved, delete


def restore(doc: Conversation, earlier: Conversation, id: str) -> Conversation:  # noqa: A002
    """Undo the deletion of a message that stood in `earlier`, the conversation before it.

    Where its place still stands it gets its body back; else it is put back, with what its deletion took away
    below it, behind what it stood behind. Author and creation time are as they were, so the id is too. No
    other message changes: `StructureChanged` where that cannot be. `Unchanged` if it stands, `InvalidTarget`
    if something else has its place, `DeletedMessage` if it had no text in `earlier` either.

    Where what it answered was moved since, or its thread renamed, it comes back there, with another id; where
    that was taken away, its place comes back too, as a deleted message.
    """
    return put_back(doc, earlier, id)[0]


def put_back(doc: Conversation, earlier: Conversation, id: str) -> Moved:  # noqa: A002
    """`restore`, with the ids that what came back could not keep, old to new."""
    lost = earlier.message(id)
    if lost.deleted:
        raise DeletedMessage(f"message {id} was deleted already in that version: give one in which it stood")
    without = delete(earlier, id)
    if doc.text == without.text:
        return earlier, {}
    _require_lost(doc, earlier, lost)
    place = _place(doc, without, lost)
    left = {message.id for message in without.messages}
    back = [message for message in lost.walk() if place is None and message.id not in left] or [lost]
    for after in _attempts(doc, earlier, without, back, place):
        made = _made(doc, after, back, place)
        if made is not None:
            pairs = zip(back, made, strict=True)
            return after, {old.id: new.id for old, new in pairs if old.id != new.id}
    raise StructureChanged(
        f"the lines around the place of message {id} are malformed, or another message has its id now, and "
        "bringing it back would alter other messages; nothing was done: put the file in order by hand "
        "(docs/FORMAT.md)"
    )


def deletes(change: Change, id: str) -> bool:  # noqa: A002
    """Whether this change took the message away, by its trees: one that was moved stands elsewhere."""
    before, after = change.before or parse(""), change.after or parse("")
    lost = next((message for message in before.messages if message.id == id), None)
    if lost is None or lost.deleted:
        return False
    now = pair(before, after).messages.get(lost)
    return now is None or now.deleted


def newest_deletion(changes: Sequence[Change], id: str) -> Change:  # noqa: A002
    """Of a file's changes, oldest first, the last that took the message away, or `UnknownMessage`.

    Those that say so are looked at first; for what a hand has deleted every version may have to be read.
    """
    told = [change for change in changes if change.operation == "delete" and change.message == id]
    for change in (*reversed(told), *reversed(changes)):
        if _may_delete(change) and deletes(change, id):
            return change
    raise UnknownMessage(f"no commit deleted a message {id!r} here: nothing to bring back")


def _may_delete(change: Change) -> bool:
    """Cheap, and may say yes too often."""
    before, after = change.before_text, change.after_text
    if before is None or after is None:
        return before is not None
    return after.count(TOMBSTONE) > before.count(TOMBSTONE) or may_move(before, after)


def _require_lost(doc: Conversation, earlier: Conversation, lost: Message) -> None:
    """Raise unless the message is gone, or only its place is left."""
    known = {message.id for message in earlier.messages}
    for message in doc.messages:
        if message.deleted:
            continue
        if (message.author, message.created) != (lost.author, lost.created):
            continue
        if message.body == lost.body and (message.id == lost.id or message.id not in known):
            raise Unchanged(f"message {lost.id} stands as it was (as {message.id}): nothing to bring back")
        if message.id == lost.id:
            raise InvalidTarget(f"message {lost.id} stands, and says something else: edit it instead")


def _place(doc: Conversation, without: Conversation, lost: Message) -> Message | None:
    """The deleted message that stands for the lost one, also where it has another id by now."""
    for message in doc.messages:
        if message.id == lost.id:
            return message
    for message in without.messages:
        if message.id == lost.id:
            found = pair(without, doc).messages.get(message)
            return found if found and found.deleted else None
    return None


def _attempts(
    doc: Conversation,
    earlier: Conversation,
    without: Conversation,
    back: Sequence[Message],
    place: Message | None,
) -> Iterator[Conversation]:
    """The conversation with what comes back: by the ids of what is around it, else by a merge.

    The first touches no other bytes; the second also finds what has another id now, and writes anew what
    stands at columns where the first would go wrong.
    """
    lost = back[0]
    if place is not None:
        yield parse(refilled(doc, place, lost.body, _raw(doc, earlier, place, lost)))
    elif (room := _room(doc, lost)) is not None:
        begin, end, column = room
        shift = lost.parent.span.text_column - column if lost.parent else 0
        written = shifted(earlier.text, [(message, shift) for message in back], line_ending(earlier.text))
        ending = line_ending(doc.text)
        if line_ending(earlier.text) != ending:
            written = written.replace("\r\n", "\n").replace("\n", ending)
        yield parse(placed(doc.text, begin, end, written, ending)[0])
    yield merge(without, doc, earlier)[0]


def _raw(doc: Conversation, earlier: Conversation, place: Message, lost: Message) -> str | None:
    """The body's very characters, None where they would mean something else at this place."""
    raw = earlier.text[lost.span.body : lost.body_end]
    as_there = place.span.text_column == lost.span.text_column
    if "\n" not in raw or (as_there and line_ending(doc.text) == line_ending(earlier.text)):
        return raw
    return None


def _room(doc: Conversation, lost: Message) -> tuple[int, int, int] | None:
    """The offsets that it goes between, and the text column of what it answers; None if that is not here."""
    here = {message.id: message for message in doc.messages}
    siblings = lost.parent.replies if lost.parent else lost.thread.messages
    earlier = reversed(siblings[: siblings.index(lost)])
    behind = next((here[sibling.id] for sibling in earlier if sibling.id in here), None)
    if lost.parent is not None:
        if lost.parent.id not in here:
            return None
        above = here[lost.parent.id]
        begin, end, column = above.span.start, above.span.end, above.span.text_column
    else:
        try:
            thread = doc.thread(lost.thread)
        except (UnknownThread, AmbiguousThread):
            return None
        first = next(iter(thread.messages), None)
        begin, end, column = thread.start, first.span.start if first else thread_end(doc, thread), 0
    if behind is not None:
        *_, last = behind.walk()
        begin, end = behind.span.start, last.span.end
    return begin, end, column


def _made(
    doc: Conversation, after: Conversation, back: Sequence[Message], place: Message | None
) -> list[Message] | None:
    """What came back, having checked that all else stands as it stood; None if it does not.

    A place that came back with it, so that it has something to answer, is not counted.
    """
    before = {message.id: message for message in doc.messages if message is not place}
    kept = [message for message in after.messages if message.id in before]
    new = [message for message in after.messages if message.id not in before]
    places, made = new[: -len(back)], new[-len(back) :]
    if [_said(message) for message in made] != [_said(message) for message in back]:
        return None
    above = after.path(made[0].id)
    if not all(place.deleted and place in above for place in places):
        return None
    return made if [_seen(one) for one in kept] == [_seen(one) for one in before.values()] else None


def _seen(message: Message) -> tuple[str, int, bool, str, str]:
    return message.id, message.depth, message.deleted, message.body, message.source.rstrip()


def _said(message: Message) -> tuple[str, str, bool, str]:
    return message.author, message.created, message.deleted, message.body
