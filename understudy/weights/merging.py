"""Merging models and task vectors: one tensor after the other, in runs, so memory does not grow with them."""

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from understudy.weights.errors import WeightsMismatch
from understudy.weights.heads import layer_of
from understudy.weights.methods import METHODS, MergeSource, Slab
from understudy.weights.publishing import ModelWriter, new_model
from understudy.weights.recipes import Recipe, RecipeError, RecipeInput, RecipeSlice, constant
from understudy.weights.stored import StoredTensors, StoredWriter, TensorKind, new_file
from understudy.weights.vectors import (
    VectorOrigin,
    check_finite,
    check_same_kinds,
    fingerprint,
    fingerprint_weights,
    is_vector,
    read_origin,
    runs,
)


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge wrote.

    `vector`: the result is a task vector. `strangers` are vectors taken from other weights than the base.
    """

    output: Path
    method: str
    vector: bool
    tensors: int
    elements: int
    seconds: float
    strangers: tuple[Path, ...]


def merge(recipe: Recipe, output: Path) -> MergeReport:
    """Carry out a recipe and write a model directory, or a task vector when all that goes in are vectors.

    Raises WeightsMismatch when inputs do not fit together, RecipeError, NotTensors, NotFinite, AlreadyThere;
    then nothing is left behind.
    """
    began = time.monotonic()
    with ExitStack() as opened:
        base = opened.enter_context(StoredTensors.open(recipe.base)) if recipe.base else None
        sources = []
        for path in recipe.inputs:
            stored = opened.enter_context(StoredTensors.open(path))
            sources.append(MergeSource(stored, is_vector(stored)))
        template = _template(recipe, base, sources)
        _check(recipe, template, base, sources)
        kinds = _kinds(recipe, template, vector=base is None and sources[0].vector)
        note = {"merge": _describe(recipe)}
        writer: StoredWriter | ModelWriter
        if base is None and sources[0].vector:
            writer = opened.enter_context(
                new_file(output, kinds, {**_origin(sources, output).metadata(), **note})
            )
            strangers: tuple[Path, ...] = ()
        else:
            strangers = _strangers(base, sources)
            writer = opened.enter_context(new_model(output, template, kinds, {"format": "pt", **note}))
        _merge_all(recipe, base, sources, kinds, writer)
        for held in filter(None, (base, *(source.stored for source in sources))):
            held.check_unchanged()
    return MergeReport(
        output=output,
        method=recipe.method,
        vector=base is None and sources[0].vector,
        tensors=len(kinds),
        elements=sum(kind.elements for kind in kinds.values()),
        seconds=time.monotonic() - began,
        strangers=strangers,
    )


def apply_recipe(vector: Path, base: Path, scale: float) -> Recipe:
    """The recipe that adds `scale` times a vector to a model."""
    piece = RecipeSlice((RecipeInput(vector, constant(weight=scale)),))
    return Recipe("task_arithmetic", (piece,), base=base)


def _merge_all(
    recipe: Recipe,
    base: StoredTensors | None,
    sources: list[MergeSource],
    kinds: dict[str, TensorKind],
    writer: StoredWriter | ModelWriter,
) -> None:
    method = METHODS[recipe.method].run
    layers = _layers(kinds)
    recipe.check_layers(layers)
    for name, kind in kinds.items():
        if not kind.dtype.is_floating_point:
            _copy(name, kind, base, sources, writer)
            continue
        compute = recipe.dtype or _compute(base or sources[0].stored, name)
        for start, run in method(Slab(name, base, sources, compute), recipe.settings_for(name, layers)):
            stored = run.to(kind.dtype)
            check_finite(name, stored)
            writer.write(name, start, stored)


def _template(recipe: Recipe, base: StoredTensors | None, sources: list[MergeSource]) -> StoredTensors:
    """The input whose tensors and files the result has."""
    if base is not None:
        if is_vector(base) or not base.path.is_dir():
            raise RecipeError(f"expected a model directory as the base, got {base.path}")
        return base
    vectors = [source.vector for source in sources]
    if METHODS[recipe.method].of_differences and not all(vectors):
        raise RecipeError(
            f"{recipe.method} merges differences from a base: name the base model (base_model, --base)"
        )
    if any(vectors) and not all(vectors):
        raise RecipeError("vectors and models together need a base model that the vectors are added to")
    return sources[0].stored


def _check(
    recipe: Recipe, template: StoredTensors, base: StoredTensors | None, sources: list[MergeSource]
) -> None:
    """Raises WeightsMismatch unless all inputs fit the template; element types may differ with a dtype."""
    if recipe.method == "slerp" and len(sources) != 2:
        raise RecipeError(f"slerp goes from one input to one other, got {len(sources)}")
    kind_of_model = None if is_vector(template) else fingerprint(template.path)
    for source in sources:
        stored = source.stored
        if source.vector:
            origin = read_origin(stored)
            kind_of_model = kind_of_model or origin.architecture
            if origin.architecture != kind_of_model:
                raise WeightsMismatch(
                    f"{stored.path} is a vector of another model (another architecture, or other names or "
                    f"shapes) than {template.path}"
                )
        elif not stored.path.is_dir():
            raise RecipeError(f"expected a model directory or a task vector, got {stored.path}")
        elif recipe.dtype is None:
            check_same_kinds(template, stored)
        if stored.path.is_dir() and fingerprint(stored.path) != kind_of_model:
            raise WeightsMismatch(
                f"{stored.path} is another model (another architecture, or other names or shapes) "
                f"than {template.path}"
            )


def _kinds(recipe: Recipe, template: StoredTensors, *, vector: bool) -> dict[str, TensorKind]:
    chosen = recipe.out_dtype or (None if vector else recipe.dtype)
    return {
        name: replace(kind, dtype=chosen) if chosen and kind.dtype.is_floating_point else kind
        for name, kind in template.kinds.items()
    }


def _compute(stored: StoredTensors, name: str) -> torch.dtype:
    return torch.float64 if stored.kinds[name].dtype == torch.float64 else torch.float32


def _layers(kinds: dict[str, TensorKind]) -> int:
    numbers = [number for number in map(layer_of, kinds) if number is not None]
    return max(numbers) + 1 if numbers else 0


def _copy(
    name: str,
    kind: TensorKind,
    base: StoredTensors | None,
    sources: list[MergeSource],
    writer: StoredWriter | ModelWriter,
) -> None:
    """A tensor of whole numbers: the same everywhere, or an error."""
    models = [held for held in (base, *(s.stored for s in sources if not s.vector)) if held is not None]
    for _, start, stop in runs({name: kind}):
        run = models[0].read(name, start, stop)
        for other in models[1:]:
            if not torch.equal(run, other.read(name, start, stop)):
                raise WeightsMismatch(
                    f"{name} holds {kind.dtype}, which cannot be merged, and differs in {other.path}"
                )
        writer.write(name, start, run)


def _strangers(base: StoredTensors | None, sources: list[MergeSource]) -> tuple[Path, ...]:
    vectors = [source.stored for source in sources if source.vector]
    if base is None or not vectors:
        return ()
    found = fingerprint_weights(base)
    return tuple(stored.path for stored in vectors if read_origin(stored).base != found)


def _origin(sources: list[MergeSource], output: Path) -> VectorOrigin:
    origins = [read_origin(source.stored) for source in sources]
    bases = {origin.base for origin in origins}
    return VectorOrigin(
        before=" + ".join(dict.fromkeys(origin.before for origin in origins)),
        after=output.name,
        architecture=origins[0].architecture,
        base=bases.pop() if len(bases) == 1 else "",
    )


def _describe(recipe: Recipe) -> str:
    """The recipe as JSON, for the metadata of what it made."""

    def settings(held: object) -> object:
        if isinstance(held, dict):
            return {
                name: [{"value": list(one.values), "filter": one.filter} for one in given]
                for name, given in held.items()
            }
        return held

    return json.dumps(
        {
            "method": recipe.method,
            "base": str(recipe.base) if recipe.base else None,
            "settings": settings(recipe.settings),
            "slices": [
                {
                    "layers": piece.layers,
                    "settings": settings(piece.settings),
                    "inputs": [
                        {"path": str(given.path), "settings": settings(given.settings)}
                        for given in piece.inputs
                    ],
                }
                for piece in recipe.slices
            ],
            "dtype": str(recipe.dtype),
            "out_dtype": str(recipe.out_dtype),
            "rescale": recipe.rescale,
            "seed": recipe.seed,
        }
    )
