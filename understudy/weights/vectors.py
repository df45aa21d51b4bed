"""Task vectors: a behaviour as the difference between two states of the weights (arXiv 2212.04089).

A vector is a safetensors file that says in its metadata where it comes from, and for which model it is.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from understudy.weights.errors import WeightsError, WeightsMismatch
from understudy.weights.heads import read_config
from understudy.weights.history import WeightHistory
from understudy.weights.methods import RUN_ELEMENTS
from understudy.weights.movement import pair_streams
from understudy.weights.publishing import new_model
from understudy.weights.stored import NotTensors, StoredTensors, TensorKind, new_file

FORMAT = "understudy.task-vector.1"


class NotFinite(WeightsError, ArithmeticError):
    """Weights or differences that hold NaN or infinity."""


@dataclass(frozen=True, slots=True)
class VectorOrigin:
    """Where a vector comes from: `before` and `after` in words, and for which model it is.

    `architecture` is a fingerprint of the model's kind, names and shapes; `base` one of the weights that the
    vector starts from (empty when it was merged from vectors that start from different ones).
    """

    before: str
    after: str
    architecture: str
    base: str

    def metadata(self) -> dict[str, str]:
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True, slots=True)
class ModelState:
    """The weights of a model directory: as its files are, or as they were at a weight commit.

    `commit` None is the files; INITIAL the model as it came.
    """

    directory: Path
    commit: str | None = None

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors, one at a time."""
        if self.commit is not None:
            history = WeightHistory.view(self.directory)
            yield from history.tensors_at(None if self.commit == INITIAL else self.commit)
            return
        with StoredTensors.open(self.directory) as stored:
            yield from stored.tensors()
            stored.check_unchanged()

    def __str__(self) -> str:
        return f"{self.directory}{'' if self.commit is None else f'@{self.commit}'}"


INITIAL = "initial"


@dataclass(frozen=True, slots=True)
class VectorReport:
    """A vector that was written: 2-norms of the difference and of the weights it starts from."""

    origin: VectorOrigin
    tensors: int
    elements: int
    norm: float
    base_norm: float


def make_vector(
    before: ModelState, after: ModelState, output: Path, *, dtype: torch.dtype | None = None
) -> VectorReport:
    """Write after - before to the safetensors file `output`, tensor by tensor.

    Stored in float32 (float64 for float64 weights) unless `dtype` says otherwise: applied to `before` it then
    gives `after` again up to that rounding. Tensors that are no floating-point numbers must be the same on
    both sides, and are left out. Raises WeightsMismatch, NotFinite, NotTensors, AlreadyThere.
    """
    with StoredTensors.open(before.directory) as stored, StoredTensors.open(after.directory) as other:
        check_same_kinds(stored, other)
        kinds = {
            name: replace(kind, dtype=dtype or _wide(kind.dtype))
            for name, kind in stored.kinds.items()
            if kind.dtype.is_floating_point
        }
    origin = VectorOrigin(
        str(before),
        str(after),
        fingerprint(before.directory),
        fingerprint_of(dict(_hashes(before.tensors()))),
    )
    squares = base_squares = 0.0
    with new_file(output, kinds, origin.metadata()) as writer:
        for name, old, new in pair_streams(before.tensors(), after.tensors()):
            if name not in kinds:
                _check_equal(name, old, new)
                continue
            flat, moved = old.view(-1), new.view(-1)
            for start in range(0, flat.numel(), RUN_ELEMENTS):
                base = flat[start : start + RUN_ELEMENTS].to(_wide(old.dtype))
                run = moved[start : start + RUN_ELEMENTS].to(_wide(old.dtype)) - base
                squares += float(run.double().square().sum())
                base_squares += float(base.double().square().sum())
                written = run.to(kinds[name].dtype)
                check_finite(name, written)
                writer.write(name, start, written)
    return VectorReport(
        origin, len(kinds), sum(kind.elements for kind in kinds.values()), squares**0.5, base_squares**0.5
    )


