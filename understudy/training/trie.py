"""Several token sequences read as one: what they share at their beginnings is read once.

The sequences form a radix trie. Its runs are listed depth first, so whoever reads them needs the states
along one path only: those at the ends of the runs that lead to where it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Run:
    """`tokens` to be read at position `start`, after those of the runs that lead here.

    `places` are the sequences, by their places among those given, that end where the run ends.
    """

    start: int
    tokens: tuple[int, ...]
    places: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(slots=True)
class _Node:
    tokens: tuple[int, ...]
    places: list[int] = field(default_factory=list)
    children: dict[int, "_Node"] = field(default_factory=dict)  # by first token, in order of appearance


def plan_reading(sequences: Sequence[Sequence[int]]) -> tuple[Run, ...]:
    """The runs to read, in order: every distinct beginning of a sequence exactly once.

    A run starts at the end of an earlier one, the nearest with that end, or at 0; what was read beyond that
    end since belongs to other branches. Branches come in the order in which the sequences do, a sequence
    before those that continue it. Only a run for empty sequences has no tokens.
    """
    root = _Node(())
    for place, sequence in enumerate(sequences):
        _insert(root, tuple(sequence), place)
    runs: list[Run] = []
    pending = [(root, 0)]
    while pending:  # not recursive: a thread may be deeper than Python's stack
        node, start = pending.pop()
        run = Run(start, node.tokens, tuple(node.places))
        if run.tokens or run.places:
            runs.append(run)
        pending.extend((child, run.end) for child in reversed(node.children.values()))
    return tuple(runs)


def _insert(node: _Node, sequence: tuple[int, ...], place: int) -> None:
    position = 0  # of what the nodes down to this one do not hold
    while position < len(sequence):
        child = node.children.get(sequence[position])
        if child is None:
            child = node.children[sequence[position]] = _Node(sequence[position:])
        shared = _shared(child.tokens, sequence, position)
        if shared < len(child.tokens):
            upper = _Node(child.tokens[:shared], children={child.tokens[shared]: child})
            child.tokens = child.tokens[shared:]
            node.children[sequence[position]] = child = upper
        node, position = child, position + shared
    node.places.append(place)


def _shared(tokens: tuple[int, ...], sequence: tuple[int, ...], position: int) -> int:
    """How many tokens agree with those of the sequence from the position on."""
    longest = min(len(tokens), len(sequence) - position)
    count = 0
    while count < longest and tokens[count] == sequence[position + count]:
        count += 1
    return count
