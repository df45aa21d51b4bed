"""What steers do to the residual stream, resolved against directions: from words to vectors.

Shapes: h hidden size, b rows, t positions; ... are whatever dimensions come before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from understudy.engine.errors import BadRequest
from understudy.engine.steer import Span, SteerMode, span_bounds


@dataclass(frozen=True, eq=False, slots=True)
class Move:
    """h + gain (h.u) u + shift, with a unit vector u: every mode of steering behind one layer.

    Without `unit_h` the stream is only shifted.
    """

    span: Span | None
    shift_h: torch.Tensor
    unit_h: torch.Tensor | None = None
    gain: float = 0.0

    def change(self, stream: torch.Tensor) -> torch.Tensor:
        """What is added to a stream [..., h]: of its shape, or [h]; in fp32."""
        if self.unit_h is None:
            return self.shift_h
        component = stream.float() @ self.unit_h
        return (self.gain * component)[..., None] * self.unit_h + self.shift_h

    def rows(self, start: int, end: int, position: int, last: int) -> slice:
        """Those of rows [start, end) that it moves, when the first stands at `position` in its sequence."""
        if self.span is None:
            return slice(start, end)
        first, behind = span_bounds(self.span, last)
        there = start - position  # where the sequence's first position would stand
        return slice(max(start, there + first), end if behind is None else min(end, there + behind))


Steering: TypeAlias = Mapping[int, Sequence[Move]]
"""By layer: what is done behind it, in order."""


def make_move(mode: SteerMode, vector_h: torch.Tensor, strength: float, span: Span | None) -> Move:
    """What a mode does along a direction. Raises BadRequest for the component along one without length."""
    if mode == "add":
        return Move(span, strength * vector_h)
    length = vector_h.norm()
    if not length:
        raise BadRequest(f"steer: expected a direction with a length to {mode} along, got zeros: use add")
    unit_h = vector_h / length
    if mode == "ablate":
        return Move(span, torch.zeros_like(unit_h), unit_h, -strength)
    return Move(span, strength * unit_h, unit_h, -1.0)


def append_move(moves: list[Move], move: Move) -> None:
    """Do it after the others; shifts of the same positions become one."""
    if moves and move.unit_h is None and moves[-1].span == move.span:
        moves[-1] = replace(moves[-1], shift_h=moves[-1].shift_h + move.shift_h)
    else:
        moves.append(move)


def positions_inside(span: Span, positions_bt: torch.Tensor, last_b: torch.Tensor) -> torch.Tensor:
    """Which positions a span holds, [b, t], when each row's prompt ends at `last_b`."""
    first, behind = span_bounds(span, last_b[:, None])
    inside = positions_bt >= first
    return inside if behind is None else inside & (positions_bt < behind)