def negate_vector(vector: Path, output: Path) -> VectorOrigin:
    """Write the vector that leads the other way. Raises NotTensors, AlreadyThere."""
    with StoredTensors.open(vector) as stored:
        origin = read_origin(stored)
        turned = replace(origin, before=origin.after, after=origin.before)
        with new_file(output, stored.kinds, turned.metadata()) as writer:
            for name, start, stop in runs(stored.kinds):
                writer.write(name, start, -stored.read(name, start, stop))
            stored.check_unchanged()
    return turned


def write_state(state: ModelState, output: Path) -> None:
    """Write a state as a plain model directory of its own."""
    with (
        StoredTensors.open(state.directory) as template,
        new_model(output, template, template.kinds, {"format": "pt"}) as writer,
    ):
        for name, tensor in state.tensors():
            writer.write(name, 0, tensor.reshape(-1))


def read_origin(stored: StoredTensors) -> VectorOrigin:
    """Where a vector comes from; raises NotTensors when the file is not a task vector."""
    metadata = stored.metadata
    names = [field.name for field in fields(VectorOrigin)]
    if metadata.get("format") != FORMAT or any(name not in metadata for name in names):
        raise NotTensors(
            f"expected a task vector in {stored.path} (safetensors with the format {FORMAT!r}), "
            f"its format is {metadata.get('format')!r}: make one with `understudy weights vector`"
        )
    return VectorOrigin(**{name: metadata[name] for name in names})


def is_vector(stored: StoredTensors) -> bool:
    return stored.metadata.get("format") == FORMAT


def fingerprint(directory: Path) -> str:
    """What makes two models of one kind: architecture, names and shapes, not element types or values."""
    with StoredTensors.open(directory) as stored:
        kinds = {name: kind.shape for name, kind in stored.kinds.items() if kind.dtype.is_floating_point}
    config = read_config(directory) or {}
    described = json.dumps([config.get("model_type"), sorted(kinds.items())])
    return hashlib.sha256(described.encode()).hexdigest()


def fingerprint_of(hashes: Mapping[str, str]) -> str:
    """One fingerprint of all weights, from the SHA-256 of each tensor's bytes."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()


def fingerprint_weights(stored: StoredTensors) -> str:
    """The fingerprint of a directory's weights, read run by run."""
    hashes = {name: hashlib.sha256() for name in stored.kinds}
    for name, start, stop in runs(stored.kinds):
        hashes[name].update(_raw(stored.read(name, start, stop)))
    return fingerprint_of({name: found.hexdigest() for name, found in hashes.items()})


def check_same_kinds(first: StoredTensors, second: StoredTensors) -> None:
    """Raises WeightsMismatch unless both hold tensors of the same names, shapes and element types."""
    alone = sorted(first.kinds.keys() ^ second.kinds.keys())
    if alone:
        raise WeightsMismatch(
            f"expected the same tensors in {first.path} and {second.path}, "
            f"{alone[:4]} ({len(alone)} in all) are in one only: are they the same model?"
        )
    for name, kind in first.kinds.items():
        if kind != second.kinds[name]:
            raise WeightsMismatch(
                f"{name}: expected one shape and element type, "
                f"{first.path} has {kind}, {second.path} has {second.kinds[name]}"
            )


def check_finite(name: str, run: torch.Tensor) -> None:
    if not bool(torch.isfinite(run).all()):
        raise NotFinite(f"{name}: expected finite numbers, got NaN or infinity: nothing was written")


def runs(kinds: Mapping[str, TensorKind]) -> Iterator[tuple[str, int, int]]:
    """(name, start, stop) over all tensors, in runs of bounded size."""
    for name, kind in kinds.items():
        for start in range(0, kind.elements, RUN_ELEMENTS):
            yield name, start, min(start + RUN_ELEMENTS, kind.elements)


def _hashes(tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, str]]:
    for name, tensor in tensors:
        yield name, hashlib.sha256(_raw(tensor)).hexdigest()


def _raw(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().contiguous().view(-1)
    return memoryview(flat.view(torch.uint8).numpy().data)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check_equal(name: str, old: torch.Tensor, new: torch.Tensor) -> None:
    if not torch.equal(old, new):
        raise WeightsMismatch(
            f"{name} holds {old.dtype}, which has no differences, and is not the same in both"
        )
