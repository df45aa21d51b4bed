"""A long conversation in sections, so that saying one thing takes reading one of them.

A heading at column 0 closes everything before it, and so does a message whose dash stands at column 0: what
lies between two of these is read independently of all else. Only what ids are made of is counted over more:
the threads of one title over the file, the messages of one author and time over their thread. Where that, or
the lines around a section, could matter to an operation in it, there is no shortcut.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.grammar import line_ending
from understudy.conversation.history import encode
from understudy.conversation.objects import Piece, cut, recut
from understudy.conversation.parser import parse

_SET_OFF = ("\n\n", "\n\r\n")


@dataclass(frozen=True, slots=True)
class _Section:
    """A stretch of the text that begins with a heading (or the file), or with a message at column 0."""

    start: int
    heading: str
    """What has to stand before it to read it by itself: its thread's heading, unless it begins with it."""
    alone: bool
    """Whether the ids in it do not depend on other sections."""
    messages: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sections:
    """A file's text, its bytes, and its sections by number. Immutable."""

    text: str
    data: bytes
    starts: tuple[int, ...]
    headings: tuple[str, ...]
    alone: frozenset[int]
    places: Mapping[str, int]
    """The section of each message, by id."""
    titles: Mapping[str, int]
    """The last section of each thread whose title stands once."""
    ending: str
    known: tuple[Piece, ...] | None = None
    """How the bytes were compressed, where that is known."""
    latest: tuple[int, Conversation] | None = field(default=None, repr=False)
    """The section that was read last."""

    @classmethod
    def of(cls, doc: Conversation) -> "Sections":
        """The sections of a conversation."""
        ending = line_ending(doc.text)
        repeated = {thread.title for thread in doc.threads if thread.ordinal}
        found: list[_Section] = []
        titles: dict[str, int] = {}
        for thread in doc.threads:
            unique = thread.title not in repeated
            found += _sections(doc.text, thread, ending, unique)
            if unique:
                titles[thread.title] = len(found) - 1
        places = {id_: number for number, section in enumerate(found) for id_ in section.messages}
        return cls(
            doc.text,
            encode(doc.text),
            (0, *(section.start for section in found[1:])),  # what stands before all threads is in the first
            tuple(section.heading for section in found) or ("",),
            frozenset(number for number, section in enumerate(found) if section.alone),
            places,
            titles,
            ending,
        )

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The bytes as they are compressed for Git."""
        return cut(self.data) if self.known is None else self.known

    def section(self, message: str | None = None, title: str | None = None) -> int | None:
        """The section with this message, or the end of this thread, if it can be changed by itself."""
        number = self.titles.get(title) if title is not None else self.places.get(message or "")
        if number is None or number not in self.alone:
            return None
        begin, end = self._bounds(number)
        if end != len(self.text) and not self.text.endswith(_SET_OFF, begin, end):
            return None
        if self.headings[number]:
            return number
        first_line_end = self.text.find("\n", begin, end)
        ending = "\r\n" if first_line_end > begin and self.text[first_line_end - 1] == "\r" else "\n"
        return number if ending == self.ending else None

    def read(self, number: int) -> Conversation:
        """The one section as a conversation of its own; ids are those of the whole."""
        if self.latest is not None and self.latest[0] == number:
            return self.latest[1]
        begin, end = self._bounds(number)
        return parse(self.headings[number] + self.text[begin:end])

    def replaced(self, number: int, section: Conversation, said: str) -> "Sections":
        """The whole with another text for one section, in which the message `said` is new or edited."""
        begin, end = self._bounds(number)
        new = section.text[len(self.headings[number]) :]
        head, tail = encode(self.text[:begin]), encode(self.text[end:])
        data = b"".join((head, encode(new), tail))
        longer = len(new) - (end - begin)
        starts = chain(self.starts[: number + 1], (start + longer for start in self.starts[number + 1 :]))
        return Sections(
            "".join((self.text[:begin], new, self.text[end:])),
            data,
            tuple(starts),
            self.headings,
            self.alone,
            {**self.places, said: number},
            self.titles,
            self.ending,
            recut(data, len(head), len(tail), self.pieces),
            (number, section),
        )

    def _bounds(self, number: int) -> tuple[int, int]:
        end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.text)
        return self.starts[number], end


def _sections(text: str, thread: Thread, ending: str, unique: bool) -> Iterator[_Section]:
    """One thread's sections. `unique`: no other thread has its title."""
    twins = Counter((root.author, root.created) for root in thread.messages)
    heading = f"### {thread.title}{ending}{ending}" if thread.title else ""
    start, roots = thread.start, list[Message]()
    for root in thread.messages:
        # A thread without a heading has nothing that could stand before its later sections.
        if roots and heading and text.startswith("- ", root.span.start):
            yield _section(start, thread, heading, roots, unique, twins)
            start, roots = root.span.start, []
        roots.append(root)
    yield _section(start, thread, heading, roots, unique, twins)


def _section(
    start: int,
    thread: Thread,
    heading: str,
    roots: list[Message],
    unique: bool,
    twins: Counter[tuple[str, str]],
) -> _Section:
    alone = unique and all(twins[root.author, root.created] == 1 for root in roots)
    messages = tuple(message.id for root in roots for message in root.walk())
    return _Section(start, "" if start == thread.start else heading, alone, messages)
