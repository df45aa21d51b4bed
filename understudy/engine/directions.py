"""Directions in activation space: what to read from the residual stream and what to steer it along.

The format is two files in one folder: `readout.safetensors` with `layer_<index>.vectors` of shape
(concepts, hidden size), and `readout.json` with `concepts`, `layers`, `hidden_size`, `dtype`, and perhaps
`statistics`. Layer i is the residual stream behind decoder layer i, before the last norm.

Shapes: b rows, l layers, c concepts, h hidden size.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from understudy.engine.errors import BadRequest, BrokenReadout, NoDirections
from understudy.engine.request import GenerationRequest
from understudy.engine.statistics import ReadoutStatistics
from understudy.engine.steer import Steer
from understudy.engine.steering import Move, Steering, append_move, make_move

VECTORS_FILE = "readout.safetensors"
MANIFEST_FILE = "readout.json"

Name = Annotated[str, msgspec.Meta(min_length=1)]


class ReadoutManifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`readout.json`. Further fields, such as a card's, are left alone.

    `statistics` is needed for z-scores and for strengths in lengths. Raises BrokenReadout for one that is not
    of these layers and concepts.
    """

    concepts: Annotated[list[Name], msgspec.Meta(min_length=1)]
    layers: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]
    hidden_size: Annotated[int, msgspec.Meta(ge=1)]
    dtype: str
    statistics: ReadoutStatistics | None = None

    def __post_init__(self) -> None:
        if self.statistics is not None:
            self.statistics.check(len(self.layers), len(self.concepts))


