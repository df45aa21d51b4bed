"""What moved between two states of the weights: by matrix, by layer, by head and its parts."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from understudy.weights.delta import apply
from understudy.weights.errors import WeightsMismatch
from understudy.weights.heads import Group, HeadLayout, HeadPart, Kind, layer_of

_CHUNK_ELEMENTS = 1 << 20
"""Elements that are held in float64 at once: 8 MiB for each of the two states."""


@dataclass(frozen=True, slots=True)
class Movement:
    """How far something moved: 2-norm of its change, and of itself before."""

    change: float
    norm: float
    elements: int

    @property
    def relative(self) -> float:
        """Change over norm: 0 where nothing moved, infinite where something moved away from zero."""
        if self.norm:
            return self.change / self.norm
        return math.inf if self.change else 0.0

    def as_json(self) -> dict[str, Any]:
        relative = self.relative if math.isfinite(self.relative) else None
        return {"change": self.change, "norm": self.norm, "relative": relative, "elements": self.elements}


@dataclass(frozen=True, slots=True)
class MovementReport:
    """The movement of the whole model and of each thing in it that has a name.

    `heads` is empty for an architecture whose heads are not known. Embeddings, the last norm and the output
    head belong to no layer.
    """

    whole: Movement
    matrices: Mapping[str, Movement]
    layers: Mapping[int, Movement]
    heads: Mapping[HeadPart, Movement]
    layout: HeadLayout | None = None

    def whole_heads(self) -> dict[tuple[int, Kind, int], Movement]:
        """By (layer, kind, head): all parts of a query head, or of a Gated DeltaNet value head.

        What a group of heads shares (keys and values; queries and keys of Gated DeltaNet) counts for each.
        """
        sums: dict[tuple[int, Kind, int], _Sum] = {}
        for part, moved in self.heads.items():
            assert self.layout is not None
            for head in self.layout.shared_with(part):
                sums.setdefault((part.layer, part.kind, head), _Sum()).add_movement(moved)
        return {key: total.movement for key, total in sorted(sums.items())}

    def groups(self) -> dict[tuple[int, Kind, Group], Movement]:
        """By (layer, kind, group): projections, gates, decay and convolution apart, over all heads."""
        sums: dict[tuple[int, Kind, Group], _Sum] = {}
        for part, moved in self.heads.items():
            sums.setdefault((part.layer, part.kind, part.group), _Sum()).add_movement(moved)
        return {key: total.movement for key, total in sorted(sums.items())}

    def as_json(self) -> dict[str, Any]:
        """Plain data, most moved first."""
        return {
            "whole": self.whole.as_json(),
            "layers": [{"layer": n, **m.as_json()} for n, m in _most(self.layers)],
            "matrices": [{"name": n, **m.as_json()} for n, m in _most(self.matrices)],
            "groups": [
                {"layer": layer, "kind": kind, "group": group, **m.as_json()}
                for (layer, kind, group), m in _most(self.groups())
            ],
            "heads": [
                {"layer": layer, "kind": kind, "head": head, **m.as_json()}
                for (layer, kind, head), m in _most(self.whole_heads())
            ],
            "parts": [
                {"layer": p.layer, "kind": p.kind, "part": p.part, "head": p.head, **m.as_json()}
                for p, m in _most(self.heads)
            ],
        }


def measure_movement(
    pairs: Iterable[tuple[str, torch.Tensor, torch.Tensor]], config: Mapping[str, Any] | None
) -> MovementReport:
    """The movement over `pairs` of (name, before, after), read once, one at a time.

    `config` is the model's config.json: without it, or for an architecture that is not known, there are no
    heads in the report. Sums are taken in float64. Raises WeightsMismatch when shapes differ, or when they
    are not what `config` says.
    """
    layout = HeadLayout.of(config)
    whole = _Sum()
    matrices: dict[str, Movement] = {}
    layers: dict[int, _Sum] = {}
    heads: dict[HeadPart, _Sum] = {}
    for name, before, after in pairs:
        sums = _squares(name, before, after)
        own = _Sum()
        own.add(sums.change_rows.sum(), sums.norm_rows.sum(), before.numel())
        matrices[name] = own.movement
        whole.add_movement(own.movement)
        layer = layer_of(name)
        if layer is not None:
            layers.setdefault(layer, _Sum()).add_movement(own.movement)
        for piece in layout.slices(name, tuple(before.shape)) if layout else ():
            change, norm = sums.along(piece.axis)
            elements = before.numel() // before.shape[piece.axis] * (piece.stop - piece.start)
            place = slice(piece.start, piece.stop)
            heads.setdefault(piece.part, _Sum()).add(change[place].sum(), norm[place].sum(), elements)
    return MovementReport(
        whole=whole.movement,
        matrices=matrices,
        layers={number: total.movement for number, total in sorted(layers.items())},
        heads={part: total.movement for part, total in sorted(heads.items())},
        layout=layout,
    )


def pair_streams(
    before: Iterable[tuple[str, torch.Tensor]], after: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Bring two streams of (name, tensor) together by name.

    In the same order, one pair is in memory at a time; in other orders, tensors wait for their partners.
    Raises WeightsMismatch when a name is in one stream only.
    """
    left, right = iter(before), iter(after)
    waiting: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    while True:
        first, second = next(left, None), next(right, None)
        if first is None and second is None:
            break
        if first is not None and second is not None and first[0] == second[0]:
            yield first[0], first[1], second[1]
            continue
        for place, one in enumerate((first, second)):
            if one is None:
                continue
            name, tensor = one
            partner = waiting[1 - place].pop(name, None)
            if partner is None:
                waiting[place][name] = tensor
            else:
                yield (name, tensor, partner) if place == 0 else (name, partner, tensor)
    alone = sorted((*waiting[0], *waiting[1]))
    if alone:
        raise WeightsMismatch(
            f"expected the same tensors on both sides, got {alone[:4]} ({len(alone)} in all) on one only"
        )


