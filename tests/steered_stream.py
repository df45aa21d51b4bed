"""What steering does to a stream, position by position in float64, and what is then read: the oracle of the
tests of both engines, by hooks on transformers' model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from understudy.engine import Directions, ReadoutManifest, ReadoutStatistics

CONCEPTS = ("calm", "curious", "proud")


@dataclass(frozen=True)
class Expected:
    """One steer as the oracle takes it. `positions` None: everywhere."""

    mode: Literal["add", "ablate", "clamp"]
    concept: str
    strength: float
    layers: tuple[int, ...] = (0, 1)
    positions: Sequence[int] | None = None


def write_directions(folder: Any, hidden_size: int, *, statistics: bool = True) -> Directions:
    """Random directions of three concepts behind layers 0 and 1, with statistics, in a folder."""
    draw = torch.Generator().manual_seed(0)
    vectors = {n: torch.randn(len(CONCEPTS), hidden_size, generator=draw) for n in (0, 1)}
    tables = [torch.rand(2, len(CONCEPTS), generator=draw) + 0.1 for _ in range(3)]
    mean, deviation, norms = (table.double().tolist() for table in tables)
    found = ReadoutStatistics(mean=mean, deviation=deviation, norms=norms, tokens=100)
    manifest = ReadoutManifest(
        concepts=list(CONCEPTS),
        layers=[0, 1],
        hidden_size=hidden_size,
        dtype="float32",
        statistics=found if statistics else None,
    )
    made = Directions(manifest, vectors)
    made.save(folder)
    return made


def streams(
    model: Any, ids: Sequence[int], directions: Directions, steers: Sequence[Expected] = ()
) -> torch.Tensor:
    """[tokens][layers][concepts] of one sequence without a cache, steered by hooks."""
    found: list[torch.Tensor] = []

    def hook(layer: int) -> Any:
        def after(_module: Any, _given: Any, stream: torch.Tensor) -> torch.Tensor:
            moved = stream[0].double()
            for steer in steers:
                if layer in steer.layers:
                    moved = _moved(moved, directions.vectors_ch[layer], steer)
            found.append(moved @ directions.vectors_ch[layer].double().T)
            return moved[None].to(stream)

        return after

    hooks = [model.model.layers[n].register_forward_hook(hook(n)) for n in directions.layers]
    with torch.no_grad():
        model(torch.tensor([list(ids)]), use_cache=False)
    for one in hooks:
        one.remove()
    return torch.stack(found, dim=1).float()


def _moved(stream_th: torch.Tensor, vectors_ch: torch.Tensor, steer: Expected) -> torch.Tensor:
    v = vectors_ch[CONCEPTS.index(steer.concept)].double()
    moved = stream_th.clone()
    for position in range(len(stream_th)) if steer.positions is None else steer.positions:
        if position >= len(stream_th):
            continue
        h = stream_th[position]
        if steer.mode == "add":
            moved[position] = h + steer.strength * v
        elif steer.mode == "ablate":
            moved[position] = h - steer.strength * torch.dot(h, v) * v / torch.dot(v, v)
        else:
            length = torch.dot(v, v).sqrt()
            moved[position] = h + (steer.strength - torch.dot(h, v) / length) * v / length
    return moved
