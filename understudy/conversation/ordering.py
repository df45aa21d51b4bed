"""In which order merged threads and replies stand."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from understudy.conversation.gathering import MergedMessage, MergedThread

_NodeT = TypeVar("_NodeT", bound=MergedMessage | MergedThread)
_Key = tuple[bool, datetime, str, str, str]
_NEVER = datetime.min.replace(tzinfo=UTC)


def ordered(nodes: Sequence[_NodeT], ours: Iterable[_NodeT], theirs: Iterable[_NodeT]) -> list[_NodeT]:
    """The nodes in the order of both sides; an order that only theirs changed is theirs, else it is ours.

    What only one side has stands behind what it followed there; what both put at one place stands there by
    time. Nodes that neither side has here stand last, by time. `nodes` has those of the base in its order.
    """
    wanted = set(nodes)
    orders = [[node for node in side if node in wanted] for side in (ours, theirs)]
    common = set(orders[0]) & set(orders[1])
    spines = [[node for node in order if node in common] for order in orders]
    unmoved = [node for node in nodes if node.base and node in common]
    spine: list[_NodeT] = spines[1] if [node for node in spines[0] if node.base] == unmoved else spines[0]
    runs = [_runs(order, common) for order in orders]
    placed: list[_NodeT] = []
    placed += _woven(*(side.get(None, []) for side in runs))
    for anchor in spine:
        placed += [anchor, *_woven(*(side.get(anchor, []) for side in runs))]
    there = set(placed)
    return placed + sorted((node for node in nodes if node not in there), key=_time)


def _runs(order: Sequence[_NodeT], common: set[_NodeT]) -> dict[_NodeT | None, list[_NodeT]]:
    """What only this side has, by the node of both sides that it stands behind."""
    found: dict[_NodeT | None, list[_NodeT]] = {}
    anchor: _NodeT | None = None
    for node in order:
        if node in common:
            anchor = node
        else:
            found.setdefault(anchor, []).append(node)
    return found


def _woven(first: Sequence[_NodeT], second: Sequence[_NodeT]) -> list[_NodeT]:
    """Two runs as one, by time, each keeping its own order."""
    result: list[_NodeT] = []
    left, right = list(first)[::-1], list(second)[::-1]
    while left and right:
        result.append(right.pop() if _time(right[-1]) < _time(left[-1]) else left.pop())
    return result + left[::-1] + right[::-1]


def _time(node: MergedMessage | MergedThread) -> _Key:
    if isinstance(node, MergedThread):
        return _time(node.children[0]) if node.children else (True, _NEVER, node.title, "", "")
    element = node.base or node.sides[0] or node.sides[1]
    moment = element.created_at if element else None
    return moment is None, moment or _NEVER, node.created, node.author, node.body
