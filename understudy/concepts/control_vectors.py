"""A concept's directions as a control vector that llama.cpp adds to the stream: a GGUF file.

The file says `general.architecture` = `controlvector`, `controlvector.model_hint` and
`controlvector.layer_count`, and has one fp32 tensor `direction.<n>` of [hidden size] for each layer.

Which layer n is: llama.cpp adds `direction.n` to the stream behind block n, counted from 0 (`build_cvec(cur,
il)`, by llama-adapter.cpp's `tensor_for(il)`), and so does repeng (vgel), by a hook on decoder layer n. Our
layer i is the stream behind decoder layer i, counted from 0 too: it is `direction.i`. But llama.cpp has no
place for `direction.0`: its loader refuses that name ("invalid (zero) direction tensor layer index"), so what
is behind layer 0 cannot be written. The loader reads none of the metadata. (llama.cpp's own cvector-generator
numbers directions one higher than the block that they were found behind.)
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from understudy.concepts.errors import ConceptError
from understudy.concepts.readouts import narrow
from understudy.engine import Directions

ARCHITECTURE = "controlvector"
FIRST_LAYER = 1
"""The first that llama.cpp can steer behind."""

_SUFFIXES = ("forcausallm", "forconditionalgeneration", "text")
_ELSEWHERE = {
    "cohere": "command-r",
    "deepseekv2": "deepseek2",
    "deepseekv3": "deepseek2",
    "mistral": "llama",
    "mixtral": "llama",
    "phi": "phi2",
}
"""Architectures of transformers that llama.cpp runs by another name (its convert_hf_to_gguf.py)."""


class CannotExport(ConceptError, ValueError):
    """Directions, a model, a strength or a file that no control vector can be written with."""


@dataclass(frozen=True, slots=True)
class ControlVector:
    """What was written: the length of each layer's vector. `left_out` are layers without a place there."""

    file: Path
    concept: str
    model_hint: str
    lengths: Mapping[int, float]
    left_out: tuple[int, ...]


def write_control_vector(
    directions: Directions,
    concept: str,
    file: Path,
    *,
    model_hint: str,
    strength: float | None = None,
    in_lengths: bool = False,
    layers: Sequence[int] = (),
) -> ControlVector:
    """Write what steering by a concept adds behind each layer, or behind `layers`, to a new file.

    Vectors are multiplied by `strength`, with `in_lengths` by so many times the length of the concept's
    difference of means at the layer; without a strength by that length, or by 1 where no statistics tell it.
    Layer 0 is left out, and refused when it is asked for. `model_hint` is llama.cpp's name of the model's
    architecture. Raises UnknownConcept, UnknownLayer or CannotExport.
    """
    _require_architecture(model_hint)
    chosen = narrow(directions, concepts=(concept,), layers=layers)
    left_out = tuple(layer for layer in chosen.layers if layer < FIRST_LAYER)
    if left_out and (layers or len(left_out) == len(chosen.layers)):
        raise CannotExport(
            f"expected layers from {FIRST_LAYER} on, got {list(chosen.layers)}: llama.cpp has no place for a "
            "vector behind the first layer, 0"
        )
    factors = _factors(chosen, strength, in_lengths)
    vectors_h = {
        layer: factors[layer] * chosen.vectors_ch[layer][0].cpu()
        for layer in chosen.layers
        if layer not in left_out
    }
    lengths = {layer: vector_h.norm().item() for layer, vector_h in vectors_h.items()}
    if not all(0 < length < math.inf for length in lengths.values()):
        raise CannotExport(
            f"expected vectors of a length above 0 that fp32 can hold, got {lengths}: choose another strength"
        )
    _write(file, concept, model_hint, vectors_h)
    return ControlVector(file, concept, model_hint, lengths, left_out)


def model_hint_of(architecture: str) -> str:
    """llama.cpp's name of an architecture of transformers: `Qwen3ForCausalLM` and `qwen3` are `qwen3`.

    Raises CannotExport for one that the installed `gguf` does not know.
    """
    name = _fold(architecture)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    found = _ELSEWHERE.get(name) or {_fold(known): known for known in _architectures()}.get(name)
    if found is None:
        raise CannotExport(
            f"expected an architecture that llama.cpp runs, got {architecture!r}: say by which name it "
            "knows the model (`general.architecture` of the model's GGUF file)"
        )
    return found


def _require_architecture(model_hint: str) -> None:
    known = _architectures()
    if model_hint not in known:
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(model_hint, known, n=4, cutoff=0.4)) or "llama, qwen3, gemma3"
        raise CannotExport(
            f"expected llama.cpp's name of the model's architecture, such as {near}, got {model_hint!r}: it "
            "is `general.architecture` of the model's GGUF file"
        )


def _architectures() -> tuple[str, ...]:
    from gguf import MODEL_ARCH_NAMES

    return tuple(MODEL_ARCH_NAMES.values())


def _fold(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _factors(directions: Directions, strength: float | None, in_lengths: bool) -> dict[int, float]:
    """What the one concept's vector is multiplied by behind each layer."""
    statistics = directions.statistics
    if in_lengths and statistics is None:
        raise CannotExport(
            "expected a strength that is not counted in lengths: these directions have no `statistics` in "
            "readout.json to say how long a difference of means is"
        )
    if strength is not None and not (math.isfinite(strength) and strength):
        raise CannotExport(f"expected a finite strength other than 0, got {strength}")
    if statistics is None or not (in_lengths or strength is None):
        return dict.fromkeys(directions.layers, 1.0 if strength is None else strength)
    times = 1.0 if strength is None else strength
    return {layer: times * norms[0] for layer, norms in zip(directions.layers, statistics.norms, strict=True)}


def _write(file: Path, concept: str, model_hint: str, vectors_h: Mapping[int, torch.Tensor]) -> None:
    """Whole or not at all."""
    from gguf import GGUFWriter

    if file.exists():
        raise CannotExport(f"{file} is already there: name another file, or remove it first")
    if not file.parent.is_dir():
        raise CannotExport(f"expected a folder {file.parent} to write {file.name} to: there is none")
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        writer = GGUFWriter(aside, ARCHITECTURE)
        try:
            writer.add_name(concept)
            writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint)
            writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors_h))
            for layer, vector_h in vectors_h.items():
                writer.add_tensor(f"direction.{layer}", vector_h.float().contiguous().numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.rename(file)
    finally:
        aside.unlink(missing_ok=True)
