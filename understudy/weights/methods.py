"""How weights are merged, run by run: task arithmetic, TIES, DARE, linear and slerp.

Each method reads one tensor of all inputs as a `Slab` and yields the merged tensor as (start, run). In the
element type of the merge the arithmetic and its order are those of mergekit 0.1.5.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from understudy.weights.stored import StoredTensors
from understudy.weights.trimming import Rescale, Sparsify, keep_largest, keep_random

RUN_ELEMENTS = 1 << 18
"""Elements of one run: a megabyte in float32, so that the runs of a few inputs stay in cache."""

_COLLINEAR = 0.9995
"""Cosine beyond which slerp takes the straight line: the arc's sine is lost to rounding; mergekit's."""


@dataclass(frozen=True, slots=True)
class MergeSource:
    """One input: a model's values, or a task vector's differences."""

    stored: StoredTensors
    vector: bool


@dataclass(frozen=True, slots=True)
class TensorSettings:
    """The parameters of a merge for one tensor; weights and densities per input.

    `t` is slerp's place between its two ends, `scale` what recipes call lambda.
    """

    weights: tuple[float, ...] = ()
    densities: tuple[float, ...] = ()
    normalize: bool = False
    scale: float = 1.0
    t: float = 0.0
    rescale: Rescale = "none"
    seed: int = 0


class Slab:
    """One tensor of the base and of all inputs, read in runs as elements of type `compute`."""

    def __init__(
        self, name: str, base: StoredTensors | None, sources: Sequence[MergeSource], compute: torch.dtype
    ) -> None:
        self.name = name
        self.compute = compute
        self.elements = (base or sources[0].stored).kinds[name].elements
        self.count = len(sources)
        self._base = base
        self._sources = sources
        self._last: tuple[int, torch.Tensor] | None = None

    def spans(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self.elements, RUN_ELEMENTS):
            yield start, min(start + RUN_ELEMENTS, self.elements)

    def base(self, start: int, stop: int) -> torch.Tensor:
        """The base's run; zeros when vectors are merged among themselves."""
        if self._last is None or self._last[0] != start:
            if self._base is None:
                run = torch.zeros(stop - start, dtype=self.compute)
            else:
                run = self._base.read(self.name, start, stop).to(self.compute)
            self._last = (start, run)
        return self._last[1]

    def difference(self, place: int, start: int, stop: int) -> torch.Tensor:
        """How an input differs from the base."""
        source = self._sources[place]
        run = source.stored.read(self.name, start, stop).to(self.compute)
        return run if source.vector else run - self.base(start, stop)

    def differences(self, place: int) -> Iterator[torch.Tensor]:
        for start, stop in self.spans():
            yield self.difference(place, start, stop)

    def value(self, place: int, start: int, stop: int) -> torch.Tensor:
        """An input's own values; a vector's are those of the base moved by it."""
        source = self._sources[place]
        run = source.stored.read(self.name, start, stop).to(self.compute)
        return run + self.base(start, stop) if source.vector and self._base is not None else run


Runs = Iterator[tuple[int, torch.Tensor]]
Method = Callable[[Slab, TensorSettings], Runs]


def task_arithmetic(slab: Slab, settings: TensorSettings) -> Runs:
    """base + scale * sum(weight * difference) (arXiv 2212.04089)."""
    return _combine(slab, settings, [None] * slab.count, elect=False)


def ties(slab: Slab, settings: TensorSettings) -> Runs:
    """Trim, elect a sign for each entry, and take the mean of those that agree (arXiv 2306.01708, section 3).

    The sign elected is that of the weighted sum; the mean is by weight (`normalize`), else it is the sum.
    Trimming is by tensor, not over the whole model as in the paper.
    """
    trims = [
        keep_largest(partial(slab.differences, place), slab.elements, density, settings.rescale)
        for place, density in enumerate(settings.densities)
    ]
    return _combine(slab, settings, trims, elect=True)


def dare(slab: Slab, settings: TensorSettings, *, elect: bool) -> Runs:
    """Drop entries at random, rescale the rest, and add (arXiv 2311.03099); `elect`: with TIES' signs."""
    drops = [
        keep_random(
            partial(slab.differences, place),
            density,
            settings.rescale,
            tensor_seed(settings.seed, place, slab.name),
        )
        for place, density in enumerate(settings.densities)
    ]
    return _combine(slab, settings, drops, elect=elect)


