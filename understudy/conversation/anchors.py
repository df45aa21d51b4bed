"""Permanent links: where a message that was moved, by the program or by hand, stands now.

A message's id is made from its place, so an operation that gives it another place gives it another id. Its
anchor is the file and id that it was born with; what became of it is told by comparing the trees of each
commit. Trailers only decide between messages that look alike.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from understudy.conversation.document import Message
from understudy.conversation.errors import InvalidAnchor
from understudy.conversation.files import valid_path
from understudy.conversation.grammar import STRUCTURE, columns
from understudy.conversation.history import Change

_MARK = "#"
_BYTE_ORDER_MARK = "\ufeff"
_Structure = tuple[str | None, str | None, str | None, str]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a message stands: a file, and the id that the message has there."""

    file: str
    id: str


Moves = Mapping[Place, Place]
"""Of one commit: where messages stood before it, and where they stand after it. Only those that moved."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    place: Place
    message: Message

    @property
    def author(self) -> str:
        return self.message.author

    @property
    def created(self) -> str:
        return self.message.created

    @property
    def body(self) -> str:
        return self.message.body


def written_anchor(place: Place) -> str:
    """The anchor of a message that was born at this place: `conversations/talk.md#0123456789ab`."""
    return f"{place.file}{_MARK}{place.id}"


def read_anchor(anchor: str) -> tuple[str | None, str]:
    """The file (None where the anchor is an id alone) and the id; `InvalidAnchor` for anything else."""
    file, mark, identity = anchor.rpartition(_MARK)
    if not identity or (mark and not file):
        raise InvalidAnchor(f"an anchor is 'conversations/name.md#id' or an id; got {anchor!r}")
    return (valid_path(file) if mark else None), identity


def moves_by_commit(changes: Iterable[Change]) -> Iterator[Moves]:
    """What moved in each commit, in their order; commits that moved nothing are passed over."""
    for _, group in groupby(changes, key=lambda change: change.commit):
        together = list(group)
        if any(change.is_merge or may_move(change.before_text, change.after_text) for change in together):
            found = _moves(together)
            if found:
                yield found


def may_move(before: str | None, after: str | None) -> bool:
    """Whether this change of a file could give any of its messages another id. May say yes too often.

    Cheap: what was said, edited or started is told from what was moved without reading the whole file.
    """
    if before is None:
        return False  # where messages came from is seen in the file that lost them
    if after is None:
        return True
    start, before_end, after_end = _differing(before, after)
    if start == 0 and _BYTE_ORDER_MARK in (before[:1], after[:1]):
        return True  # the mark counts at a file's start alone
    old, new = _structures(before, start, before_end), _structures(after, start, after_end)
    if any(fence for _, _, fence, _ in (*old, *new)):
        return True
    if old == new:
        return False
    if old:
        return True
    headed = new[0][3] or any(line["heading"] for line in STRUCTURE.finditer(after, 0, start))
    if not headed:
        return True  # what stands before any heading makes a thread of its own
    following = STRUCTURE.search(after, after_end)
    if following is not None and (following["fence"] or any(heading for _, _, _, heading in new)):
        return True
    if following is not None and following["author"]:
        leftmost = min(columns(indent or "") for indent, _, _, _ in new)
        if columns(following["indent"]) > leftmost:
            return True  # what was put above it may have taken its place below another message
    return any(after.count(f"{author}:") > 1 for _, author, _, _ in new if author)


def _structures(text: str, start: int, end: int) -> list[_Structure]:
    """Indent, author with time, fence, heading with its title: of each line that can be structure."""
    found: list[_Structure] = []
    for line in STRUCTURE.finditer(text, start, end):
        author = f"@{line['author']} [{line['created']}]" if line["author"] else None
        heading = _rest_of_line(text, line.end()) + _MARK if line["heading"] else ""
        found.append((line["indent"], author, line["fence"], heading))
    return found


def _rest_of_line(text: str, start: int) -> str:
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)].strip()


def _differing(before: str, after: str) -> tuple[int, int, int]:
    """Start, end before and end after of the lines between the first and the last that differ."""
    shorter = min(len(before), len(after))
    start = before.rfind("\n", 0, _common(before, after, shorter, False)) + 1
    same = _common(before, after, shorter - start, True)
    while same:  # what follows begins a line in both texts
        starts = (len(before) - same, len(after) - same)
        if all(
            place == 0 or text[place - 1] == "\n" for text, place in zip((before, after), starts, strict=True)
        ):
            break
        line_end = before.find("\n", starts[0])
        same = len(before) - line_end - 1 if line_end >= 0 else 0
    return start, len(before) - same, len(after) - same


def _common(one: str, other: str, most: int, from_end: bool) -> int:
    """How many characters, `most` at most, the texts share at their start or end. Compares slices, so it
    takes time linear in the texts at the speed of memory.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        same = (
            one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]
            if from_end
            else one[low:middle] == other[low:middle]
        )
        low, high = (middle, high) if same else (low, middle - 1)
    return low


