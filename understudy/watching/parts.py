"""Which parts of the model carry a lesson: not what moved most, but what does it.

A part's share is how much of the margin's change its own change brings about, alone in the untaught model,
and how much is missing when it is put back in the taught one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.watching.laboratory import Laboratory
from understudy.watching.margins import Contrast, Mean, measure_margins
from understudy.weights import HeadLayout, MovementReport

_LAYER = re.compile(r"layers\.(\d+)\.(\w+)")
_KINDS = {"mlp": "MLP", "self_attn": "attention", "linear_attn": "delta"}


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the model's weights: where they lie (rows or columns of tensors), and how they moved.

    `share` is the part's share of the whole squared change, `expected` its share of all parameters: what
    `share` would be if every weight moved alike. `alone` and `missing` are shares of the margin's change.
    """

    name: str
    elements: int
    share: float
    expected: float
    relative: float
    alone: float
    missing: float


Slices = Mapping[str, Sequence[tuple[int, int, int]]]
"""By tensor: (axis, start, stop); the whole tensor is every row."""


def find_parts(
    laboratory: Laboratory,
    contrasts: Sequence[Contrast],
    config: Mapping[str, Any],
    taught: Mapping[str, Tensor],
) -> tuple[Part, ...]:
    """The share of each part, by kind and by head, in what `taught` (weights by name) does to the margin."""
    before = _margin(laboratory, laboratory.start, contrasts)
    whole = _margin(laboratory, taught, contrasts) - before
    squares = {name: _squares(taught[name], laboratory.start[name]) for name in taught}
    total = sum(float(square.sum()) for square in squares.values())
    weights = sum(tensor.numel() for tensor in taught.values())
    found = []
    for name, slices in _named_parts(config, taught):
        inside = {tensor: _mask(taught[tensor], places) for tensor, places in slices.items()}
        elements = sum(int(mask.sum()) for mask in inside.values())
        moved = sum(float(squares[tensor][mask].sum()) for tensor, mask in inside.items())
        norm = sum(
            float(laboratory.start[tensor][mask].double().square().sum()) for tensor, mask in inside.items()
        )
        alone = _margin(laboratory, _mixed(laboratory.start, taught, inside), contrasts) - before
        without = _margin(laboratory, _mixed(taught, laboratory.start, inside), contrasts) - before
        found.append(
            Part(
                name,
                elements,
                moved / total if total else 0.0,
                elements / weights,
                (moved / norm) ** 0.5 if norm else 0.0,
                alone / whole if whole else 0.0,
                1 - without / whole if whole else 0.0,
            )
        )
    laboratory.load(taught)
    return tuple(found)


def chance_of_heads(movement: MovementReport) -> list[tuple[str, float, float]]:
    """Each head's share of the squared change of all heads, and its share of their parameters."""
    heads = movement.heads
    change = sum(moved.change**2 for moved in heads.values())
    elements = sum(moved.elements for moved in heads.values())
    sums: dict[str, tuple[float, int]] = {}
    for part, moved in heads.items():
        name = f"layer {part.layer} {part.kind} head {part.head}"
        held = sums.get(name, (0.0, 0))
        sums[name] = (held[0] + moved.change**2, held[1] + moved.elements)
    return [
        (name, squares / change if change else 0.0, count / elements)
        for name, (squares, count) in sorted(sums.items())
    ]


def _named_parts(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Slices]]:
    """Parts that overlap: each layer's blocks, the groups of a layer's heads, and each head."""
    blocks: dict[str, dict[str, list[tuple[int, int, int]]]] = {}
    groups: dict[str, dict[str, list[tuple[int, int, int]]]] = {}
    heads: dict[str, dict[str, list[tuple[int, int, int]]]] = {}
    layout = HeadLayout.of(config)
    for name, tensor in sorted(tensors.items()):
        blocks.setdefault(_block(name), {})[name] = [(0, 0, tensor.shape[0])]
        for piece in layout.slices(name, tuple(tensor.shape)) if layout else ():
            place = (piece.axis, piece.start, piece.stop)
            part = piece.part
            group = f"{part.kind} {part.group}, all layers"
            groups.setdefault(group, {}).setdefault(name, []).append(place)
            head = f"layer {part.layer} {part.kind} head {part.head}"
            heads.setdefault(head, {}).setdefault(name, []).append(place)
    for kind in (blocks, groups, heads):
        yield from kind.items()


def _block(name: str) -> str:
    found = _LAYER.search(name)
    if found is None:
        return "embeddings" if "embed" in name else "last norm and head"
    return f"layer {found[1]} {_KINDS.get(found[2], 'norms')}"


def _mask(tensor: Tensor, places: Sequence[tuple[int, int, int]]) -> Tensor:
    mask = torch.zeros(tensor.shape, dtype=torch.bool)
    for axis, start, stop in places:
        mask.narrow(axis, start, stop - start).fill_(True)
    return mask


def _mixed(
    ground: Mapping[str, Tensor], other: Mapping[str, Tensor], inside: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """`ground`, but `other` inside the masks."""
    return {
        name: torch.where(inside[name], other[name], tensor) if name in inside else tensor
        for name, tensor in ground.items()
    }


def _margin(laboratory: Laboratory, tensors: Mapping[str, Tensor], contrasts: Sequence[Contrast]) -> float:
    laboratory.load(tensors)
    return Mean.of(measure_margins(laboratory, contrasts).first).value


def _squares(after: Tensor, before: Tensor) -> Tensor:
    return (after.double() - before.double()).square()
