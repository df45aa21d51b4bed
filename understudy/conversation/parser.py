"""Reading a conversation: one pass over the lines that can be structure; all between them is left alone."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from re import Match

from understudy.conversation.document import Conversation, Message, Span, Thread
from understudy.conversation.grammar import MARKER_WIDTH, STRUCTURE, columns

ID_LENGTH = 12
"""Hex digits of an id: 48 bits, one accidental collision in some 10^7 messages of one file."""


@dataclass(slots=True, eq=False)
class _Fence:
    """A fence that may be open: it counts only once it is closed, and then hides what began inside it."""

    length: int
    position: int
    drafts: int
    """How many drafts had begun when it opened."""


@dataclass(slots=True, eq=False)
class _Draft:
    """A message line seen, not yet sure to stand (a fence of an ancestor may still close around it)."""

    author: str
    created: str
    start: int
    body: int
    text_column: int
    parent: "_Draft | None"
    thread: Thread
    fences: dict[str, list[_Fence]] = field(default_factory=dict)


class _Reader:
    """The state of one pass: the open messages, from root to the last one, and all drafts so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.threads: list[Thread] = []
        self.titles: Counter[str] = Counter()
        self.drafts: list[_Draft] = []
        self.open: list[_Draft] = []
        self.open_columns: list[int] = []  # text columns of `open`, strictly increasing

    def read(self) -> Conversation:
        for line in STRUCTURE.finditer(self.text):
            if line["heading"]:
                self._heading(line)
            elif line["author"]:
                self._message(line)
            else:
                self._fence(line)
        return self._settle()

    def _heading(self, line: Match[str]) -> None:
        self._close_from(0)
        self._open_thread(self._rest(line).strip(), line.start("heading"))

    def _open_thread(self, title: str, start: int) -> None:
        self.threads.append(Thread(title, self.titles[title], start))
        self.titles[title] += 1

    def _message(self, line: Match[str]) -> None:
        column = columns(line["indent"])
        while self.open and self.open_columns[-1] > column:
            self.open.pop()
            self.open_columns.pop()
        if not self.threads:
            self._open_thread("", line.start("indent"))
        draft = _Draft(
            line["author"],
            line["created"],
            line.start("indent"),
            line.end(),
            column + MARKER_WIDTH,
            self.open[-1] if self.open else None,
            self.threads[-1],
        )
        self.drafts.append(draft)
        self.open.append(draft)
        self.open_columns.append(draft.text_column)

    def _fence(self, line: Match[str]) -> None:
        column = columns(line["indent"])
        level = bisect_left(self.open_columns, column)
        if level == len(self.open) or self.open_columns[level] != column:
            return
        owner, mark = self.open[level], line["fence"]
        waiting = owner.fences.setdefault(mark[0], [])
        rest = self._rest(line)
        # Lengths in `waiting` fall strictly, so the first one short enough is the earliest that this line
        # closes.
        first = bisect_left(waiting, -len(mark), key=lambda fence: -fence.length)
        if first < len(waiting) and not rest.strip():
            self._close_from(level + 1)
            del self.drafts[waiting[first].drafts :]
            opened = waiting[first].position
            for others in owner.fences.values():
                while others and others[-1].position >= opened:
                    others.pop()
        elif first == len(waiting) and level == len(self.open) - 1 and not (mark[0] == "`" and "`" in rest):
            waiting.append(_Fence(len(mark), line.start(), len(self.drafts)))

    def _close_from(self, level: int) -> None:
        del self.open[level:]
        del self.open_columns[level:]

    def _rest(self, line: Match[str]) -> str:
        end = self.text.find("\n", line.end())
        return self.text[line.end() : end if end >= 0 else len(self.text)]

    def _settle(self) -> Conversation:
        """Drafts become messages: spans end where the next structure begins, and ids are given."""
        starts = sorted([draft.start for draft in self.drafts] + [thread.start for thread in self.threads])
        ends = dict(zip(starts, [*starts[1:], len(self.text)], strict=False))
        places = {thread: _digest("thread", thread.title, str(thread.ordinal)) for thread in self.threads}
        made: dict[_Draft, Message] = {}
        equals: Counter[tuple[str, ...]] = Counter()
        for draft in self.drafts:
            parent = made[draft.parent] if draft.parent else None
            key = (parent.id if parent else places[draft.thread], draft.author, draft.created)
            message = Message(
                _digest(*key, str(equals[key])),
                draft.author,
                draft.created,
                parent.depth + 1 if parent else 0,
                draft.thread,
                parent,
                Span(draft.start, draft.body, ends[draft.start], draft.text_column),
                self.text,
            )
            equals[key] += 1
            (parent._replies if parent else draft.thread._roots).append(message)
            made[draft] = message
        return Conversation(self.text, tuple(self.threads), tuple(made.values()))


def _digest(*parts: str) -> str:
    framed = "".join(f"{len(part)}:{part}" for part in parts)
    return sha256(framed.encode("utf-8", "surrogatepass")).hexdigest()[:ID_LENGTH]


def parse(text: str) -> Conversation:
    """Read a conversation file; any text is one, and `parse(text).text == text`.

    Takes time linear in the text, whatever its nesting. docs/FORMAT.md has the grammar and what each
    malformed case means; nothing is ever dropped, and a line that is not structure belongs to the message
    before it.
    """
    return _Reader(text).read()
