"""Putting a conversation in order: pure functions that take away, move and rename what was said.

Ids come from where a message stands, so these operations may change them: each that does gives, with the
conversation, the mapping of every id that changed from the old to the new. It is to be read at once, not step
by step: a new id may be another message's old one. The ids of messages that a deletion or a move is not about
never change.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from understudy.conversation.bodies import valid_title, written_deletion
from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.errors import (
    DeletedMessage,
    InvalidTarget,
    StructureChanged,
    Unchanged,
    UnknownParagraph,
)
from understudy.conversation.grammar import BLANK, HEADING, LINE_END, line_ending
from understudy.conversation.layout import lifted, line_after, opened, placed, removed, thread_end
from understudy.conversation.operations import new_title, start
from understudy.conversation.parser import parse
from understudy.conversation.quoting import paragraphs, quoted

Moved = tuple[Conversation, Mapping[str, str]]


def delete(doc: Conversation, id: str) -> Conversation:  # noqa: A002 - the public name of the argument
    """Take a message away, and what its author alone has said below it.

    Where others have answered, and where another message's id would change, its place stays: a message of
    the same id, `deleted`, with an empty body. Deleting that takes it away once nothing holds it, and is
    `Unchanged` until then.
    """
    message = doc.message(id)
    below = list(message.walk())
    if all(other.author == message.author or other.deleted for other in below):
        rest = _without(doc, below)
        if rest is not None:
            return rest
    if message.deleted:
        raise Unchanged(f"message {id} is deleted already, and its place is needed by other messages")
    return _buried(doc, message)


def move(
    doc: Conversation,
    id: str,  # noqa: A002 - the public name of the argument
    thread: str | Thread | None = None,
    *,
    title: str | None = None,
) -> Moved:
    """Put a message and all below it at the end of a thread, or, with `title`, into a new one.

    It answers no message there. Where a message of the same author and second stood beside it, its old place
    stays as a deleted message, so that the other keeps its id.
    """
    message = doc.message(id)
    if (thread is None) == (title is None):
        raise InvalidTarget("a message moves to a thread, or to a new one with a title: give one of the two")
    target = None if thread is None else doc.thread(thread)
    if message.parent is None and message.thread is target:
        raise Unchanged(f"message {id} is in the thread {target.title!r} already, and answers no message")
    heading = None if title is None else new_title(doc, title)  # refused before anything is taken away
    subtree, ending = list(message.walk()), line_ending(doc.text)
    written = lifted(doc.text, [message], ending)
    rest = _without(doc, subtree)
    if rest is None:
        leaving = doc.text[: message.span.body] + f"{written_deletion()}{ending}"
        rest = parse(leaving + doc.text[line_after(doc.text, subtree[-1].body_end, len(doc.text)) :])
    if heading is not None:
        text, place = opened(rest.text, heading, written, ending)
    else:
        assert target is not None  # one of the two was given
        # Counted from the end: the one thread that taking a message away can end is the first.
        own = rest.threads[doc.threads.index(target) - len(doc.threads)]
        text, place = placed(rest.text, own.start, thread_end(rest, own), written, ending)
    after = parse(text)
    return after, _moves(_others(doc, rest, subtree), subtree, place, after)


def rename(doc: Conversation, thread: str | Thread, title: str) -> Moved:
    """Give a thread another title: `DuplicateThread` if one has it, `Unchanged` if it is this one's.

    The ids of its messages change; those below later threads of its old title too, since these are counted.
    """
    target = doc.thread(thread)
    if valid_title(title) == target.title:
        raise Unchanged(f"the thread is titled {target.title!r} already")
    heading, ending = new_title(doc, title), line_ending(doc.text)
    begin = target.start
    if doc.text.startswith(HEADING, begin):
        begin += len(HEADING)
        end = line_after(doc.text, begin, len(doc.text))
        line = doc.text[begin:end]
        if target.title:
            text = line.replace(target.title, heading, 1)
        else:
            text = f" {heading}{line[len(line.rstrip(LINE_END)) :]}"
    else:  # messages before any heading: they get one
        text, end = f"{HEADING} {heading}{ending}{ending}", begin
    after = parse(doc.text[:begin] + text + doc.text[end:])
    return after, _moves(doc.messages, (), 0, after)


def merge_threads(doc: Conversation, source: str | Thread, target: str | Thread) -> Moved:
    """Put all messages of one thread, in their order, at the end of another, and take its heading away.

    The ids of its messages change; those below later threads of its title too, since these are counted.
    """
    leaving, staying = doc.thread(source), doc.thread(target)
    if leaving is staying:
        raise InvalidTarget(f"the thread {leaving.title!r} cannot be merged into itself: name another")
    begin, end = leaving.start, thread_end(doc, leaving)
    messages = list(leaving.walk())
    head = doc.text[begin : messages[0].span.start if messages else end]
    if head.partition("\n")[2].strip(BLANK):
        raise StructureChanged(
            f"below the heading {leaving.title!r} stand lines that belong to no message, and merging would "
            "lose them; nothing was done: make them part of a message, or remove them, by hand"
        )
    ending = line_ending(doc.text)
    rest = parse(removed(doc.text, begin, begin + len(doc.text[begin:end].rstrip(BLANK))))
    if not messages:
        return rest, _moves(doc.messages, (), 0, rest)
    own = rest.threads[[thread for thread in doc.threads if thread is not leaving].index(staying)]
    written = lifted(doc.text, leaving.messages, ending)
    text, place = placed(rest.text, own.start, thread_end(rest, own), written, ending)
    after = parse(text)
    return after, _moves(_others(doc, rest, messages), messages, place, after)


def split(
    doc: Conversation,
    id: str,  # noqa: A002 - the public name of the argument
    paragraph: int,
    title: str,
    author: str,
    created: datetime,
) -> tuple[Conversation, Message]:
    """Open a thread about one paragraph of a message: its first message quotes that and links the message.

    `paragraph` counts the message's `paragraphs` from 0. The message itself stays as it is.
    """
    message = doc.message(id)
    if message.deleted:
        raise DeletedMessage(f"message {id} was deleted: it has no paragraph to split off")
    blocks = paragraphs(message.body)
    if not 0 <= paragraph < len(blocks):
        raise UnknownParagraph(
            f"message {id} has {len(blocks)} paragraphs, counted from 0; there is no {paragraph}"
        )
    return start(doc, title, author, quoted(message, blocks[paragraph]), created)


def _without(doc: Conversation, subtree: Sequence[Message]) -> Conversation | None:
    """The conversation without these messages, one and all below it; None if another's id would change."""
    gone = set(subtree)
    rest = parse(removed(doc.text, subtree[0].span.start, subtree[-1].body_end))
    kept = [message.id for message in doc.messages if message not in gone]
    return rest if [message.id for message in rest.messages] == kept else None


