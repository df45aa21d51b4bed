"""Writing a merged conversation: whose bytes stand, with the layout of where they came from."""

from collections.abc import Iterator, Sequence

from understudy.conversation.bodies import normalise_body, swallows_next_line, written_body
from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.errors import InvalidBody, StructureChanged
from understudy.conversation.gathering import Element, MergedMessage, MergedThread, Node
from understudy.conversation.grammar import BLANK, HEADING, MARKER_WIDTH, TOMBSTONE, line_ending
from understudy.conversation.parser import parse


class Layout:
    """One side's file, element by element: a heading or a message, and the blank lines behind it."""

    def __init__(self, doc: Conversation) -> None:
        self.text = doc.text
        self.ending = line_ending(doc.text)
        headed = [thread for thread in doc.threads if doc.text.startswith(HEADING, thread.start)]
        self._elements: list[Element] = sorted([*headed, *doc.messages], key=start_of)
        following: list[Element | None] = [*self._elements[1:], None]
        self.next: dict[Element, Element | None] = dict(zip(self._elements, following, strict=False))

    @property
    def first(self) -> Element | None:
        """The first heading or message, if there is one."""
        return self._elements[0] if self._elements else None

    @property
    def preamble(self) -> str:
        """What stands before the first heading or message."""
        return self.text[: start_of(self._elements[0])] if self._elements else self.text

    def knows(self, element: Element) -> bool:
        """Whether it stands in this file."""
        return element in self.next

    def end(self, element: Element) -> int:
        """Offset of the next element, or of the end of the file."""
        following = self.next[element]
        return start_of(following) if following else len(self.text)

    def head(self, element: Element) -> str:
        """The element without the blank lines behind it."""
        return self.text[start_of(element) : self._head_end(element)]

    def gap(self, element: Element) -> str:
        """The blank lines behind the element, from its last line's ending."""
        return self.text[self._head_end(element) : self.end(element)]

    def intro(self, thread: Thread) -> str:
        """What stands between a heading and its first message, without blank lines around it."""
        if not self.knows(thread):
            return ""
        return "\n".join(self.head(thread).split("\n")[1:]).strip("\r\n")

    def ended(self, text: str, ending: str) -> str:
        """A part of this file with other line endings, if its own are others."""
        return text if self.ending == ending else text.replace("\r\n", "\n").replace("\n", ending)

    def _head_end(self, element: Element) -> int:
        if isinstance(element, Message):
            return element.body_end
        start, end = element.start, self.end(element)
        filled = start + len(self.text[start:end].rstrip(BLANK))
        line_end = self.text.find("\n", filled, end)
        if line_end < 0:
            return end
        return line_end - 1 if self.text[line_end - 1] == "\r" else line_end


def start_of(element: Element) -> int:
    """Where a heading or a message begins in its file."""
    return element.start if isinstance(element, Thread) else element.span.start


def write(
    preamble: str, threads: Sequence[MergedThread], layouts: tuple[Layout, Layout], ending: str
) -> tuple[Conversation, dict[MergedMessage, Message]]:
    """The merged file, and where each merged message stands in it.

    Bytes are kept as they were wherever the file then reads as planned. Where it does not, because lines at
    odd columns or fences left open would take in what now stands below them, the messages at odd columns
    are written anew, then all of them, at last with bodies that leave nothing open.
    """
    plan = [node for node in _preorder(threads) if isinstance(node, MergedMessage)]
    for strictness in range(4):
        if strictness == 3:
            for node in plan:
                node.body = _plain(node.body)
        doc = parse(_Writer(layouts, ending, strictness).write(preamble, threads))
        if [thread.title for thread in doc.threads] == [t.title for t in threads] and _stands(doc, plan):
            return doc, dict(zip(plan, doc.messages, strict=True))
    raise StructureChanged(
        "the two versions cannot be merged: their lines are malformed so that messages would change; "
        "nothing was done: put one side's file in order by hand first (docs/FORMAT.md)"
    )


def _preorder(threads: Sequence[MergedThread]) -> Iterator[Node]:
    for thread in threads:
        waiting: list[Node] = [thread]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


