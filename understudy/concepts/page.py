"""A quality report as one HTML page that loads nothing, runs nothing, and takes every text for text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from understudy.concepts import drawing
from understudy.concepts.figures import ChanceArea, LayerReport, MeanArea, QualityReport
from understudy.concepts.quality import BUCKETS, Bucket

MOST_LAYERS = 4
"""So many are shown in full; of more, the best one alone. The rest stands in quality.json."""

MEANINGS: Mapping[Bucket, str] = {
    "clean": "the first component has more than {} of the positives' variance: they differ in one thing",
    "fragmented": "the first component has less than {} of it: the texts show several things",
    "single_neuron": "one neuron of the layer's MLP writes along the direction, |cosine| above {}",
    "redundant": "other concepts' directions combine to this one, R² above {}",
    "contaminated": "the nearest concept's cosine is above {}: both may be one",
    "not_valid": "the held-out area's interval includes {} or lies below it: nothing shows that it works",
}
PROBLEMS: tuple[Bucket, ...] = tuple(bucket for bucket in BUCKETS if bucket != "clean")


def show_report(report: QualityReport) -> str:
    """The page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = shown_layers(report)
    return environment.get_template("report.html.jinja").render(
        report=report,
        shown=shown,
        foremost=foremost_layer(report),
        buckets=buckets_of(report),
        problems=PROBLEMS,
        curves=_draw_curves(report),
        spreads={layer.layer: first_shares(layer) for layer in report.layers},
        heatmaps={layer.layer: _draw_cosines(report, layer) for layer in shown},
    )


def foremost_layer(report: QualityReport) -> LayerReport:
    """The best layer, or the deepest where nothing was held out to tell which is."""
    for layer in report.layers:
        if layer.layer == report.best_layer:
            return layer
    return report.layers[-1]


def shown_layers(report: QualityReport) -> tuple[LayerReport, ...]:
    """Those that are shown in full, the foremost first."""
    foremost = foremost_layer(report)
    if len(report.layers) > MOST_LAYERS:
        return (foremost,)
    return (foremost, *(layer for layer in report.layers if layer is not foremost))


def first_shares(layer: LayerReport) -> tuple[float, float, float] | None:
    """The mean, the least and the largest of the concepts' first components' shares."""
    spectra = [concept.quality.spectrum for concept in layer.concepts.values()]
    shares = [spectrum.first_component_share for spectrum in spectra if spectrum is not None]
    return (fmean(shares), min(shares), max(shares)) if shares else None


def buckets_of(report: QualityReport) -> list[tuple[Bucket, str, list[str]]]:
    """Each bucket, why one is filed under it, and the concepts that are behind the foremost layer."""
    concepts = foremost_layer(report).concepts
    return [
        (
            bucket,
            MEANINGS[bucket].format(report.thresholds[bucket]),
            [name for name, found in concepts.items() if bucket in found.triage],
        )
        for bucket in BUCKETS
    ]


def _draw_cosines(report: QualityReport, layer: LayerReport) -> Markup:
    largest = max(
        (
            (cosine, report.concepts[row], report.concepts[column])
            for row, cosines in enumerate(layer.cosines)
            for column, cosine in enumerate(cosines[:row])
        ),
        default=None,
    )
    label = f"Heatmap of the cosines between {len(report.concepts)} concepts behind layer {layer.layer}"
    if largest is not None:
        label += f"; the largest, {largest[0]:.2f}, is that of {largest[1]} and {largest[2]}"
    return drawing.draw_cosines(report.concepts, layer.cosines, layer.clusters.merges, label)


# ---------------------------------------------------------------------- curves


def _draw_curves(report: QualityReport) -> Markup:
    panels: list[tuple[str, Sequence[drawing.Line]]] = []
    if any(layer.validity is not None for layer in report.layers):
        panels.append(("mean AUROC", _area_lines(report)))
    panels.append(("first component's share", [_share_line(report)]))
    said = "the mean area under the ROC curve with its controls, and " if len(panels) == 2 else ""
    label = f"Over {len(report.layers)} layers: {said}the first component's share; the table has the numbers"
    return drawing.draw_layers([layer.layer for layer in report.layers], panels, label)


def _area_lines(report: QualityReport) -> list[drawing.Line]:
    lines = [
        _area_line(report, *named)
        for named in (
            ("held out", drawing.BLUE, "auroc"),
            ("without keywords", drawing.GREEN, "keyword_free_auroc"),
            ("scenes left out", drawing.ORANGE, "transfer_auroc"),
            ("untrained twin", drawing.RED, "untrained_twin"),
            ("random directions", drawing.INK, "random_directions"),
        )
    ]
    return [line for line in lines if any(value is not None for value in line[2])]


def _area_line(report: QualityReport, label: str, colour: str, name: str) -> drawing.Line:
    found = [None if layer.validity is None else getattr(layer.validity, name) for layer in report.layers]
    return (
        label,
        colour,
        [None if area is None else area.value for area in found],
        [None if area is None else _ends(area) for area in found],
    )


def _ends(area: MeanArea | ChanceArea) -> tuple[float, float]:
    return area.interval if isinstance(area, MeanArea) else area.range


def _share_line(report: QualityReport) -> drawing.Line:
    found: list[Any] = [first_shares(layer) for layer in report.layers]
    return (
        "mean over concepts (band: least to largest)",
        drawing.BLUE,
        [None if share is None else share[0] for share in found],
        [None if share is None else share[1:] for share in found],
    )
