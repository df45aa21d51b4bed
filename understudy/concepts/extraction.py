"""The whole way from a corpus to directions that have been measured.

Shapes: c concepts, h hidden size, t tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from understudy.concepts.activations import Progress, collect, streams
from understudy.concepts.corpus import Corpus
from understudy.concepts.encoding import Pooling, encode
from understudy.concepts.reading import CorpusReading, Recipe, read_corpus, without_keywords
from understudy.concepts.validity import Readings, Validity, measure_validity
from understudy.engine import Directions, LoadedModel, ReadoutManifest, ReadoutStatistics

Stage = Literal["reading", "reading without keywords", "reading by an untrained twin", "measuring"]
Told = Callable[[Stage, int, int, float], None]
"""What is being done, how many of how many are done, and the seconds that are left."""

ALL_TOKENS = Pooling(None)
FEWEST_DEVIATIONS = 1e-6
"""A readout that does not vary over the baselines is taken to vary so much, to keep z-scores finite."""


@dataclass(frozen=True)
class Extraction:
    """Directions with what they were made from and what they are worth."""

    directions: Directions
    reading: CorpusReading
    validity: Validity | None


def extract(
    loaded: LoadedModel,
    corpus: Corpus,
    recipe: Recipe,
    *,
    twin: LoadedModel | None = None,
    seed: int = 0,
    told: Told | None = None,
) -> Extraction:
    """Read a corpus, find each concept's direction behind each layer, and measure them on held-out texts.

    Directions are made from the training split alone. `twin` is an untrained model of the same
    architecture, measured beside. Nothing is measured where nothing is held out. Raises ConceptError.
    """
    reading = read_corpus(loaded, corpus, recipe, report=_telling(told, "reading"))
    train = reading.split("train")
    vectors_ch = {layer: train.vectors(layer, recipe.method) for layer in train.layers}
    statistics = baseline_statistics(loaded, corpus, recipe, train, vectors_ch)
    validity = None
    if corpus.of("held_out"):
        readings = prepare_readings(loaded, corpus, recipe, reading, told)
        untrained = None
        if twin is not None:
            seen = read_corpus(twin, corpus, recipe, report=_telling(told, "reading by an untrained twin"))
            untrained = prepare_readings(twin, corpus, recipe, seen, told)
        validity = measure_validity(
            readings, recipe.method, twin=untrained, seed=seed, report=_counting(told, "measuring")
        )
    manifest = ReadoutManifest(
        concepts=list(corpus.concepts),
        layers=list(train.layers),
        hidden_size=next(iter(vectors_ch.values())).shape[1],
        dtype="float32",
        statistics=statistics,
    )
    return Extraction(Directions(manifest, vectors_ch), reading, validity)


def prepare_readings(
    loaded: LoadedModel, corpus: Corpus, recipe: Recipe, reading: CorpusReading, told: Told | None = None
) -> Readings:
    """What validity is measured on: the splits, and the held-out texts read again without keywords."""
    held_out = reading.split("held_out")
    bare = without_keywords(corpus, held_out.texts)
    read = read_corpus(loaded, corpus, recipe, texts=bare, report=_telling(told, "reading without keywords"))
    return Readings(reading.split("train"), held_out, read)


def baseline_statistics(
    loaded: LoadedModel,
    corpus: Corpus,
    recipe: Recipe,
    train: CorpusReading,
    vectors_ch: dict[int, torch.Tensor],
) -> ReadoutStatistics:
    """How readouts vary where nothing is meant: over every token of the training split's baselines, or of all
    its texts where it has none; and how long each concept's difference of means is.
    """
    texts = corpus.of("train")
    plain = [text for text in texts if text.kind == "baseline"] or list(texts)
    found = collect(
        loaded,
        encode(loaded.tokenizer, plain, recipe.role),
        streams(loaded, train.layers),
        ALL_TOKENS,
        spans=True,
    )
    mean, deviation, norms, tokens = [], [], [], 0
    for layer in train.layers:
        readouts_tc = torch.cat(found.spans[layer]) @ vectors_ch[layer].T
        tokens = len(readouts_tc)
        mean.append(readouts_tc.mean(0).tolist())
        deviation.append(readouts_tc.std(0).clamp_min(FEWEST_DEVIATIONS).tolist())
        norms.append(
            [train.contrast(concept, layer).mean_difference_h.norm().item() for concept in train.concepts]
        )
    return ReadoutStatistics(mean=mean, deviation=deviation, norms=norms, tokens=tokens)


def _telling(told: Told | None, stage: Stage) -> Callable[[Progress], None] | None:
    if told is None:
        return None
    return lambda progress: told(stage, progress.texts, progress.of, progress.seconds_left)


def _counting(told: Told | None, stage: Stage) -> Callable[[int, int], None] | None:
    if told is None:
        return None
    return lambda done, of: told(stage, done, of, 0.0)
