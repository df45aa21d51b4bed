"""Recipes for merging: which inputs, by which method, with which parameters for which tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from understudy.weights.errors import WeightsError
from understudy.weights.heads import layer_of
from understudy.weights.methods import METHODS, TensorSettings
from understudy.weights.trimming import Rescale


class RecipeError(WeightsError, ValueError):
    """A recipe that cannot be followed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter's value, or its values from first to last layer, for tensors whose name holds `filter`."""

    values: tuple[float, ...] | tuple[bool, ...]
    filter: str | None = None

    def fits(self, name: str) -> bool:
        return self.filter is None or self.filter == "*" or self.filter in name

    def at(self, t: float) -> float | bool:
        """The value at `t` between first (0) and last (1): interpolated, switches not."""
        place = t * (len(self.values) - 1)
        before = int(place)
        if isinstance(self.values[0], bool):
            return self.values[before]
        after = min(len(self.values) - 1, before + 1)
        return (1 - (place - before)) * self.values[before] + (place - before) * self.values[after]


Settings = Mapping[str, tuple[Setting, ...]]


@dataclass(frozen=True, slots=True)
class RecipeInput:
    """A model directory or a task vector, with parameters of its own."""

    path: Path
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecipeSlice:
    """Some of the layers, or all (None), from which inputs and with which parameters."""

    inputs: tuple[RecipeInput, ...]
    layers: tuple[int, int] | None = None
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole merge. `dtype` is the element type of the arithmetic, `out_dtype` that of the result.

    Without `dtype` the arithmetic is in float32 and the result is stored as the base is. `rescale` says what
    the switch of that name does.
    """

    method: str
    slices: tuple[RecipeSlice, ...]
    base: Path | None = None
    settings: Settings = field(default_factory=dict)
    dtype: torch.dtype | None = None
    out_dtype: torch.dtype | None = None
    rescale: Rescale = "l1"
    seed: int = 0

    @property
    def inputs(self) -> tuple[Path, ...]:
        return tuple(given.path for given in self.slices[0].inputs)

    def check_layers(self, layers: int) -> None:
        """Raises RecipeError unless the slices are the layers 0 to `layers`, each once and in order."""
        if self.slices[0].layers is None:
            return
        ranges = [list(piece.layers or ()) for piece in self.slices]
        covered = [layer for start, end in ranges for layer in range(start, end)]
        if covered != list(range(layers)):
            raise RecipeError(
                f"slices: expected layer ranges that cover layers 0 to {layers} in order, got {ranges}: "
                "layers are merged where they are, not left out, repeated or moved"
            )

    def settings_for(self, name: str, layers: int) -> TensorSettings:
        """The parameters for one tensor of a model of `layers` layers; raises RecipeError for want of one."""
        piece, t = self._place(name, layers)
        kind = METHODS[self.method]
        shared = (piece.settings, self.settings)

        def number(parameter: str, default: float | None, own: Settings | None = None) -> float:
            scopes = shared if own is None else (own, *shared)
            return float(_resolve(parameter, scopes, name, t, default))

        normalize = _resolve("normalize", shared, name, t, kind.normalize)
        rescale = _resolve("rescale", shared, name, t, kind.rescale)
        needs_weight = "weight" in kind.parameters
        return TensorSettings(
            weights=tuple(number("weight", None, given.settings) for given in piece.inputs)
            if needs_weight
            else (),
            densities=tuple(number("density", 1.0, given.settings) for given in piece.inputs),
            normalize=bool(normalize),
            scale=number("lambda", 1.0),
            t=0.0 if needs_weight else number("t", None),
            rescale=self.rescale if rescale else "none",
            seed=self.seed,
        )

    def _place(self, name: str, layers: int) -> tuple[RecipeSlice, float]:
        """The slice that a tensor belongs to, and how far into it its layer lies."""
        layer = layer_of(name)
        if layer is None:
            return self.slices[0 if "embed" in name else -1], 0.0
        for piece in self.slices:
            start, end = piece.layers or (0, layers)
            if start <= layer < end:
                return piece, (layer - start) / (end - start - 1) if end - start > 1 else 1.0
        raise RecipeError(f"{name}: expected a slice that holds layer {layer}, there is none")


def constant(**values: float | bool) -> Settings:
    """Settings that are the same for every tensor."""
    return {name.rstrip("_"): (Setting((value,)),) for name, value in values.items()}


def _resolve(
    name: str, scopes: Sequence[Settings], tensor: str, t: float, default: float | bool | None
) -> float | bool:
    for scope in scopes:
        for setting in scope.get(name, ()):
            if setting.fits(tensor):
                return setting.at(t)
    if default is None:
        raise RecipeError(f"expected a value of {name} for {tensor}: no setting fits it")
    return default