def _moves(changes: Iterable[Change]) -> dict[Place, Place]:
    told: dict[Place, Place] = {}
    before: list[_Candidate] = []
    after: list[_Candidate] = []
    for change in changes:
        before += candidates(change.file, change.before_any)
        after += candidates(change.file, change.after.messages if change.after else ())
        told |= {Place(change.file, old): Place(change.file, new) for old, new in change.moved.items()}
    return matched(before, after, told)


def candidates(file: str, messages: Iterable[Message]) -> list[_Candidate]:
    """The messages of a file, to be compared with those of another version by `matched`."""
    return [_Candidate(Place(file, message.id), message) for message in messages]


def matched(before: list[_Candidate], after: list[_Candidate], told: Moves) -> dict[Place, Place]:
    """Which message became which, where that is not the same place.

    Messages of the same author and time are the same message: first as trailers tell, then those that say
    the same, then those that stayed, then in their order. Of the rest, one that alone says something is
    the same as one that alone says it, if their author or their time agrees (a hand corrected the other).
    """
    groups: dict[tuple[str, str], tuple[list[_Candidate], list[_Candidate]]] = defaultdict(lambda: ([], []))
    for side, candidates in enumerate((before, after)):
        for candidate in candidates:
            groups[candidate.author, candidate.created][side].append(candidate)
    found: dict[Place, Place] = {}
    lost: list[_Candidate] = []
    new: list[_Candidate] = []
    for old_ones, new_ones in groups.values():
        if {one.place for one in old_ones} == {one.place for one in new_ones} and not any(
            one.place in told for one in old_ones
        ):
            continue
        _pair(old_ones, new_ones, told, found)
        taken = set(found.values())
        lost += [one for one in old_ones if one.place not in found]
        new += [one for one in new_ones if one.place not in taken]
    _pair_by_body(lost, new, found)
    return {old: place for old, place in found.items() if old != place}


def _pair(before: list[_Candidate], after: list[_Candidate], told: Moves, found: dict[Place, Place]) -> None:
    """Pair messages of one author and time, the surest pairs first."""
    left, free = list(before), list(after)
    for sure in (
        lambda old, new: told.get(old.place) == new.place,
        lambda old, new: old.place == new.place and old.body == new.body,
        lambda old, new: old.place.file == new.place.file and old.body == new.body,
        lambda old, new: old.body == new.body,
        lambda old, new: old.place == new.place,
        lambda _old, _new: True,
    ):
        for old in list(left):
            new = next((one for one in free if sure(old, one)), None)
            if new is not None:
                found[old.place] = new.place
                left.remove(old)
                free.remove(new)


def _pair_by_body(lost: list[_Candidate], new: list[_Candidate], found: dict[Place, Place]) -> None:
    bodies: dict[str, tuple[list[_Candidate], list[_Candidate]]] = defaultdict(lambda: ([], []))
    for side, candidates in enumerate((lost, new)):
        for candidate in candidates:
            bodies[candidate.body][side].append(candidate)
    for old_ones, new_ones in bodies.values():
        if len(old_ones) == 1 and len(new_ones) == 1:
            [old], [one] = old_ones, new_ones
            if old.author == one.author or old.created == one.created:
                found[old.place] = one.place
