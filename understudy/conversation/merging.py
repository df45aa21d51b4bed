"""Merging two versions of a conversation by message: what each side did to which, never to which lines."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.gathering import Element, Gathering, MergedMessage, MergedThread, Node
from understudy.conversation.grammar import BLANK
from understudy.conversation.ordering import ordered
from understudy.conversation.weaving import Layout, write

EditTimes = Callable[[Message], datetime | None]
"""When a side last gave this message of its version another text; None where nobody knows."""

NoteKind = Literal[
    "both-edited",
    "edited-and-deleted",
    "kept-as-deleted",
    "both-renamed",
    "both-moved",
    "id-changed",
    "id-taken",
    "same-title",
]

OTHER_TEXT = "Edited in two places at once; the other text was:"
"""Opens the reply that keeps the text which does not stand."""


@dataclass(frozen=True, slots=True)
class MergeNote:
    """Something that a merge decided and a person may want to look at.

    `message` is the id in the merged conversation ("" where a thread without messages is meant), `text` what
    does not stand (the other text, title or thread), `before` the id that the message had on one side.
    """

    kind: NoteKind
    message: str
    text: str = ""
    before: str | None = None


def _unknown(message: Message) -> datetime | None:
    return None


def merge(
    base: Conversation,
    ours: Conversation,
    theirs: Conversation,
    *,
    ours_edited: EditTimes = _unknown,
    theirs_edited: EditTimes = _unknown,
) -> tuple[Conversation, tuple[MergeNote, ...]]:
    """Merge what two sides made of `base`; never a conflict, and no text that a person wrote is lost.

    - What either side said is there, by place and then by time.
    - Edited on one side: the edit stands. On both: the later edit stands (the text that sorts last where the
      times are unknown or equal), and the other is kept as a reply that quotes it.
    - Deleted on one side: gone, unless the other edited it (the edit stands) or said something below it (its
      place stays, as a deleted message).
    - Moved or renamed on one side: so it is, with what the other side said there. On both: the place or title
      that sorts first stands.

    Raises `StructureChanged` where malformed lines leave no way to write the result.
    """
    if ours.text in (base.text, theirs.text):
        return theirs, ()
    if theirs.text == base.text:
        return ours, ()
    return _Merge(base, (ours, theirs), (ours_edited, theirs_edited)).result()


_SIDES = (0, 1)


class _Merge:
    """One merge. Sides are numbered: 0 is ours, 1 is theirs."""

    def __init__(
        self,
        base: Conversation,
        sides: tuple[Conversation, Conversation],
        edited: tuple[EditTimes, EditTimes],
    ) -> None:
        self.sides, self.edited = sides, edited
        self.layouts = (Layout(sides[0]), Layout(sides[1]))
        self.base_layout = Layout(base)
        self.all = Gathering(base, sides)
        self.notes: list[tuple[NoteKind, Node, str, str | None]] = [
            ("both-moved", message, other, None) for message, other in self.all.moved_twice
        ]

    def result(self) -> tuple[Conversation, tuple[MergeNote, ...]]:
        """The story: what each thread and message says, who stays, in which order; then write."""
        for thread in self.all.threads:
            self._name(thread)
        for message in list(self.all.messages):
            self._settle(message)
        self._prune()
        threads = self._in_order()
        self._note_equal_titles(threads)
        doc, made = write(self._preamble(), threads, self.layouts, self._ending())
        ids = {message.id for message in doc.messages}
        for node, standing in made.items():
            self._note_ids(node, standing, ids)
        return doc, tuple(self._published(threads, made))

    # What each says.

    def _name(self, thread: MergedThread) -> None:
        """The thread's title and the text under it."""
        versions = [(layout, side) for layout, side in zip(self.layouts, thread.sides, strict=True) if side]
        if not versions:
            assert thread.base is not None
            thread.title, thread.kept = thread.base.title, False
            thread.intro = self.base_layout.intro(thread.base)
            return
        titles = [side.title for _, side in versions]
        intros = [layout.intro(side) for layout, side in versions]
        if thread.base:
            old = thread.base.title, self.base_layout.intro(thread.base)
            changed = [title for title in dict.fromkeys(titles) if title != old[0]]
            thread.title = min(changed, default=old[0])
            self.notes += [
                ("both-renamed", thread, title, None) for title in changed if title != thread.title
            ]
            texts = [intro for intro in dict.fromkeys(intros) if intro != old[1]] or [old[1]]
            thread.kept = len(versions) == 2 or (titles[0], intros[0]) != old
        else:
            thread.title, texts = titles[0], list(dict.fromkeys(intros))
        thread.intro = "\n\n".join(filter(None, texts))
        for (layout, side), intro in zip(versions, intros, strict=True):
            if layout.knows(side) and (side.title, intro) == (thread.title, thread.intro):
                thread.source = thread.source or side

    def _settle(self, message: MergedMessage) -> None:
        """The message's text, and whether anyone wants it."""
        versions = [(side, version) for side, version in enumerate(message.sides) if version]
        if not versions:
            message.kept, message.deleted = False, True
            return
        stands = versions[0][1]
        base = message.base
        changed = [(side, v) for side, v in versions if base is None or _state(v) != _state(base)]
        if len(changed) == 2 and _state(changed[0][1]) != _state(changed[1][1]):
            stands = self._choose(message, changed[0][1], changed[1][1])
        elif changed:
            stands = changed[0][1]
        elif base and len(versions) == 2 and _head(base) == _head(stands):
            stands = versions[1][1]  # the same text, laid out anew
        message.source, message.body, message.deleted = stands, stands.body, stands.deleted
        if base and len(versions) == 1:
            message.kept = bool(changed) and not stands.deleted
            message.deleted = not message.kept
            if message.kept:
                self.notes.append(("edited-and-deleted", message, "", None))
            else:
                message.body, message.source = "", stands if stands.deleted else None

    def _choose(self, message: MergedMessage, ours: Message, theirs: Message) -> Message:
        """Which of two edits stands; the other's text becomes a reply."""
        if ours.deleted or theirs.deleted:
            self.notes.append(("edited-and-deleted", message, "", None))
            return theirs if ours.deleted else ours
        if ours.body.split() == theirs.body.split() or not (ours.body and theirs.body):
            return max(ours, theirs, key=lambda version: version.body)
        times = [edited(version) for edited, version in zip(self.edited, (ours, theirs), strict=True)]
        first, second = (time or datetime.min.replace(tzinfo=UTC) for time in times)
        if None in times or first == second:
            loser, stands = sorted((ours, theirs), key=lambda version: version.body)
        else:
            loser, stands = (theirs, ours) if first > second else (ours, theirs)
        self.notes.append(("both-edited", message, loser.body, None))
        quoted = "\n".join(f"> {line}" if line.strip() else ">" for line in loser.body.split("\n"))
        kept = MergedMessage(
            None,
            [None, None],
            message.author,
            message.created,
            f"{OTHER_TEXT}\n\n{quoted}",
            container=message,
        )
        self.all.messages.append(kept)
        return stands

    # Who stays.

    def _prune(self) -> None:
        """Take away what was deleted; what others still hang on stays, as a deleted message or a heading."""
        for message in self.all.messages:
            if message.container is not None:
                message.container.children.append(message)
        order: list[MergedMessage] = [child for thread in self.all.threads for child in thread.children]
        for message in order:
            order.extend(message.children)
        for message in reversed(order):
            message.children = [child for child in message.children if child.kept]
            if message.children and not message.kept:
                message.kept = True
                if not any(side and side.deleted for side in message.sides):
                    self.notes.append(("kept-as-deleted", message, "", None))
        for thread in self.all.threads:
            thread.children = [child for child in thread.children if child.kept]
            headed = bool(thread.source or thread.title or thread.intro)
            thread.kept = bool(thread.children) or (thread.kept and headed)

    # In which order.

    def _in_order(self) -> list[MergedThread]:
        nodes: list[Node] = [*self.all.threads, *self.all.messages]
        for node in nodes:
            below = [_below(side) for side in node.sides]
            node.children = ordered(node.children, *([self.all.message[m] for m in side] for side in below))
        kept = [thread for thread in self.all.threads if thread.kept]
        return ordered(kept, *([self.all.thread[thread] for thread in doc.threads] for doc in self.sides))

    # What a person wants to know.

    def _note_equal_titles(self, threads: Sequence[MergedThread]) -> None:
        titles = Counter(thread.title for thread in threads)
        before = [Counter(thread.title for thread in doc.threads) for doc in self.sides]
        for thread in threads:
            if titles[thread.title] > max(side[thread.title] for side in before):
                self.notes.append(("same-title", thread, thread.title, None))

    def _note_ids(self, node: MergedMessage, made: Message, ids: set[str]) -> None:
        """Ids that a side knew it by and it has no more, unless the other side's history tells that."""
        for side in _SIDES:
            version, other = node.sides[side], node.sides[1 - side]
            if version is None or version.id == made.id:
                continue
            if node.base and version.id == node.base.id and other and other.id == made.id:
                continue
            self.notes.append(("id-taken" if version.id in ids else "id-changed", node, "", version.id))

    def _published(
        self, threads: Sequence[MergedThread], made: dict[MergedMessage, Message]
    ) -> Iterator[MergeNote]:
        standing = set(threads)
        for kind, node, text, before in self.notes:
            if isinstance(node, MergedMessage):
                if node in made:
                    yield MergeNote(kind, made[node].id, text, before)
            elif node in standing:
                yield MergeNote(kind, made[node.children[0]].id if node.children else "", text, before)

    # The file around it.

    def _preamble(self) -> str:
        base, ours, theirs = (layout.preamble for layout in (self.base_layout, *self.layouts))
        if base != ours != theirs != base:
            texts = dict.fromkeys(text.strip(f"\ufeff{BLANK}") for text in (ours, theirs))
            mark = "\ufeff" if ours.startswith("\ufeff") or theirs.startswith("\ufeff") else ""
            return mark + "".join(f"{text}{self._ending() * 2}" for text in texts if text)
        layout = self.layouts[1] if ours == base else self.layouts[0]
        return layout.ended(layout.preamble, self._ending())

    def _ending(self) -> str:
        base, ours, theirs = (layout.ending for layout in (self.base_layout, *self.layouts))
        return theirs if ours == base else ours


def _below(element: Element | None) -> tuple[Message, ...]:
    if element is None:
        return ()
    return element.messages if isinstance(element, Thread) else element.replies


def _state(message: Message) -> tuple[bool, str]:
    return message.deleted, message.body


def _head(message: Message) -> str:
    return message.source[: message.body_end - message.span.start]
