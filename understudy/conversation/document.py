"""A parsed conversation: immutable, and always able to give back the text it came from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from understudy.conversation.errors import AmbiguousThread, UnknownMessage, UnknownThread
from understudy.conversation.grammar import BLANK, TOMBSTONE, dedent, unescape


@dataclass(frozen=True, slots=True)
class Span:
    """Where a message stands in its file, as offsets into the text.

    `start` is its line's first character, `body` what follows the colon, `end` where the next message,
    heading or the end of the file begins. `text_column` is the column of its body's lines and of its replies'
    dashes.
    """

    start: int
    body: int
    end: int
    text_column: int


@dataclass(frozen=True, eq=False, repr=False)
class Message:
    """One message. Two messages are the same if they have the same `id` in the same file."""

    id: str
    author: str
    created: str
    """As written; `created_at` is the time it means."""
    depth: int
    thread: "Thread"
    parent: "Message | None"
    span: Span
    _text: str
    _replies: "list[Message]" = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Message {self.id} @{self.author} [{self.created}]>"

    @cached_property
    def replies(self) -> "tuple[Message, ...]":
        """The direct replies, in file order."""
        return tuple(self._replies)

    @cached_property
    def created_at(self) -> datetime | None:
        """The creation time, UTC where no zone is written; None where the calendar has no such time."""
        try:
            moment = datetime.fromisoformat(self.created.replace(",", ".").upper())
        except ValueError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @cached_property
    def body_end(self) -> int:
        """Offset behind the last character of the body; blank lines after it are layout, not body."""
        raw = self._text[self.span.body : self.span.end]
        line_end = raw.find("\n", len(raw.rstrip(BLANK)))
        if line_end < 0:  # the last line of a file may lack its "\n", and have a "\r" left of its ending
            return self.span.end - raw.endswith("\r")
        if line_end and raw[line_end - 1] == "\r":
            line_end -= 1
        return self.span.body + line_end

    @cached_property
    def deleted(self) -> bool:
        """Whether only its place is left, because others answered it; its body is empty then."""
        begin, mark = self.span.body, f" {TOMBSTONE}"
        return self.body_end - begin == len(mark) and self._text.startswith(mark, begin)

    @cached_property
    def body(self) -> str:
        """The text: dedented, unescaped, with `\\n` line endings, without blank lines around it."""
        if self.deleted:
            return ""
        raw = self._text[self.span.body : self.body_end].replace("\r\n", "\n")
        first, *rest = raw.split("\n")
        lines = [first.removeprefix(" "), *(dedent(line, self.span.text_column) for line in rest)]
        start = next((i for i, line in enumerate(lines) if line.strip(BLANK)), None)
        return "" if start is None else unescape("\n".join(lines[start:]))

    @property
    def source(self) -> str:
        """The message's own part of the file, replies excluded, byte for byte."""
        return self._text[self.span.start : self.span.end]

    def walk(self) -> "Iterator[Message]":
        """This message and all below it, in file order."""
        waiting = [self]
        while waiting:
            message = waiting.pop()
            yield message
            waiting.extend(reversed(message._replies))


@dataclass(frozen=True, eq=False, repr=False)
class Thread:
    """A heading and the messages under it. Messages before any heading form a thread with an empty title."""

    title: str
    ordinal: int
    """How many threads of the same title stand before it."""
    start: int
    _roots: list[Message] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Thread {self.title!r}>"

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """The messages that answer no other, in file order."""
        return tuple(self._roots)

    def walk(self) -> Iterator[Message]:
        """All its messages, in file order."""
        for root in self._roots:
            yield from root.walk()


@dataclass(frozen=True)
class Conversation:
    """A conversation file. Equal if the text is equal."""

    text: str
    threads: tuple[Thread, ...] = field(compare=False, repr=False)
    messages: tuple[Message, ...] = field(compare=False, repr=False)
    """Every message, in file order."""

    def __reduce__(self) -> tuple[object, ...]:
        from understudy.conversation.parser import parse  # the parser builds this class

        return parse, (self.text,)

    @cached_property
    def _by_id(self) -> dict[str, Message]:
        return {message.id: message for message in self.messages}

    def walk(self) -> Iterator[Message]:
        """Every message, in file order."""
        return iter(self.messages)

    def message(self, message_id: str) -> Message:
        """The message with this id, or `UnknownMessage`."""
        if message_id in self._by_id:
            return self._by_id[message_id]
        raise UnknownMessage(
            f"no message {message_id!r} here: this conversation has {len(self.messages)} messages"
            f"{_examples([message.id for message in self.messages])}"
        )

    def thread(self, title: str | Thread) -> Thread:
        """The one thread with exactly this title, `UnknownThread`, or `AmbiguousThread`.

        Or the thread that a `Thread` is here, also where that was read from an earlier text of the same file.
        """
        if isinstance(title, Thread):
            return self._own_thread(title)
        found = [thread for thread in self.threads if thread.title == title]
        if len(found) > 1:
            raise AmbiguousThread(f"{len(found)} threads are titled {title!r}: give the Thread itself")
        if found:
            return found[0]
        titles = [repr(thread.title) for thread in self.threads]
        raise UnknownThread(
            f"no thread {title!r} here: this conversation has {len(titles)}{_examples(titles)}"
        )

    def _own_thread(self, thread: Thread) -> Thread:
        for own in self.threads:
            if (own.title, own.ordinal) == (thread.title, thread.ordinal):
                return own
        if any(own.title == thread.title for own in self.threads):
            raise AmbiguousThread(
                f"the threads titled {thread.title!r} have changed: read the conversation again"
            )
        raise UnknownThread(f"no thread {thread.title!r} in this conversation")

    def path(self, message_id: str) -> tuple[Message, ...]:
        """From the thread's root message down to this one, both included."""
        steps = [self.message(message_id)]
        while (parent := steps[-1].parent) is not None:
            steps.append(parent)
        return tuple(reversed(steps))


def _examples(names: Sequence[str], most: int = 8) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"
