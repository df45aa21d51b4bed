"""Whether directions are worth anything: how well they tell texts apart that they were not made from.

Beside each figure stand its controls: directions drawn at random, directions of shuffled labels, the texts
without the words that name a concept, scenes that were left out, and an untrained twin of the model, which
knows words but no meaning.

Shapes: n texts, c concepts, h hidden size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from understudy.concepts.auroc import Auroc, Average, auroc, average_auroc, mean_auroc
from understudy.concepts.errors import BadRows
from understudy.concepts.methods import Method, find_direction
from understudy.concepts.reading import CorpusReading

RANDOM_DRAWS = 100
SHUFFLES = 20
RESAMPLES = 20
FOLDS = 10
"""Scenes are left out in so many groups at most."""

Range = tuple[float, float, float]
"""A mean, and the ends of the middle 95 %."""


@dataclass(frozen=True, slots=True)
class ConceptValidity:
    """One concept's: against the rest on held-out texts, without keywords, on scenes left out of training.

    `stability` is the mean cosine between the direction and those of resampled training texts.
    """

    held_out: Auroc
    keyword_free: Auroc
    transfer: Auroc | None
    stability: float


@dataclass(frozen=True, slots=True)
class LayerValidity:
    """What holds behind one layer. `random` and `shuffled` are of the average over concepts; so is `twin`,
    of a model that was never trained.
    """

    layer: int
    concepts: Mapping[str, ConceptValidity]
    average: Average
    keyword_free: Average
    transfer: Average | None
    random: Range
    shuffled: Range
    twin: Average | None = None
    twin_keyword_free: Average | None = None


@dataclass(frozen=True)
class Validity:
    """What holds behind each layer."""

    layers: Mapping[int, LayerValidity]

    @property
    def best_layer(self) -> int:
        """Where the average over concepts is highest."""
        return max(self.layers, key=lambda layer: self.layers[layer].average.value)


@dataclass(frozen=True)
class Readings:
    """What directions are made from and measured on: training texts, held-out ones, and the latter without
    the words that name a concept.
    """

    train: CorpusReading
    held_out: CorpusReading
    keyword_free: CorpusReading

    def __post_init__(self) -> None:
        missing = sorted(set(range(len(self.train.concepts))) - set(self.held_out.labels))
        if missing:
            raise BadRows(
                "expected held-out texts of every concept, found none of "
                + ", ".join(self.train.concepts[number] for number in missing)
            )


def measure_validity(
    readings: Readings,
    method: Method,
    *,
    twin: Readings | None = None,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Validity:
    """Measure every layer. `report` is told how many of how many are done. Raises BadRows."""
    found: dict[int, LayerValidity] = {}
    for layer in readings.train.layers:
        found[layer] = _measure(readings, twin, layer, method, torch.Generator().manual_seed(seed))
        if report is not None:
            report(len(found), len(readings.train.layers))
    return Validity(found)


def _measure(
    readings: Readings, twin: Readings | None, layer: int, method: Method, generator: torch.Generator
) -> LayerValidity:
    train, held_out, bare = readings.train, readings.held_out, readings.keyword_free
    vectors_ch = train.vectors(layer, method)
    held_nc, bare_nc = _scores(held_out, layer, vectors_ch), _scores(bare, layer, vectors_ch)
    apart_nc = _scores_of_scenes_left_out(train, layer, method)
    stability_c = _stability(train, layer, method, vectors_ch, generator)
    concepts = {
        name: ConceptValidity(
            _against_rest(held_nc, held_out, number),
            _against_rest(bare_nc, bare, number),
            _against_rest(apart_nc, train, number) if apart_nc[:, number].isfinite().any() else None,
            stability_c[number].item(),
        )
        for number, name in enumerate(train.concepts)
    }
    untrained = None if twin is None else _averages(twin, twin.train.vectors(layer, method), layer, generator)
    return LayerValidity(
        layer,
        concepts,
        *_averages(readings, vectors_ch, layer, generator),
        average_auroc(apart_nc, train.labels, generator) if apart_nc.isfinite().any() else None,
        _random(held_out, layer, generator),
        _shuffled(readings, layer, method, generator),
        *(untrained or (None, None)),
    )


def _scores(reading: CorpusReading, layer: int, vectors_ch: torch.Tensor) -> torch.Tensor:
    """What each text says of each concept, [n, c]."""
    return reading.activations.rows_nh[layer] @ vectors_ch.T


def _averages(
    readings: Readings, vectors_ch: torch.Tensor, layer: int, generator: torch.Generator
) -> tuple[Average, Average]:
    """Over concepts: on held-out texts, and on them without keywords."""
    held_out, bare = (
        average_auroc(_scores(reading, layer, vectors_ch), reading.labels, generator)
        for reading in (readings.held_out, readings.keyword_free)
    )
    return held_out, bare


def _against_rest(scores_nc: torch.Tensor, reading: CorpusReading, concept: int) -> Auroc:
    own = torch.tensor(reading.labels) == concept
    column = scores_nc[:, concept]
    known = column.isfinite()
    return auroc(column[own & known], column[~own & known])


def _scores_of_scenes_left_out(train: CorpusReading, layer: int, method: Method) -> torch.Tensor:
    """Each training text's scores by directions made without any text of its scene, [n, c].

    Scores of one fold are put on the scale of the others by what its training texts score. A concept that
    the other scenes do not have gets none.
    """
    names = sorted({text.scene for text in train.texts})
    fold = {name: number % FOLDS for number, name in enumerate(names)}
    folds = [fold[text.scene] for text in train.texts]
    found = torch.full((len(train.texts), len(train.concepts)), torch.nan)
    for left_out in sorted(set(folds)):
        inside = [number for number, own in enumerate(folds) if own != left_out]
        outside = [number for number, own in enumerate(folds) if own == left_out]
        rest = train.of(inside)
        for number, concept in enumerate(train.concepts):
            if 0 < rest.labels.count(number) < len(inside):
                vector_h = find_direction(rest.contrast(concept, layer), method)
                seen = rest.activations.rows_nh[layer] @ vector_h
                scores = train.activations.rows_nh[layer][outside] @ vector_h
                found[outside, number] = (scores - seen.mean()) / seen.std().clamp_min(1e-12)
    return found


def _stability(
    train: CorpusReading, layer: int, method: Method, vectors_ch: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """The mean cosine of each direction with those of training texts drawn again within their kind, [c]."""
    groups = [
        [number for number, own in enumerate(train.labels) if own == label]
        for label in sorted(set(train.labels))
    ]
    found = torch.zeros(len(train.concepts))
    for _ in range(RESAMPLES):
        drawn = [
            group[place]
            for group in groups
            for place in torch.randint(len(group), (len(group),), generator=generator).tolist()
        ]
        found += (train.of(drawn).vectors(layer, method) * vectors_ch).sum(-1)
    return found / RESAMPLES


def _random(held_out: CorpusReading, layer: int, generator: torch.Generator) -> Range:
    """The average area of directions drawn at random."""
    shape = (len(held_out.concepts), held_out.activations.rows_nh[layer].shape[1])
    draws = (torch.randn(shape, generator=generator) for _ in range(RANDOM_DRAWS))
    return _range([mean_auroc(_scores(held_out, layer, draw), held_out.labels) for draw in draws])


def _shuffled(readings: Readings, layer: int, method: Method, generator: torch.Generator) -> Range:
    """The average area of directions that were made after the labels were dealt out anew."""
    train, held_out = readings.train, readings.held_out
    found = []
    for _ in range(SHUFFLES):
        order = torch.randperm(len(train.labels), generator=generator).tolist()
        vectors_ch = train.vectors(layer, method, [train.labels[place] for place in order])
        found.append(mean_auroc(_scores(held_out, layer, vectors_ch), held_out.labels))
    return _range(found)


def _range(values: list[float]) -> Range:
    found = torch.tensor(values, dtype=torch.float64)
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return found.mean().item(), low, high
