"""How a request says in words what is done to the residual stream: values without torch.

One text per steer, since vLLM's `vllm_xargs` take only scalars and lists of them. A request's steers are done
in their order behind each layer.
"""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, TypeVar, get_args

from understudy.engine.errors import BadRequest

if TYPE_CHECKING:
    import torch

SteerMode = Literal["add", "ablate", "clamp"]
MODES: tuple[SteerMode, ...] = get_args(SteerMode)
Position = TypeVar("Position", int, "torch.Tensor")

GRAMMAR = "[mode:]concept[=strength][x][@layer[,layer...]]['[' span ']']"
"""What is in square brackets may be left out; a span's own brackets are written, so they stand in quotes."""

_PLACE = r"(?:@(?P<layers>\d{1,9}(?:,\d{1,9})*))?(?:\[(?P<span>[^\[\]]*)\])?"
_STRONG = re.compile(
    r"(?P<concept>.+)=(?P<strength>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<lengths>x?)" + _PLACE,
    re.ASCII | re.DOTALL,
)
_BARE = re.compile(r"(?P<concept>[^=]+?)" + _PLACE, re.ASCII | re.DOTALL)
_SLICE = re.compile(r"(\d{0,9}):(\d{0,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Slice:
    """Positions in a sequence, prompt and answer together: from `start` up to `end`, or to its end."""

    start: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        holds = self.start >= 0 and (self.end is None or self.end > self.start)
        _require(holds, "a span of at least one position, counted from 0 on", f"[{self}]")

    def __str__(self) -> str:
        return f"{self.start}:{'' if self.end is None else self.end}"


Span: TypeAlias = Literal["answer", "prompt", "first"] | Slice
"""`answer`: positions from which tokens of the answer are chosen, the prompt's last onwards; `prompt`: those
before; `first`: the prompt's last alone, from which the answer's first token is chosen.
"""

_NAMED: dict[str, Span] = {"answer": "answer", "prompt": "prompt", "first": "first"}


def span_bounds(span: Span, last: Position) -> tuple[Position | int, Position | int | None]:
    """The first position of a span and the one behind its end, None where it has none.

    `last` is the prompt's last position: a number, or a tensor of them.
    """
    if isinstance(span, Slice):
        return span.start, span.end
    if span == "first":
        return last, last + 1
    return (last, None) if span == "answer" else (0, last)


@dataclass(frozen=True, slots=True)
class Steer:
    """One change of the residual stream h along a concept's direction v, behind layers that have one.

    - `add`: h + s v.
    - `ablate`: h - s (h.v) v / (v.v): for s = 1 what h says of the concept is gone (directional ablation in
      Arditi et al. 2024, arXiv 2406.11717).
    - `clamp`: h + (s - h.v / |v|) v / |v|: the stream's component is s, whatever it was, as features are
      clamped in Templeton et al. 2024, "Scaling Monosemanticity".

    s is `strength`, and with `in_lengths` that many times the length of the concept's difference of means at
    the layer. Without `layers` it is done behind all that have directions, without `span` at every position.
    """

    concept: str
    strength: float = 1.0
    layers: tuple[int, ...] = ()
    mode: SteerMode = "add"
    in_lengths: bool = False
    span: Span | None = None

    def __post_init__(self) -> None:
        _require(bool(self.concept), "the name of a concept", self.concept)
        _require(math.isfinite(self.strength), "a finite strength", self.strength)
        different = len(set(self.layers)) == len(self.layers) and all(layer >= 0 for layer in self.layers)
        _require(different, "different layers, counted from 0 on", list(self.layers))
        share = self.mode == "ablate" and self.in_lengths
        _require(not share, "a strength without x for ablate, whose strength is a share", str(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """A steer as it is sent, such as `calm=4`, `calm=4x@3,5`, `ablate:calm`, `clamp:calm=2@3[answer]`.

        Only `ablate` may leave the strength out. `add:add:x=1` reaches a concept that is named `add:x`.
        Raises BadRequest.
        """
        named = next((mode for mode in MODES if text.startswith(f"{mode}:")), None)
        rest = text if named is None else text[len(named) + 1 :]
        parts = _STRONG.fullmatch(rest) or (_BARE.fullmatch(rest) if named == "ablate" else None)
        if parts is None:
            raise _unread(text)
        found = parts.groupdict()
        return cls(
            found["concept"],
            float(found.get("strength") or 1.0),
            tuple(int(layer) for layer in (found["layers"] or "").split(",") if layer),
            named or "add",
            bool(found.get("lengths")),
            None if found["span"] is None else _read_span(found["span"], text),
        )

    def __str__(self) -> str:
        prefixed = self.mode != "add" or self.concept.startswith(tuple(f"{mode}:" for mode in MODES))
        return (
            (f"{self.mode}:" if prefixed else "")
            + f"{self.concept}={float(self.strength)!r}{'x' if self.in_lengths else ''}"
            + (f"@{','.join(map(str, self.layers))}" if self.layers else "")
            + (f"[{self.span}]" if self.span is not None else "")
        )

    @property
    def follows_prompt(self) -> bool:
        """Whether what is done at a position depends on where the prompt ends."""
        return isinstance(self.span, str)


def _read_span(text: str, steer: str) -> Span:
    if text in _NAMED:
        return _NAMED[text]
    parts = _SLICE.fullmatch(text)
    if parts is None:
        raise _unread(steer)
    return Slice(int(parts[1] or 0), int(parts[2]) if parts[2] else None)


def _unread(text: str) -> BadRequest:
    return BadRequest(
        f"steer: expected {GRAMMAR}, with a mode of {', '.join(MODES)}, a strength for add and clamp, and a "
        f"span of answer, prompt, first or start:end; got {text!r}. For example calm=4, calm=4x@3,5, "
        "ablate:calm, clamp:calm=2@3[answer]"
    )


def _require(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise BadRequest(f"steer: expected {expected}, got {got!r}")
