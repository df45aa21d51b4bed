"""Recipes as YAML files, in mergekit's form (0.1.5).

Read is what concerns the methods there are: whole models or slices that keep the layers as they are,
filters, gradients over the layers. A key that is not understood is an error. Paths are local; an input may
also be a task vector's file.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from understudy.weights.methods import METHODS
from understudy.weights.recipes import Recipe, RecipeError, RecipeInput, RecipeSlice, Setting, Settings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SWITCHES = frozenset(("normalize", "rescale", "int8_mask"))
_PER_INPUT = frozenset(("weight", "density"))
_TOP = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
)


def read_recipe(file: Path) -> Recipe:
    """Read a mergekit recipe. Raises RecipeError naming what is not understood."""
    try:
        held = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"expected a YAML recipe in {file}: {error}") from error
    return parse_recipe(held)


def parse_recipe(held: Any) -> Recipe:
    """A recipe from plain data, as its YAML holds it."""
    top = _mapping(held, "the recipe", _TOP)
    method = top.get("merge_method")
    if not isinstance(method, str) or method not in METHODS:
        raise RecipeError(f"merge_method: expected one of {', '.join(METHODS)}, got {method!r}")
    if top.get("tokenizer_source", "base") != "base":
        raise RecipeError("tokenizer_source: expected 'base', for the base's tokenizer is kept")
    if ("models" in top) == ("slices" in top):
        raise RecipeError("expected either models or slices in the recipe")
    base = _path(top["base_model"], "base_model") if top.get("base_model") is not None else None
    allowed = METHODS[method].parameters
    if "models" in top:
        slices = [RecipeSlice(tuple(_inputs(top["models"], "models", allowed, ())))]
    else:
        slices = [
            _slice(piece, f"slices[{n}]", allowed)
            for n, piece in enumerate(_sequence(top["slices"], "slices"))
        ]
    return Recipe(
        method=method,
        slices=tuple(_arranged(piece, method, base) for piece in _same_inputs(slices)),
        base=None if method == "slerp" else base,
        settings=_settings(top.get("parameters"), "parameters", allowed),
        dtype=_dtype(top.get("dtype"), "dtype"),
        out_dtype=_dtype(top.get("out_dtype"), "out_dtype"),
    )


def _arranged(piece: RecipeSlice, method: str, base: Path | None) -> RecipeSlice:
    """The inputs as the method takes them: slerp from the base to the other; no difference of the base."""
    inputs = piece.inputs
    if method == "slerp":
        if base is None:
            raise RecipeError("base_model: slerp needs it: the end where t is 0")
        others = [given for given in inputs if given.path != base]
        if len(others) != 1 or len(inputs) > 2:
            raise RecipeError(
                f"slerp goes from base_model to one other model, got {[str(given.path) for given in inputs]}"
            )
        inputs = (RecipeInput(base), others[0])
    elif METHODS[method].of_differences:
        inputs = tuple(given for given in inputs if given.path != base)
    elif base is not None and all(given.path != base for given in inputs):
        vectors = all(given.path.is_file() for given in inputs)
        if not vectors:
            raise RecipeError(
                f"base_model: {method} takes it only when it is one of the models, with a weight"
            )
    if not inputs:
        raise RecipeError("expected at least one model beside base_model")
    return RecipeSlice(inputs, piece.layers, piece.settings)


def _same_inputs(slices: Sequence[RecipeSlice]) -> Sequence[RecipeSlice]:
    if not slices:
        raise RecipeError("slices: expected at least one")
    first = [given.path for given in slices[0].inputs]
    for n, piece in enumerate(slices):
        if [given.path for given in piece.inputs] != first:
            raise RecipeError(f"slices[{n}]: expected the models of the first slice, in the same order")
    return slices


def _slice(held: Any, where: str, allowed: Sequence[str]) -> RecipeSlice:
    piece = _mapping(held, where, ("sources", "parameters"))
    sources = _sequence(piece.get("sources"), f"{where}.sources")
    ranges = set()
    for n, source in enumerate(sources):
        found = source.get("layer_range") if isinstance(source, Mapping) else None
        if not (isinstance(found, list) and len(found) == 2 and all(isinstance(end, int) for end in found)):
            raise RecipeError(f"{where}.sources[{n}].layer_range: expected [first, end], got {found!r}")
        ranges.add((found[0], found[1]))
    if len(ranges) != 1:
        raise RecipeError(f"{where}: expected the same layer_range for all sources, got {sorted(ranges)}")
    inputs = tuple(_inputs(sources, f"{where}.sources", allowed, ("layer_range",)))
    return RecipeSlice(
        inputs, ranges.pop(), _settings(piece.get("parameters"), f"{where}.parameters", allowed)
    )


def _inputs(held: Any, where: str, allowed: Sequence[str], more: Sequence[str]) -> Iterator[RecipeInput]:
    own = tuple(name for name in allowed if name in _PER_INPUT)
    for n, given in enumerate(_sequence(held, where)):
        entry = _mapping(given, f"{where}[{n}]", ("model", "parameters", *more))
        path = _path(entry.get("model"), f"{where}[{n}].model")
        yield RecipeInput(path, _settings(entry.get("parameters"), f"{where}[{n}].parameters", own))


def _settings(held: Any, where: str, allowed: Sequence[str]) -> Settings:
    found = _mapping({} if held is None else held, where, allowed)
    return {name: tuple(_setting(name, value, f"{where}.{name}")) for name, value in found.items()}


def _setting(name: str, held: Any, where: str) -> Iterator[Setting]:
    if isinstance(held, Mapping):
        held = [held]
    if isinstance(held, list) and held and all(isinstance(entry, Mapping) for entry in held):
        for n, entry in enumerate(held):
            part = _mapping(entry, f"{where}[{n}]", ("value", "filter"))
            values = _values(name, part.get("value"), f"{where}[{n}].value")
            chosen = part.get("filter")
            if chosen is not None and not isinstance(chosen, str):
                raise RecipeError(f"{where}[{n}].filter: expected a part of tensors' names, got {chosen!r}")
            yield Setting(values, chosen)
    else:
        yield Setting(_values(name, held, where))


def _values(name: str, held: Any, where: str) -> tuple[float, ...] | tuple[bool, ...]:
    values = held if isinstance(held, list) else [held]
    if name in _SWITCHES and values and all(isinstance(value, bool) for value in values):
        return tuple(values)
    try:
        if name in _SWITCHES or not values or any(isinstance(value, bool) for value in values):
            raise TypeError
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        kind = "true or false" if name in _SWITCHES else "a number"
        raise RecipeError(f"{where}: expected {kind} or a list of them, got {held!r}") from None


def _dtype(held: Any, where: str) -> torch.dtype | None:
    if held is not None and held not in DTYPES:
        raise RecipeError(f"{where}: expected one of {', '.join(DTYPES)}, got {held!r}")
    return None if held is None else DTYPES[held]


def _path(held: Any, where: str) -> Path:
    if isinstance(held, str) and Path(held).exists():
        return Path(held)
    raise RecipeError(
        f"{where}: expected a local model directory or a task vector's file, got {held!r}; "
        "nothing is downloaded, and adapters (path+adapter) are not read"
    )


def _mapping(held: Any, where: str, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(held, Mapping):
        raise RecipeError(f"{where}: expected keys and values, got {held!r}")
    for key in held:
        if key not in known:
            raise RecipeError(f"{where}: unsupported key {key!r}; supported here: {', '.join(known)}")
    return held


def _sequence(held: Any, where: str) -> Sequence[Any]:
    if not isinstance(held, list) or not held:
        raise RecipeError(f"{where}: expected a list with at least one entry, got {held!r}")
    return held