@dataclass(frozen=True)
class Directions:
    """One direction per concept and layer, [c, h] in fp32, as it lies in the file."""

    manifest: ReadoutManifest
    vectors_ch: Mapping[int, torch.Tensor]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises BrokenReadout, naming what does not fit, for files that are not in the format."""
        manifest = _read_manifest(folder / MANIFEST_FILE)
        try:
            found = load_file(folder / VECTORS_FILE)
        except (OSError, SafetensorError) as error:
            raise BrokenReadout(f"expected vectors in {folder / VECTORS_FILE}: {error}") from error
        expected = {f"layer_{layer}.vectors" for layer in manifest.layers}
        if found.keys() != expected:
            odd = sorted(found.keys() ^ expected)[0]
            raise BrokenReadout(
                f"expected one tensor for each of {MANIFEST_FILE}'s layers in {folder}: {odd} is only in one"
            )
        shape = (len(manifest.concepts), manifest.hidden_size)
        for name, vectors in found.items():
            if tuple(vectors.shape) != shape:
                raise BrokenReadout(
                    f"expected {name} in {folder} to be of shape {shape} (concepts, hidden size), got "
                    f"{tuple(vectors.shape)}"
                )
            if not vectors.isfinite().all():
                raise BrokenReadout(f"expected finite numbers in {name} in {folder}")
        return cls(manifest, {layer: found[f"layer_{layer}.vectors"].float() for layer in manifest.layers})

    def save(self, folder: Path) -> None:
        """Write the two files; the manifest last, since readers go by it."""
        dtype = getattr(torch, self.manifest.dtype)
        tensors = {f"layer_{layer}.vectors": v.to(dtype).contiguous() for layer, v in self.vectors_ch.items()}
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / VECTORS_FILE)
        (folder / MANIFEST_FILE).write_text(json.dumps(msgspec.to_builtins(self.manifest), indent=2) + "\n")

    @property
    def concepts(self) -> tuple[str, ...]:
        return tuple(self.manifest.concepts)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers in ascending order, as readouts have them."""
        return tuple(self.vectors_ch)

    def check_model(self, layers: int, hidden_size: int) -> None:
        """Raises BrokenReadout when these are directions of another model."""
        if self.manifest.hidden_size != hidden_size or self.layers[-1] >= layers:
            raise BrokenReadout(
                f"expected directions for a model of {layers} layers and hidden size {hidden_size}, got "
                f"layers {list(self.layers)} and hidden size {self.manifest.hidden_size}: they were made "
                "from another model"
            )

    @property
    def statistics(self) -> ReadoutStatistics | None:
        return self.manifest.statistics

    def to(self, device: torch.device | str) -> Self:
        """The same, where the model computes."""
        return replace(self, vectors_ch={layer: v.to(device) for layer, v in self.vectors_ch.items()})

    def steering(self, steers: Iterable[Steer]) -> Steering:
        """What is done behind each layer. Raises BadRequest for what these directions do not have."""
        moves: dict[int, list[Move]] = {}
        for steer in steers:
            if steer.concept not in self.concepts:
                raise BadRequest(
                    f"steer: expected a concept that is loaded ({_few(self.concepts)}), got {steer.concept!r}"
                )
            column = self.concepts.index(steer.concept)
            for layer in steer.layers or self.layers:
                if layer not in self.vectors_ch:
                    raise BadRequest(f"steer: expected a layer of {list(self.layers)}, got {layer}")
                strength = steer.strength * (self._length(layer, column) if steer.in_lengths else 1.0)
                move = make_move(steer.mode, self.vectors_ch[layer][column], strength, steer.span)
                append_move(moves.setdefault(layer, []), move)
        return moves

    def read(self, layer: int, stream: torch.Tensor) -> torch.Tensor:
        """The stream's scalar products with each concept's direction: [..., h] to [..., c], in fp32."""
        return stream.float() @ self._matrices_lhc[self.layers.index(layer)]

    def read_all(self, streams: Sequence[torch.Tensor]) -> torch.Tensor:
        """Those of one position per row behind every layer, in their order: l of [b, h] to [b, l, c]."""
        return torch.bmm(torch.stack(list(streams)).float(), self._matrices_lhc).transpose(0, 1)

    @cached_property
    def _matrices_lhc(self) -> torch.Tensor:
        """As products take them, made once."""
        return torch.stack([vectors.T for vectors in self.vectors_ch.values()]).contiguous()

    def _length(self, layer: int, column: int) -> float:
        if self.statistics is None:
            raise BadRequest(
                "steer: expected a strength without x, since these directions have no statistics: "
                f"`norms` of `statistics` in {MANIFEST_FILE} are what x counts in"
            )
        return self.statistics.norms[self.layers.index(layer)][column]


def resolve_steering(directions: Directions | None, request: GenerationRequest) -> Steering:
    """What a request does behind each layer. Raises BadRequest for what these directions do not have."""
    if directions is not None:
        return directions.steering(request.steering)
    if request.readout is not None or request.steering:
        raise NoDirections
    return {}


def _read_manifest(file: Path) -> ReadoutManifest:
    try:
        manifest = msgspec.json.decode(file.read_bytes(), type=ReadoutManifest)
    except OSError as error:
        raise BrokenReadout(f"expected a description of the directions in {file}: {error}") from error
    except msgspec.MsgspecError as error:
        raise BrokenReadout(f"{file}: {error}") from error
    for what, listed in (("concepts", manifest.concepts), ("layers", manifest.layers)):
        if len(set(listed)) < len(listed):
            raise BrokenReadout(f"expected different {what} in {file}, got one twice")
    if manifest.layers != sorted(manifest.layers):
        raise BrokenReadout(f"expected layers in ascending order in {file}, got {manifest.layers}")
    if not isinstance(getattr(torch, manifest.dtype, None), torch.dtype):
        raise BrokenReadout(f"expected an element type such as float32 in {file}, got {manifest.dtype!r}")
    return manifest


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def decoder_layers(model: Any) -> Any:
    """The decoder layers of a causal model of transformers' or vLLM's. Raises BrokenReadout."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None:
        raise BrokenReadout(f"expected decoder layers in {type(model).__name__}'s `model.layers`, found none")
    return layers