def _stands(doc: Conversation, plan: Sequence[MergedMessage]) -> bool:
    """Whether the file reads as planned: every message, its text, and what it answers."""
    if len(doc.messages) != len(plan):
        return False
    made: dict[Node | None, Message] = dict(zip(plan, doc.messages, strict=True))
    return all(
        (node.author, node.created, node.body, node.deleted) == (m.author, m.created, m.body, m.deleted)
        and m.parent is (made[node.container] if isinstance(node.container, MergedMessage) else None)
        for node, m in zip(plan, doc.messages, strict=True)
    )


def _plain(body: str) -> str:
    try:
        return normalise_body(body)
    except InvalidBody:  # nothing but blanks, or bytes that are not UTF-8
        lines = body.replace("\r\n", "\n").replace("\r", "\n")
        return lines.strip(BLANK) and lines.strip("\n")


class _Writer:
    def __init__(self, layouts: tuple[Layout, Layout], ending: str, strictness: int) -> None:
        self.layouts = layouts
        self.ending = ending
        self.strictness = strictness
        self.columns: dict[Node, int] = {}
        """The text column of each message written so far, 0 for threads."""

    def write(self, preamble: str, threads: Sequence[MergedThread]) -> str:
        parts = [preamble]
        nodes = list(_preorder(threads))
        if nodes and preamble.strip("\ufeff") and not preamble.endswith("\n"):
            parts.append(self.ending * 2)
        before: Node | None = None
        for node, after in zip(nodes, [*nodes[1:], None], strict=False):
            text, own = self._head(node, before)
            if text:
                parts += [text, self._gap(node, after, own)]
                before = node
        return "".join(parts)

    def _head(self, node: Node, before: Node | None) -> tuple[str, Layout | None]:
        """An element's text, and the side whose bytes it is."""
        if isinstance(node, MergedThread):
            return self._heading(node, before)
        above = self.columns[node.container] if node.container else 0
        source = node.source
        own = self._layout(source)
        if source and own and self._can_stay(node, source, own, above, before):
            self.columns[node] = source.span.text_column
            return own.ended(own.head(source), self.ending), own
        self.columns[node] = above + MARKER_WIDTH
        line = f"{' ' * above}- @{node.author} [{node.created}]:"
        if node.deleted:
            return f"{line} {TOMBSTONE}", None
        written = written_body(node.body, above + MARKER_WIDTH, self.ending) if node.body else ""
        return line + written, None

    def _heading(self, node: MergedThread, before: Node | None) -> tuple[str, Layout | None]:
        self.columns[node] = 0
        own = self._layout(node.source)
        if node.source and own:
            return own.ended(own.head(node.source), self.ending), own
        if before is None and not node.title and not node.intro:
            return "", None  # the messages before any heading
        intro = f"\n\n{node.intro}" if node.intro else ""
        return f"{HEADING} {node.title}".rstrip() + intro.replace("\n", self.ending), None

    def _can_stay(
        self, node: MergedMessage, source: Message, own: Layout, above: int, before: Node | None
    ) -> bool:
        if self.strictness >= 2:
            return False
        if source.span.text_column == above + MARKER_WIDTH:
            return True
        parent = source.parent
        same_parent = parent is None or parent.span.text_column == above
        first = before is node.container  # nothing is open there that could take it in
        return self.strictness == 0 and same_parent and (first or self._follows(before, node, own))

    def _follows(self, before: Node | None, node: Node, layout: Layout) -> bool:
        """Whether the two stand one behind the other in this side's file too; None: nothing before it."""
        side = self.layouts.index(layout)
        first, second = before.sides[side] if before else None, node.sides[side]
        if second is None or (before is not None and first is None):
            return False
        return layout.first is second if first is None else layout.next.get(first) is second

    def _gap(self, node: Node, after: Node | None, own: Layout | None) -> str:
        """The layout between two elements: a side's own where they are neighbours, else a blank line."""
        for layout in dict.fromkeys((own or self.layouts[0], *self.layouts)):
            side = node.sides[self.layouts.index(layout)]
            if side is None or not layout.knows(side):
                continue
            follows = layout.next[side] is None if after is None else self._follows(node, after, layout)
            if not follows:
                continue
            gap = layout.ended(layout.gap(side), self.ending)
            crowded = gap.count("\n") < 2 and after is not None and layout is not own
            if crowded and isinstance(node, MergedMessage) and swallows_next_line(node.body):
                break
            return gap
        return self.ending if after is None else self.ending * 2

    def _layout(self, element: Element | None) -> Layout | None:
        return next((layout for layout in self.layouts if element and layout.knows(element)), None)