def _buried(doc: Conversation, message: Message) -> Conversation:
    """The conversation with only the message's place left."""
    text = f"{doc.text[: message.span.body]}{written_deletion()}{doc.text[message.body_end :]}"
    after = parse(text)
    if [other.id for other in after.messages] != [other.id for other in doc.messages]:
        raise StructureChanged(
            "the lines around this message are malformed, and deleting it would alter other messages; "
            "nothing was done: put the file in order by hand (docs/FORMAT.md)"
        )
    return after


def _others(doc: Conversation, rest: Conversation, leaving: Sequence[Message]) -> Sequence[Message]:
    """The messages that `rest` holds, as they were: its place-holder for the first of those leaving too."""
    gone = set(leaving)
    if len(rest.messages) > len(doc.messages) - len(leaving):
        gone.discard(leaving[0])
        return [
            rest.message(other.id) if other is leaving[0] else other
            for other in doc.messages
            if other not in gone
        ]
    return [other for other in doc.messages if other not in gone]


def _moves(
    staying: Sequence[Message], moved: Sequence[Message], place: int, after: Conversation
) -> Mapping[str, str]:
    """The ids that changed, having checked that nothing else did.

    `staying` and `moved` are the messages as they were, in file order; the moved stand at the offset `place`
    of the new text now.
    """
    index = sum(message.span.start < place for message in after.messages)
    expected = [*staying[:index], *moved, *staying[index:]]
    lift = moved[0].depth if moved else 0
    below = set(moved)
    if len(after.messages) == len(expected) and all(
        (old.author, old.created, old.depth - (lift if old in below else 0), old.body)
        == (new.author, new.created, new.depth, new.body)
        for old, new in zip(expected, after.messages, strict=True)
    ):
        pairs = ((old.id, new.id) for old, new in zip(expected, after.messages, strict=True))
        return {old: new for old, new in pairs if old != new}
    raise StructureChanged(
        "the lines around these messages are malformed, and the change would alter other messages; "
        "nothing was done: put the file in order by hand (docs/FORMAT.md)"
    )
