"""What directions are like: whether a concept's texts agree, and what else the direction could be instead.

Whether it tells unseen texts apart is another question: `validity` asks it.

Shapes: p positives, c concepts, h hidden size, i neurons of an MLP.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec
import torch

from understudy.concepts.corpus import Text
from understudy.concepts.methods import Contrast
from understudy.concepts.reading import CorpusReading

CLEAN_SHARE = 0.7
FRAGMENTED_SHARE = 0.4
"""Shares of variance: above the first a concept is called clean, below the second fragmented. Like the
thresholds below, a rule of thumb to sort by, not a test.
"""
SINGLE_NEURON_COSINE = 0.6
"""Above this a direction is next to one MLP neuron's own."""
REDUNDANT_R_SQUARED = 0.9
RIDGE_LAMBDA = 0.01
"""Above the first, others' directions combine to this one. The penalty keeps the weights of directions that
nearly coincide steady, and hardly moves the rest.
"""
CONTAMINATED_COSINE = 0.8
"""Above this two concepts may be one."""
CLUSTER_COSINE = 0.5
"""Concepts belong to one cluster while the mean cosine between its halves is at least this."""
CHANCE = 0.5
"""The area under the ROC curve of scores that know nothing."""
FEWEST_ROWS = 3
"""Two centred rows always lie on one line: a share of variance says something from three on."""
SPECTRUM_SHARES = 10
NEAREST = 5
CONTRIBUTORS = 5
OUTLIERS = 2
EXCERPT_CHARACTERS = 160
NEURONS_PER_CHUNK = 2048

Bucket = Literal["clean", "fragmented", "single_neuron", "redundant", "contaminated", "not_valid"]
"""What a concept is filed under; see `triage`."""

BUCKETS: tuple[Bucket, ...] = get_args(Bucket)


class Spectrum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The variance of the positives about their mean, by principal component.

    `participation_ratio` is (sum l)^2 / sum l^2 over the variances l: how many components share it, if they
    shared it alike. `shares` are the first ones, in descending order. `rank` is how many there can be.
    """

    first_component_share: float
    components_to_90: int
    participation_ratio: float
    rank: int
    shares: tuple[float, ...]


class TextCosine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cosine of one text, about the negatives' mean, with the direction."""

    path: str
    cosine: float