def linear(slab: Slab, settings: TensorSettings) -> Runs:
    """The weighted sum of the inputs, divided by the weights' sum when `normalize` (arXiv 2203.05482)."""
    wide = torch.float64 if slab.compute == torch.float64 else torch.float32
    weights = torch.tensor(settings.weights, dtype=wide)
    for start, stop in slab.spans():
        result = torch.zeros(stop - start, dtype=wide)
        for place in range(slab.count):
            result.addcmul_(slab.value(place, start, stop).to(wide), weights[place])
        if settings.normalize:
            result.div_(weights.sum())
        yield start, result.to(slab.compute)


def slerp(slab: Slab, settings: TensorSettings) -> Runs:
    """The point at `t` on the arc from the first input (t = 0) to the second, tensor by tensor.

    With angle w between the two laid flat: sin((1-t)w)/sin(w) * first + sin(tw)/sin(w) * second (Shoemake
    1985). Norms and angle are summed in float64.
    """
    squares, other_squares, product = 0.0, 0.0, 0.0
    for start, stop in slab.spans():
        first, second = slab.value(0, start, stop).double(), slab.value(1, start, stop).double()
        squares += float(first.dot(first))
        other_squares += float(second.dot(second))
        product += float(first.dot(second))
    first_share, second_share = _arc_shares(settings.t, product, math.sqrt(squares), math.sqrt(other_squares))
    wide = torch.float64 if slab.compute == torch.float64 else torch.float32
    for start, stop in slab.spans():
        run = first_share * slab.value(0, start, stop).to(wide)
        run += second_share * slab.value(1, start, stop).to(wide)
        yield start, run.to(slab.compute)


@dataclass(frozen=True, slots=True)
class MethodKind:
    """A method and what it takes.

    `parameters` are those it reads from a recipe; the first is compulsory. `of_differences`: it needs a base
    to take differences from, unless all its inputs are vectors.
    """

    run: Method
    parameters: tuple[str, ...]
    of_differences: bool = True
    normalize: bool = False
    rescale: bool = False


_DIFFERENCES = ("weight", "density", "normalize", "lambda", "rescale", "int8_mask")
METHODS: Mapping[str, MethodKind] = {
    "task_arithmetic": MethodKind(task_arithmetic, _DIFFERENCES),
    "ties": MethodKind(ties, _DIFFERENCES, normalize=True),
    "dare_linear": MethodKind(partial(dare, elect=False), _DIFFERENCES, rescale=True),
    "dare_ties": MethodKind(partial(dare, elect=True), _DIFFERENCES, rescale=True),
    "linear": MethodKind(linear, ("weight", "normalize"), of_differences=False, normalize=True),
    "slerp": MethodKind(slerp, ("t",), of_differences=False),
}
"""By the names that recipes use, with mergekit's defaults."""


def tensor_seed(seed: int, place: int, name: str) -> int:
    """The seed of one input's draws for one tensor: independent of the order in which tensors are merged."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{place}/{name}".encode()).digest()[:7], "little")


def _combine(
    slab: Slab, settings: TensorSettings, sparsify: Sequence[Sparsify | None], *, elect: bool
) -> Runs:
    weights = torch.tensor(settings.weights, dtype=slab.compute).unsqueeze(1)
    for start, stop in slab.spans():
        runs = torch.empty(slab.count, stop - start, dtype=slab.compute)
        for place, keep in enumerate(sparsify):
            run = slab.difference(place, start, stop)
            runs[place] = keep(run) if keep else run
        runs.mul_(weights)
        if elect:
            agree = runs.sign() == (runs.sum(dim=0) >= 0).to(slab.compute) * 2 - 1
            merged = (runs * agree).sum(dim=0)
            divisor = (weights * agree).sum(dim=0) if settings.normalize else None
            if divisor is not None:
                divisor[divisor == 0] = 1
        else:
            merged = runs.sum(dim=0)
            divisor = weights.sum(dim=0) if settings.normalize else None
            if divisor is not None:
                divisor[divisor.abs() < _NO_WEIGHT] = 1
        if divisor is not None:
            merged /= divisor
        if settings.scale != 1:
            merged *= settings.scale
        yield start, slab.base(start, stop) + merged


_NO_WEIGHT = 1e-8
"""Weights that cancel to less are not divided by: as mergekit."""


def _arc_shares(t: float, product: float, norm: float, other_norm: float) -> tuple[float, float]:
    cosine = max(-1.0, min(1.0, product / ((norm or 1.0) * (other_norm or 1.0))))
    if abs(cosine) > _COLLINEAR:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
