"""What `quality.json` holds: figures of each concept behind each layer, documented field by field.

Numbers have five digits and are finite; what was not measured is null.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from understudy.concepts.auroc import Auroc, Average
from understudy.concepts.errors import BadRows, ConceptError
from understudy.concepts.heads import LayerHeads, NotDecomposed
from understudy.concepts.quality import Bucket, Clusters, ConceptQuality
from understudy.concepts.validity import ConceptValidity, LayerValidity, Range

VERSION = 1
"""The only one so far."""
DIGITS = 5


class BrokenReport(ConceptError, ValueError):
    """A file that is no quality report, or one of a version that is not known here."""


class Area(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An area under the ROC curve with its 95 % interval, and how many texts of each kind it is of."""

    value: float
    interval: tuple[float, float]
    positives: int
    negatives: int


class MeanArea(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The mean over concepts of such areas with its 95 % interval, and how many texts it is of."""

    value: float
    interval: tuple[float, float]
    texts: int


class ChanceArea(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same of directions that know nothing: the mean over draws, and the ends of their middle 95 %."""

    value: float
    range: tuple[float, float]


class ConceptAreas(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What validity says of a concept; see ConceptValidity."""

    auroc: Area
    keyword_free_auroc: Area | None
    transfer_auroc: Area | None
    stability: float


class LayerAreas(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What validity says of a layer; see LayerValidity."""

    auroc: MeanArea
    keyword_free_auroc: MeanArea | None
    transfer_auroc: MeanArea | None
    random_directions: ChanceArea
    shuffled_labels: ChanceArea
    untrained_twin: MeanArea | None
    untrained_twin_keyword_free: MeanArea | None


class ConceptReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One concept behind one layer: its buckets, and what they were read from."""

    triage: tuple[Bucket, ...]
    validity: ConceptAreas | None
    quality: ConceptQuality


class LayerReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All concepts behind one layer. `cosines` is in the order of the report's `concepts`.

    `no_neurons` says why there are no neurons to compare with, where there are none.
    """

    layer: int
    depth: float
    validity: LayerAreas | None
    concepts: dict[str, ConceptReport]
    cosines: tuple[tuple[float, ...], ...]
    clusters: Clusters
    no_neurons: str | None
    heads: LayerHeads | NotDecomposed


class QualityReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`quality.json`. `corpus` is the SHA-256 of what was read, `best_layer` where the mean area is highest.

    `thresholds` are those of the buckets, `families` the concepts' by the corpus's manifest.
    """

    version: Literal[1] = 1
    made: str
    model: str
    corpus: str
    texts: dict[Literal["train", "held_out"], int]
    method: str
    pooled_tokens: int | None
    role: str | None
    concepts: tuple[str, ...]
    families: dict[str, str]
    thresholds: dict[str, float]
    best_layer: int | None
    layers: tuple[LayerReport, ...]

    def to_bytes(self) -> bytes:
        """As JSON; equal reports have equal bytes. Raises BadRows for a number that is not finite."""
        text = msgspec.json.encode(_rounded(msgspec.to_builtins(self), ()), order="deterministic")
        return msgspec.json.format(text, indent=1) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "QualityReport":
        """Raises BrokenReport."""
        try:
            told = msgspec.json.decode(data, type=_Version).version
            if told != VERSION:
                raise BrokenReport(f"expected a quality report of version {VERSION}, got version {told}")
            return msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BrokenReport(f"expected a quality report: {error}") from error


class _Version(msgspec.Struct):
    version: int


def _rounded(value: Any, place: Sequence[object]) -> Any:
    match value:
        case float():
            if not math.isfinite(value):
                raise BadRows(f"expected finite numbers, got {value} at {'.'.join(map(str, place))}")
            return float(f"{value:.{DIGITS}g}")
        case dict():
            return {key: _rounded(one, (*place, key)) for key, one in value.items()}
        case list() | tuple():
            return [_rounded(one, (*place, number)) for number, one in enumerate(value)]
    return value


# ---------------------------------------------------------------------- from what validity measured


def concept_areas(found: ConceptValidity) -> ConceptAreas:
    """What validity found of a concept, as the file has it."""
    return ConceptAreas(
        auroc=_area(found.held_out),
        keyword_free_auroc=None if found.keyword_free is None else _area(found.keyword_free),
        transfer_auroc=None if found.transfer is None else _area(found.transfer),
        stability=found.stability,
    )


def layer_areas(found: LayerValidity) -> LayerAreas:
    """What validity found of a layer, as the file has it."""
    return LayerAreas(
        auroc=_mean(found.average),
        keyword_free_auroc=None if found.keyword_free is None else _mean(found.keyword_free),
        transfer_auroc=None if found.transfer is None else _mean(found.transfer),
        random_directions=_chance(found.random),
        shuffled_labels=_chance(found.shuffled),
        untrained_twin=None if found.twin is None else _mean(found.twin),
        untrained_twin_keyword_free=(
            None if found.twin_keyword_free is None else _mean(found.twin_keyword_free)
        ),
    )


def _area(found: Auroc) -> Area:
    return Area(
        value=found.value, interval=found.interval(), positives=found.positives, negatives=found.negatives
    )


def _mean(found: Average) -> MeanArea:
    return MeanArea(value=found.value, interval=(found.low, found.high), texts=found.n)


def _chance(found: Range) -> ChanceArea:
    value, low, high = found
    return ChanceArea(value=value, range=(low, high))
