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
from understudy.conversation.errors import (
    AmbiguousThread,
    DuplicateThread,
    StructureChanged,
    Unchanged,
    UnknownThread,
)
from understudy.conversation.grammar import MARKER_WIDTH, line_ending
from understudy.conversation.parser import parse

_BLANK = " \t\r\n"

Change = tuple[Conversation, Message]


def start(doc: Conversation, title: str, author: str, body: str, created: datetime) -> Change:
    """Open a thread at the end of the file. A title that is there already is a `DuplicateThread`."""
    heading = valid_title(title)
    if any(thread.title == heading for thread in doc.threads):
        raise DuplicateThread(f"a thread {heading!r} is here already: post to it, or choose another title")
    ending = line_ending(doc.text)
    lead = _gap(doc.text, ending)
    message = _written(author, body, created, 0, ending)
    text = f"{doc.text}{lead}### {heading}{ending}{ending}{message}{ending}"
    return _checked(doc, text, len(text) - len(message) - len(ending))


def post(doc: Conversation, thread: str | Thread, author: str, body: str, created: datetime) -> Change:
    """A message that answers no other, at the end of a thread (named by its exact title, or itself)."""
    target = doc.thread(thread) if isinstance(thread, str) else _own_thread(doc, thread)
    following = doc.threads[doc.threads.index(target) + 1 :]
    return _insert(
        doc, target.start, following[0].start if following else len(doc.text), 0, author, body, created
    )


def reply(doc: Conversation, to: str, author: str, body: str, created: datetime) -> Change:
    """A reply to the message with the id `to`, behind the replies that it has."""
    target = doc.message(to)
    last = target
    while last.replies:
        last = last.replies[-1]
    return _insert(doc, target.span.start, last.span.end, target.span.text_column, author, body, created)


def edit(doc: Conversation, id: str, body: str) -> Change:  # noqa: A002 - the public name of the argument
    """Give a message another text; author, creation time, id and replies stay.

    `Unchanged` if it says exactly that already.
    """
    message = doc.message(id)
    new = normalise_body(body)
    if new == message.body:
        raise Unchanged(f"message {id} says exactly this already: nothing to edit")
    ending = line_ending(doc.text)
    written = written_body(new, message.span.text_column, ending)
    tail = doc.text[message.body_end :]
    if "".join(tail.split("\n", 2)[1:2]).strip(_BLANK) and swallows_next_line(new):
        written += ending
    return _checked(doc, doc.text[: message.span.body] + written + tail, message.span.start, edited=True)


def _own_thread(doc: Conversation, thread: Thread) -> Thread:
    """The thread of `doc` that is this one, also where it was read from an earlier text of the same file."""
    for own in doc.threads:
        if (own.title, own.ordinal) == (thread.title, thread.ordinal):
            return own
    if any(own.title == thread.title for own in doc.threads):
        raise AmbiguousThread(
            f"the threads titled {thread.title!r} have changed: read the conversation again"
        )
    raise UnknownThread(f"no thread {thread.title!r} in this conversation")


def _written(author: str, body: str, created: datetime, column: int, ending: str) -> str:
    text = written_body(normalise_body(body), column + MARKER_WIDTH, ending)
    return f"{' ' * column}- @{valid_name(author)} [{written_time(created)}]:{text}"


def _insert(
    doc: Conversation, begin: int, end: int, column: int, author: str, body: str, created: datetime
) -> Change:
    """Put a message behind the last filled line between two offsets, set off by a blank line."""
    ending = line_ending(doc.text)
    place = begin + len(doc.text[begin:end].rstrip(_BLANK))
    line_end = doc.text.find("\n", place, end)
    place = line_end + 1 if line_end >= 0 else end
    before, after = doc.text[:place], doc.text[place:]
    lead = ending if before.endswith("\n") else ending * 2
    message = _written(author, body, created, column, ending)
    trail = ending if after.split("\n", 1)[0].strip(_BLANK) else ""
    text = f"{before}{lead}{message}{ending}{trail}{after}"
    return _checked(doc, text, len(before) + len(lead))


def _gap(text: str, ending: str) -> str:
    """What brings the end of a text to the start of a line behind a blank one."""
    filled = text.rstrip(_BLANK)
    wanted = 2 if filled.strip("\ufeff") else 0
    unended = 0 if text.endswith("\n") or not text.strip("\ufeff") else 1
    return ending * max(wanted - text.count("\n", len(filled)), unended)


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