def pair_delta(
    before: Iterable[tuple[str, torch.Tensor]], delta: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Pairs from the tensors before a change and its packed delta; what it does not name did not move."""
    for name, tensor in before:
        yield name, tensor, apply(tensor, delta[name]) if name in delta else tensor


class _Sum:
    """A sum of squares that grows."""

    __slots__ = ("change", "elements", "norm")

    def __init__(self) -> None:
        self.change = self.norm = 0.0
        self.elements = 0

    def add(self, change: torch.Tensor | float, norm: torch.Tensor | float, elements: int) -> None:
        self.change += float(change)
        self.norm += float(norm)
        self.elements += elements

    def add_movement(self, moved: Movement) -> None:
        self.add(moved.change**2, moved.norm**2, moved.elements)

    @property
    def movement(self) -> Movement:
        return Movement(math.sqrt(self.change), math.sqrt(self.norm), self.elements)


@dataclass(frozen=True, slots=True)
class _Squares:
    """Sums of squares of the change and of the state before, by row and by column, float64."""

    change_rows: torch.Tensor
    norm_rows: torch.Tensor
    change_columns: torch.Tensor
    norm_columns: torch.Tensor

    def along(self, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
        if axis == 0:
            return self.change_rows, self.norm_rows
        return self.change_columns, self.norm_columns


def _squares(name: str, before: torch.Tensor, after: torch.Tensor) -> _Squares:
    if before.shape != after.shape:
        raise WeightsMismatch(
            f"{name}: expected one shape on both sides, got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    rows = before.shape[0] if before.ndim else 1
    columns = before.numel() // max(1, rows)
    old, new = before.detach().reshape(rows, columns), after.detach().reshape(rows, columns)
    change_rows, norm_rows = torch.zeros(2, rows, dtype=torch.float64)
    change_columns, norm_columns = torch.zeros(2, columns, dtype=torch.float64)
    step = max(1, _CHUNK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        place = slice(start, start + step)
        base = old[place].double()
        moved = (new[place].double() - base).square_()
        squared = base.square()  # not in place: float64 weights are not copied by .double()
        change_rows[place], norm_rows[place] = moved.sum(1), squared.sum(1)
        change_columns += moved.sum(0)
        norm_columns += squared.sum(0)
    return _Squares(change_rows, norm_rows, change_columns, norm_columns)


def _most(held: Mapping[Any, Movement]) -> list[tuple[Any, Movement]]:
    return sorted(held.items(), key=lambda pair: pair[1].change, reverse=True)
