"""The quality of directions, measured and written down: for programs as JSON, for people as a page.

Shapes: c concepts, h hidden size.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from understudy.concepts import quality
from understudy.concepts.activations import Report, depth
from understudy.concepts.corpus import Corpus
from understudy.concepts.errors import UnknownConcept, UnknownLayer
from understudy.concepts.figures import (
    ConceptAreas,
    ConceptReport,
    LayerReport,
    QualityReport,
    concept_areas,
    layer_areas,
)
from understudy.concepts.heads import LayerHeads, NotDecomposed, decompose_heads
from understudy.concepts.page import show_report
from understudy.concepts.quality import ConceptQuality
from understudy.concepts.reading import CorpusReading, Recipe
from understudy.concepts.validity import LayerValidity, Validity
from understudy.engine import Directions, LoadedModel, decoder_layers

QUALITY_FILE, PAGE_FILE = "quality.json", "report.html"


def make_report(
    loaded: LoadedModel,
    corpus: Corpus,
    reading: CorpusReading,
    directions: Directions,
    validity: Validity | None,
    *,
    recipe: Recipe,
    made: str,
    model: str | None = None,
    report: Report | None = None,
) -> QualityReport:
    """Measure directions that were made from the training texts of a reading by a recipe.

    `made` is the time, `model` a name instead of its directory's, `report` is told how far reading the heads
    has come. Raises UnknownConcept or UnknownLayer for directions that are not of this reading, BadRows, and
    what reading raises.
    """
    train = reading.split("train")
    vectors_ch = _vectors(reading, directions)
    heads = decompose_heads(loaded, train, vectors_ch, recipe, report)
    modules = decoder_layers(loaded.model)
    return QualityReport(
        made=made,
        model=model or loaded.directory.name,
        corpus=corpus.digest,
        texts={"train": len(train.texts), "held_out": len(reading.texts) - len(train.texts)},
        method=recipe.method,
        pooled_tokens=recipe.pooling.tokens,
        role=recipe.role,
        concepts=reading.concepts,
        families={name: about.family for name, about in corpus.manifest.concepts.items() if about.family},
        thresholds=_thresholds(),
        best_layer=None if validity is None else validity.best_layer,
        layers=tuple(
            _layer(
                train,
                layer,
                depth(layer, len(modules)),
                vectors,
                modules[layer],
                heads[layer],
                None if validity is None else validity.layers.get(layer),
            )
            for layer, vectors in vectors_ch.items()
        ),
    )


def write_report(report: QualityReport, folder: Path) -> tuple[Path, Path]:
    """Write `quality.json` and `report.html`, each whole or not at all, into a folder made if need be.

    Raises BadRows for numbers that are not finite.
    """
    data, page = report.to_bytes(), show_report(report).encode()
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / PAGE_FILE, page)
    _write(folder / QUALITY_FILE, data)
    return folder / QUALITY_FILE, folder / PAGE_FILE


def _write(target: Path, data: bytes) -> None:
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _vectors(reading: CorpusReading, directions: Directions) -> Mapping[int, torch.Tensor]:
    """The directions by layer, in the order of the reading's concepts."""
    odd = sorted(set(reading.concepts) ^ set(directions.concepts))
    if odd:
        raise UnknownConcept(f"expected directions of the concepts that were read, {odd[0]!r} is only in one")
    unread = sorted(set(directions.layers) - set(reading.layers))
    if unread:
        raise UnknownLayer(
            f"expected directions of layers that were read ({list(reading.layers)}), got one of {unread[0]}"
        )
    rows = [directions.concepts.index(concept) for concept in reading.concepts]
    return {layer: vectors[rows] for layer, vectors in directions.vectors_ch.items()}


def _layer(
    train: CorpusReading,
    layer: int,
    deep: float,
    vectors_ch: torch.Tensor,
    module: Any,
    heads: LayerHeads | NotDecomposed,
    validity: LayerValidity | None,
) -> LayerReport:
    weight_hi = quality.down_projection(module, vectors_ch.shape[1])
    missing = weight_hi if isinstance(weight_hi, str) else None
    measured = quality.measure_quality(
        train, layer, vectors_ch, None if isinstance(weight_hi, str) else weight_hi
    )
    areas = {} if validity is None else {name: concept_areas(one) for name, one in validity.concepts.items()}
    unit_ch = quality.unit(vectors_ch)
    return LayerReport(
        layer=layer,
        depth=deep,
        validity=None if validity is None else layer_areas(validity),
        concepts={name: _concept(found, areas.get(name)) for name, found in measured.items()},
        cosines=tuple(tuple(row) for row in (unit_ch @ unit_ch.T).tolist()),
        clusters=quality.cluster_concepts(vectors_ch, train.concepts),
        no_neurons=missing,
        heads=heads,
    )


def _concept(found: ConceptQuality, areas: ConceptAreas | None) -> ConceptReport:
    low = None if areas is None else areas.auroc.interval[0]
    return ConceptReport(triage=quality.triage(found, low), validity=areas, quality=found)


def _thresholds() -> dict[str, float]:
    return {
        "clean": quality.CLEAN_SHARE,
        "fragmented": quality.FRAGMENTED_SHARE,
        "single_neuron": quality.SINGLE_NEURON_COSINE,
        "redundant": quality.REDUNDANT_R_SQUARED,
        "contaminated": quality.CONTAMINATED_COSINE,
        "not_valid": quality.CHANCE,
        "cluster": quality.CLUSTER_COSINE,
        "ridge_lambda": quality.RIDGE_LAMBDA,
    }
