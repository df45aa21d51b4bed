"""Saying something: pure functions that touch only the bytes they are about.

Each takes a conversation and gives the new one with the message it made or changed. `created` is an aware
datetime, written in UTC to the second. All of them raise a `ConversationError` rather than do nothing or do
something else.
"""

from datetime import datetime

from understudy.conversation.bodies import (
    normalise_body,
    swallows_next_line,
    valid_name,
    valid_title,
    written_body,
    written_time,
)
from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.errors import DeletedMessage, DuplicateThread, StructureChanged, Unchanged
from understudy.conversation.grammar import BLANK, MARKER_WIDTH, line_ending
from understudy.conversation.layout import opened, placed, thread_end
from understudy.conversation.parser import parse

Change = tuple[Conversation, Message]


def start(doc: Conversation, title: str, author: str, body: str, created: datetime) -> Change:
    """Open a thread at the end of the file. A title that is there already is a `DuplicateThread`."""
    heading = new_title(doc, title)
    ending = line_ending(doc.text)
    return _checked(doc, *opened(doc.text, heading, _written(author, body, created, 0, ending), ending))


def post(doc: Conversation, thread: str | Thread, author: str, body: str, created: datetime) -> Change:
    """A message that answers no other, at the end of a thread (named by its exact title, or itself)."""
    target = doc.thread(thread)
    ending = line_ending(doc.text)
    written = _written(author, body, created, 0, ending)
    return _checked(doc, *placed(doc.text, target.start, thread_end(doc, target), written, ending))


def reply(doc: Conversation, to: str, author: str, body: str, created: datetime) -> Change:
    """A reply to the message with the id `to`, behind the replies that it has."""
    target = doc.message(to)
    last = target
    while last.replies:
        last = last.replies[-1]
    ending = line_ending(doc.text)
    written = _written(author, body, created, target.span.text_column, ending)
    return _checked(doc, *placed(doc.text, target.span.start, last.span.end, written, ending))


def edit(doc: Conversation, id: str, body: str) -> Change:  # noqa: A002 - the public name of the argument
    """Give a message another text; author, creation time, id and replies stay.

    `Unchanged` if it says exactly that already, `DeletedMessage` if only its place is left.
    """
    message = doc.message(id)
    if message.deleted:
        raise DeletedMessage(f"message {id} was deleted: it has no text to edit; write a new message")
    new = normalise_body(body)
    if new == message.body:
        raise Unchanged(f"message {id} says exactly this already: nothing to edit")
    return _checked(doc, refilled(doc, message, new), message.span.start, edited=True)


def refilled(doc: Conversation, message: Message, body: str, written: str | None = None) -> str:
    """The file's text with another body for this message; `written` are its characters, where they are known.

    Only what stands behind the message's colon is touched.
    """
    tail = doc.text[message.body_end :]
    # The ending behind the body, which outlives every edit; the file's first may stand inside this body.
    ending = next((end for end in ("\r\n", "\n") if tail.startswith(end)), line_ending(doc.text))
    if written is None:
        written = written_body(body, message.span.text_column, ending)
    if "".join(tail.split("\n", 2)[1:2]).strip(BLANK) and swallows_next_line(body):
        written += ending
    return doc.text[: message.span.body] + written + tail


def new_title(doc: Conversation, title: str) -> str:
    """The title as it can be written, or `InvalidTitle`, or `DuplicateThread` if a thread has it."""
    heading = valid_title(title)
    if any(thread.title == heading for thread in doc.threads):
        raise DuplicateThread(f"a thread {heading!r} is here already: post to it, or choose another title")
    return heading


def _written(author: str, body: str, created: datetime, column: int, ending: str) -> str:
    text = written_body(normalise_body(body), column + MARKER_WIDTH, ending)
    return f"{' ' * column}- @{valid_name(author)} [{written_time(created)}]:{text}{ending}"


def _checked(doc: Conversation, text: str, place: int, edited: bool = False) -> Change:
    """Read the new text back: one message more at `place` (or the edited one), and all others as before."""
    after = parse(text)
    message = next((message for message in after.messages if message.span.start == place), None)
    kept = [other.id for other in after.messages if edited or other is not message]
    if message is None or kept != [before.id for before in doc.messages]:
        raise StructureChanged(
            "the lines around this message are malformed, and the change would alter other messages; "
            "nothing was done: put the file in order by hand (docs/FORMAT.md)"
        )
    return after, message