class Outlier(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A text that agrees least: mislabelled, off its topic, or badly told."""

    path: str
    cosine: float
    excerpt: str


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far each positive text points the direction's way. `outliers` are the least, the worst first."""

    mean: float
    texts: tuple[TextCosine, ...]
    outliers: tuple[Outlier, ...]


class Neuron(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The neuron of the layer's MLP that writes closest to the direction, or to its opposite."""

    index: int
    cosine: float


class Neighbour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another concept, by the cosine between both directions."""

    concept: str
    cosine: float


class Contributor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another concept, by its weight in a combination."""

    concept: str
    weight: float


class Combination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A direction as a combination of all others: how much of it that explains, and what weighs most.

    `contributors_r_squared` is what these contributors explain alone. Directions that are made against each
    other add up to nearly nothing, so each is a combination of all others whatever it means; of a few it is
    only when it says nothing of its own.
    """

    r_squared: float
    contributors_r_squared: float
    contributors: tuple[Contributor, ...]


class ConceptQuality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one concept's direction behind one layer is like, over so many training texts.

    `spectrum` is None for fewer than three positives, or for ones that are all the same; `neuron` where the
    layer has no plain MLP.
    """

    positives: int
    negatives: int
    spectrum: Spectrum | None
    agreement: Agreement
    neuron: Neuron | None
    nearest: tuple[Neighbour, ...]
    combination: Combination


class Clusters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Concepts by average linkage on 1 - cosine.

    `merges` are scipy's linkage: the numbers of both parts (from c on: the merge of that number less c),
    their distance, and how many concepts are in. `order` has those side by side that merge early.
    """

    order: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    merges: tuple[tuple[int, int, float, int], ...]


def measure_quality(
    reading: CorpusReading, layer: int, vectors_ch: torch.Tensor, weight_hi: torch.Tensor | None
) -> dict[str, ConceptQuality]:
    """What the directions behind a layer are like, by concept, in the order of the reading's.

    `reading` holds the texts that they were made from; `weight_hi` is what the layer's MLP writes with
    (`down_projection`). Raises BadRows for a concept with no positives or no negatives.
    """
    unit_ch = unit(vectors_ch)
    cosines_cc = unit_ch @ unit_ch.T
    neurons = [None] * len(unit_ch) if weight_hi is None else closest_neurons(unit_ch, weight_hi)
    combinations = combine(unit_ch, reading.concepts)
    found: dict[str, ConceptQuality] = {}
    for number, concept in enumerate(reading.concepts):
        contrast = reading.contrast(concept, layer)
        shown = [text for text in reading.texts if text.concept == concept]
        found[concept] = ConceptQuality(
            positives=len(contrast.positives_ph),
            negatives=len(contrast.negatives_nh),
            spectrum=measure_spectrum(contrast.positives_ph),
            agreement=measure_agreement(shown, contrast, unit_ch[number]),
            neuron=neurons[number],
            nearest=nearest_concepts(cosines_cc, reading.concepts, number),
            combination=combinations[number],
        )
    return found


def measure_spectrum(rows_ph: torch.Tensor) -> Spectrum | None:
    """The principal components of rows about their mean. None where that says nothing (ConceptQuality)."""
    count, columns = rows_ph.shape
    centred_ph = rows_ph.double() - rows_ph.double().mean(0)
    values = torch.linalg.svdvals(centred_ph).square()
    total = values.sum()
    if count < FEWEST_ROWS or total <= 1e-12 * rows_ph.double().square().sum():
        return None
    shares = values / total
    return Spectrum(
        first_component_share=shares[0].item(),
        components_to_90=int((shares.cumsum(0) < 0.9 - 1e-12).sum()) + 1,
        participation_ratio=1 / shares.square().sum().item(),
        rank=min(count - 1, columns),
        shares=tuple(shares[:SPECTRUM_SHARES].tolist()),
    )


def measure_agreement(texts: Sequence[Text], contrast: Contrast, direction_h: torch.Tensor) -> Agreement:
    """The cosine of each positive, less the negatives' mean, with a direction of length 1. `texts` are the
    positives', in their order.
    """
    moved_ph = unit(contrast.positives_ph - contrast.negatives_nh.mean(0))
    cosines = (moved_ph @ direction_h.double()).tolist()
    ranked = sorted(zip(cosines, texts, strict=True), key=lambda pair: (pair[0], pair[1].path))
    return Agreement(
        mean=sum(cosines) / len(cosines),
        texts=tuple(
            TextCosine(path=text.path, cosine=cosine) for cosine, text in zip(cosines, texts, strict=True)
        ),
        outliers=tuple(
            Outlier(path=text.path, cosine=cosine, excerpt=_excerpt(text.text))
            for cosine, text in ranked[:OUTLIERS]
        ),
    )


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 1] + "…"


# ---------------------------------------------------------------------- neurons


def down_projection(layer: Any, hidden_size: int) -> torch.Tensor | str:
    """W_down of a decoder layer's MLP, [h, i], wherever it lies; or why there is none to compare with."""
    weight = getattr(getattr(getattr(layer, "mlp", None), "down_proj", None), "weight", None)
    if not isinstance(weight, torch.Tensor):
        return f"expected mlp.down_proj with a weight in {type(layer).__name__}, found none"
    if not weight.is_floating_point() or weight.ndim != 2 or weight.shape[0] != hidden_size:
        return (
            f"expected mlp.down_proj.weight of [{hidden_size}, neurons] real numbers in "
            f"{type(layer).__name__}, found {weight.dtype} {list(weight.shape)}"
        )
    return weight.detach()


def closest_neurons(vectors_ch: torch.Tensor, weight_hi: torch.Tensor) -> list[Neuron]:
    """For each direction the column of W_down with the largest |cosine|; a column of zeros has none.

    Columns come over in pieces, in fp32: of a large model they would not all fit beside it.
    """
    unit_ch = unit(vectors_ch).float()
    best_c = torch.full((len(unit_ch),), -1.0)
    index_c = torch.zeros(len(unit_ch), dtype=torch.long)
    signed_c = torch.zeros(len(unit_ch))
    for start in range(0, weight_hi.shape[1], NEURONS_PER_CHUNK):
        columns = weight_hi[:, start : start + NEURONS_PER_CHUNK].to("cpu", torch.float32)
        cosines = (unit_ch @ columns) / columns.norm(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
        largest, place = cosines.abs().max(1)
        better = largest > best_c
        best_c = torch.where(better, largest, best_c)
        index_c = torch.where(better, place + start, index_c)
        signed_c = torch.where(better, cosines.gather(1, place[:, None])[:, 0], signed_c)
    return [
        Neuron(index=index, cosine=cosine)
        for index, cosine in zip(index_c.tolist(), signed_c.tolist(), strict=True)
    ]


# ---------------------------------------------------------------------- other concepts


def nearest_concepts(cosines_cc: torch.Tensor, concepts: Sequence[str], number: int) -> tuple[Neighbour, ...]:
    """The concepts whose directions are closest to that of a number, the closest first."""
    others = sorted(
        (other for other in range(len(concepts)) if other != number),
        key=lambda other: -cosines_cc[number, other].item(),
    )
    return tuple(
        Neighbour(concept=concepts[other], cosine=cosines_cc[number, other].item())
        for other in others[:NEAREST]
    )


def combine(
    vectors_ch: torch.Tensor, concepts: Sequence[str], penalty: float = RIDGE_LAMBDA
) -> list[Combination]:
    """Each direction, at length 1, regressed on all others.

    The weights w minimise |d - sum w_i d_i|^2 + penalty |w|^2: scikit-learn's Ridge(alpha=penalty,
    fit_intercept=False) with a row for each of the h coordinates and a column for each other direction.
    R^2 is 1 - |residual|^2 / |d|^2: about zero, not about the mean of the coordinates as Ridge.score has it,
    since a direction starts at zero.
    """
    unit_ch = unit(vectors_ch)
    gram_cc = unit_ch @ unit_ch.T
    weights_cc = ridge_weights(gram_cc, penalty)
    return [_combination(gram_cc, weights_cc, concepts, number, penalty) for number in range(len(concepts))]


def ridge_weights(gram_cc: torch.Tensor, penalty: float) -> torch.Tensor:
    """Row j: the weights with which ridge regression makes vector j from all others, 0 at j itself.

    All from one inverse P of A, the Gram matrix plus the penalty: A P = 1 says of the rows other than j that
    A_oo P_oj + A_oj P_jj = 0, so -P_oj / P_jj solves A_oo w = A_oj, which is what ridge regression asks.
    """
    identity = torch.eye(len(gram_cc), dtype=gram_cc.dtype)
    inverse: torch.Tensor = torch.linalg.inv(gram_cc + penalty * identity)
    return -inverse / inverse.diagonal()[:, None] * (1 - identity)


def _combination(
    gram_cc: torch.Tensor, weights_cc: torch.Tensor, concepts: Sequence[str], number: int, penalty: float
) -> Combination:
    weights_c = weights_cc[number]
    others = [other for other in range(len(concepts)) if other != number]
    chosen = sorted(others, key=lambda other: -abs(weights_c[other].item()))[:CONTRIBUTORS]
    few = [number, *chosen]
    few_gram = gram_cc[few][:, few]
    return Combination(
        r_squared=_explained(gram_cc, weights_c, number),
        contributors_r_squared=_explained(few_gram, ridge_weights(few_gram, penalty)[0], 0),
        contributors=tuple(
            Contributor(concept=concepts[other], weight=weights_c[other].item()) for other in chosen
        ),
    )


def _explained(gram_cc: torch.Tensor, weights_c: torch.Tensor, number: int) -> float:
    """1 - |d - sum w_i d_i|^2 / |d|^2, from scalar products alone."""
    explained = 2 * weights_c @ gram_cc[number] - weights_c @ gram_cc @ weights_c
    return (explained / gram_cc[number, number]).item()


def cluster_concepts(vectors_ch: torch.Tensor, concepts: Sequence[str]) -> Clusters:
    """Concepts by how close their directions are."""
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(concepts) == 1:
        return Clusters(order=tuple(concepts), groups=(tuple(concepts),), merges=())
    unit_ch = unit(vectors_ch)
    distances_cc = (1 - unit_ch @ unit_ch.T).clamp_min(0).fill_diagonal_(0)
    merges = linkage(squareform(distances_cc.numpy(), checks=False), "average")
    order = leaves_list(merges).tolist()
    labels = fcluster(merges, 1 - CLUSTER_COSINE, "distance")
    groups: dict[int, list[str]] = {}
    for number in order:
        groups.setdefault(int(labels[number]), []).append(concepts[number])
    return Clusters(
        order=tuple(concepts[number] for number in order),
        groups=tuple(tuple(group) for group in groups.values()),
        merges=tuple((int(a), int(b), float(distance), int(size)) for a, b, distance, size in merges),
    )


def unit(rows_nh: torch.Tensor) -> torch.Tensor:
    """Rows at length 1, on the CPU in float64; rows of zeros stay."""
    rows = rows_nh.to("cpu", torch.float64)
    found: torch.Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return found


# ---------------------------------------------------------------------- triage


def triage(quality: ConceptQuality, held_out_low: float | None) -> tuple[Bucket, ...]:
    """The buckets that a concept belongs in, none or several. `held_out_low` is the lower end of the interval
    of its area on held-out texts, None where it was not measured.

    clean, fragmented: by the first component's share. single_neuron: by |cosine|. redundant: by R^2.
    contaminated: by the nearest concept's cosine. not_valid: the interval includes chance, or lies below it.
    """
    spectrum, neuron, nearest = quality.spectrum, quality.neuron, quality.nearest
    holds: Mapping[Bucket, bool] = {
        "clean": spectrum is not None and spectrum.first_component_share > CLEAN_SHARE,
        "fragmented": spectrum is not None and spectrum.first_component_share < FRAGMENTED_SHARE,
        "single_neuron": neuron is not None and abs(neuron.cosine) > SINGLE_NEURON_COSINE,
        "redundant": quality.combination.r_squared > REDUNDANT_R_SQUARED,
        "contaminated": bool(nearest) and nearest[0].cosine > CONTAMINATED_COSINE,
        "not_valid": held_out_low is not None and held_out_low <= CHANCE,
    }
    return tuple(bucket for bucket in BUCKETS if holds[bucket])
