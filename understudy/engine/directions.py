"""Directions in activation space: what to read from the residual stream and what to add to it.

The format is two files in one folder: `readout.safetensors` with `layer_<index>.vectors` of shape
(concepts, hidden size), and `readout.json` with `concepts`, `layers`, `hidden_size` and `dtype`. Layer i is
the residual stream behind decoder layer i, before the last norm.

Shapes: c concepts, h hidden size.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from understudy.engine.errors import BadRequest, BrokenReadout, NoDirections
from understudy.engine.request import GenerationRequest, Steer

VECTORS_FILE = "readout.safetensors"
MANIFEST_FILE = "readout.json"

Name = Annotated[str, msgspec.Meta(min_length=1)]


class ReadoutManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`readout.json`. Further fields, such as a card's, are left alone."""

    concepts: Annotated[list[Name], msgspec.Meta(min_length=1)]
    layers: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]
    hidden_size: Annotated[int, msgspec.Meta(ge=1)]
    dtype: str


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

    def steering(self, steers: Iterable[Steer]) -> dict[int, torch.Tensor]:
        """What to add to the stream behind each layer, [h]. Raises BadRequest for an unknown name."""
        added: dict[int, torch.Tensor] = {}
        for steer in steers:
            if steer.concept not in self.concepts:
                raise BadRequest(
                    f"steer: expected a concept that is loaded ({_few(self.concepts)}), got {steer.concept!r}"
                )
            if steer.layer is not None and steer.layer not in self.vectors_ch:
                raise BadRequest(f"steer: expected a layer of {list(self.layers)}, got {steer.layer}")
            row = self.concepts.index(steer.concept)
            for layer in self.layers if steer.layer is None else (steer.layer,):
                vector = steer.strength * self.vectors_ch[layer][row]
                added[layer] = added[layer] + vector if layer in added else vector
        return added

    def read(self, layer: int, stream: torch.Tensor) -> torch.Tensor:
        """The stream's scalar products with each concept's direction: [..., h] to [..., c], in fp32."""
        return stream.float() @ self.vectors_ch[layer].T.to(stream.device)


def resolve_steering(directions: Directions | None, request: GenerationRequest) -> dict[int, torch.Tensor]:
    """What a request adds behind each layer, [h]. Raises BadRequest for what these directions do not have."""
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
