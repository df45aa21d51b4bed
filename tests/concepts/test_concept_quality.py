"""What directions are like, on rows in which the answer was planted."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from understudy.concepts import quality
from understudy.concepts.activations import Activations
from understudy.concepts.corpus import Text
from understudy.concepts.quality import (
    Agreement,
    Combination,
    ConceptQuality,
    Neighbour,
    Neuron,
    Spectrum,
    closest_neurons,
    cluster_concepts,
    combine,
    down_projection,
    measure_quality,
    measure_spectrum,
    nearest_concepts,
    ridge_weights,
    triage,
    unit,
)
from understudy.concepts.reading import CorpusReading

LAYER = 3


def random_rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal(count: int, width: int, seed: int = 0) -> torch.Tensor:
    basis: torch.Tensor = torch.linalg.qr(random_rows(width, count, seed=seed)).Q
    return basis.T


def a_reading(rows: Sequence[tuple[str | None, torch.Tensor]]) -> CorpusReading:
    """A reading of made-up rows, each of a concept or of none."""
    texts = tuple(
        Text(f"stories/{concept}/{number}.txt", "story", concept, f"{number}", "train", f"text {number}")
        for number, (concept, _) in enumerate(rows)
    )
    concepts = tuple(sorted({concept for concept, _ in rows if concept is not None}))
    return CorpusReading(concepts, texts, Activations({LAYER: torch.stack([row for _, row in rows])}, {}))


# ---------------------------------------------------------------------- variance


def test_texts_that_differ_in_one_thing_have_one_component() -> None:
    found = measure_spectrum(torch.outer(random_rows(7), random_rows(30, seed=1)) + random_rows(30, seed=2))
    assert found is not None
    assert found.first_component_share == pytest.approx(1, abs=1e-9)
    assert found.participation_ratio == pytest.approx(1, abs=1e-6)
    assert found.components_to_90 == 1


@pytest.mark.parametrize(("count", "width"), [(21, 4000), (4000, 12)])
def test_texts_that_differ_in_everything_have_all_components(count: int, width: int) -> None:
    found = measure_spectrum(random_rows(count, width))
    assert found is not None and found.rank == min(count - 1, width)
    assert found.participation_ratio == pytest.approx(found.rank, rel=0.02)
    assert found.first_component_share < 1.5 / found.rank


def test_the_spectrum_is_that_of_principal_components() -> None:
    rows = random_rows(9, 20) * torch.linspace(0.1, 3, 20) + 5
    found = measure_spectrum(rows)
    expected = PCA().fit(rows.double().numpy()).explained_variance_ratio_
    assert found is not None
    assert found.shares == pytest.approx(expected[:10], abs=1e-9)
    assert found.components_to_90 == int(np.searchsorted(np.cumsum(expected), 0.9)) + 1
    assert found.participation_ratio == pytest.approx(1 / np.square(expected).sum(), rel=1e-9)


@pytest.mark.parametrize("rows", [random_rows(1, 8), random_rows(2, 8), torch.full((5, 8), 1.7)])
def test_too_few_texts_have_no_spectrum(rows: torch.Tensor) -> None:
    assert measure_spectrum(rows) is None


# ---------------------------------------------------------------------- agreement


def test_the_texts_that_do_not_belong_are_found() -> None:
    direction, noise = orthogonal(1, 40)[0], random_rows(16, 40, seed=3) * 0.02
    strengths = [2, 2, 2, -2, 2, 2, 0, 2]
    rows: list[tuple[str | None, torch.Tensor]] = [
        ("calm", 7 + strength * direction + noise[number]) for number, strength in enumerate(strengths)
    ]
    reading = a_reading(rows + [(None, 7 + noise[number]) for number in range(8, 16)])
    found = measure_quality(reading, LAYER, direction[None] * 3, None)["calm"]
    assert (found.positives, found.negatives) == (8, 8)
    assert [text.path for text in found.agreement.outliers] == [
        "stories/calm/3.txt",
        "stories/calm/6.txt",
    ]
    assert found.agreement.outliers[0].cosine < -0.9 and found.agreement.outliers[0].excerpt == "text 3"
    values = reading.activations.rows_nh[LAYER].double().numpy()
    moved = values[:8] - values[8:].mean(0)
    expected = moved @ direction.double().numpy() / np.linalg.norm(moved, axis=1)
    assert [text.cosine for text in found.agreement.texts] == pytest.approx(expected, abs=1e-5)
    assert found.agreement.mean == pytest.approx(expected.mean(), abs=1e-5)
    assert found.neuron is None


def test_an_excerpt_is_one_short_line() -> None:
    text = "one\n\ntwo   three " + "long " * 100
    reading = a_reading([("calm", torch.ones(4)), (None, torch.zeros(4))])
    own = Text("stories/calm/0.txt", "story", "calm", "0", "train", text)
    reading = CorpusReading(reading.concepts, (own, reading.texts[1]), reading.activations)
    excerpt = measure_quality(reading, LAYER, torch.ones(1, 4), None)["calm"].agreement.outliers[0].excerpt
    assert excerpt.startswith("one two three long")
    assert len(excerpt) == quality.EXCERPT_CHARACTERS and excerpt.endswith("…")


# ---------------------------------------------------------------------- neurons


def test_a_planted_neuron_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "NEURONS_PER_CHUNK", 7)
    directions, weight = random_rows(3, 24), random_rows(24, 50, seed=1)
    weight[:, 48] = -3 * directions[1]
    weight[:, 20] = 0
    found = closest_neurons(directions, weight)
    assert found[1].index == 48 and found[1].cosine == pytest.approx(-1, abs=1e-6)
    columns = np.delete(weight.double().numpy(), 20, axis=1)
    for number, neuron in enumerate(found):
        own = directions[number].double().numpy()
        cosines = own @ columns / np.linalg.norm(own) / np.linalg.norm(columns, axis=0)
        assert abs(neuron.cosine) == pytest.approx(np.abs(cosines).max(), abs=1e-6)
        assert neuron.cosine in [pytest.approx(cosine, abs=1e-6) for cosine in cosines]


def test_neurons_of_a_layer_in_bfloat16() -> None:
    directions, weight = random_rows(2, 32), random_rows(32, 9, seed=1).bfloat16()
    weight[:, 4] = directions[0].bfloat16()
    found = closest_neurons(directions, weight)[0]
    assert found.index == 4 and found.cosine == pytest.approx(1, abs=1e-4)


def test_a_layer_without_a_plain_mlp_says_why() -> None:
    experts = SimpleNamespace(mlp=SimpleNamespace(experts=[]))
    packed = SimpleNamespace(mlp=SimpleNamespace(down_proj=SimpleNamespace(weight=torch.zeros(8, 2))))
    plain = SimpleNamespace(mlp=SimpleNamespace(down_proj=torch.nn.Linear(6, 4)))
    assert "found none" in str(down_projection(experts, 4))
    assert "found torch.float32 [8, 2]" in str(down_projection(packed, 4))
    assert isinstance(down_projection(plain, 4), torch.Tensor)


# ---------------------------------------------------------------------- other concepts


def test_a_combination_of_two_concepts_is_found_with_its_parts() -> None:
    directions = orthogonal(6, 64)
    directions[4] = (directions[0] - directions[1]) * 0.5**0.5
    names = ["content", "cozy", "calm", "proud", "sensual", "bored"]
    found = combine(directions * torch.tensor([1.0, 5, 1, 0.1, 2, 1])[:, None], names)
    assert found[4].r_squared > 0.999 and found[4].contributors_r_squared > 0.999
    weights = {one.concept: one.weight for one in found[4].contributors}
    # the ridge solution for orthonormal parts: each weight is the scalar product over 1 + lambda
    assert [one.concept for one in found[4].contributors][:2] in (["content", "cozy"], ["cozy", "content"])
    assert weights["content"] == pytest.approx(0.5**0.5 / 1.01, abs=1e-5)
    assert weights["cozy"] == pytest.approx(-(0.5**0.5) / 1.01, abs=1e-5)
    assert abs(weights["calm"]) < 1e-5
    assert found[5].r_squared < 1e-6


@pytest.mark.parametrize(("concepts", "width"), [(12, 40), (12, 6), (2, 5)])
@pytest.mark.parametrize("penalty", [0.01, 1.5])
def test_ridge_agrees_with_sklearn(concepts: int, width: int, penalty: float) -> None:
    directions = unit(random_rows(concepts, width))
    weights = ridge_weights(directions @ directions.T, penalty).numpy()
    found = combine(directions, [f"c{number}" for number in range(concepts)], penalty)
    rows = directions.numpy()
    for number in range(concepts):
        others = [other for other in range(concepts) if other != number]
        model = Ridge(alpha=penalty, fit_intercept=False).fit(rows[others].T, rows[number])
        assert weights[number, others] == pytest.approx(model.coef_, abs=1e-6)
        residual = rows[number] - model.predict(rows[others].T)
        assert found[number].r_squared == pytest.approx(1 - residual @ residual, abs=1e-6)
        largest = [f"c{others[place]}" for place in np.argsort(-np.abs(model.coef_))[:5]]
        assert [one.concept for one in found[number].contributors] == largest
        few = [int(name[1:]) for name in largest]
        alone = Ridge(alpha=penalty, fit_intercept=False).fit(rows[few].T, rows[number])
        residual = rows[number] - alone.predict(rows[few].T)
        assert found[number].contributors_r_squared == pytest.approx(1 - residual @ residual, abs=1e-6)


def test_concepts_set_against_each_other_are_combinations_of_all_but_not_of_a_few() -> None:
    """One against the rest, without baselines: the directions add up to zero whatever they mean."""
    means = orthogonal(10, 64)
    directions = means - means.mean(0)
    found = combine(directions, [f"c{number}" for number in range(10)])
    assert all(one.r_squared > 0.9 and one.contributors_r_squared < 0.2 for one in found)


def test_nearest_concepts_are_those_of_the_largest_cosines() -> None:
    directions = random_rows(9, 12)
    rows = directions.double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit(directions) @ unit(directions).T
    names = [f"c{number}" for number in range(9)]
    for number in range(9):
        expected = sorted(((rows[number] @ rows[o], f"c{o}") for o in range(9) if o != number), reverse=True)
        found = nearest_concepts(cosines, names, number)
        assert [one.concept for one in found] == [name for _, name in expected[:5]]
        assert [one.cosine for one in found] == pytest.approx(
            [cosine for cosine, _ in expected[:5]], abs=1e-9
        )


def test_concepts_cluster_by_cosine() -> None:
    axes = orthogonal(3, 50)
    rows = torch.stack(
        [axes[number % 2] + 0.1 * random_rows(50, seed=number) / 50**0.5 for number in range(6)]
    )
    found = cluster_concepts(torch.cat([rows, axes[2:]]), ["a", "b", "c", "d", "e", "f", "alone"])
    assert {frozenset(group) for group in found.groups} == {
        frozenset("ace"),
        frozenset("bdf"),
        frozenset(["alone"]),
    }
    assert sorted(found.order) == ["a", "alone", "b", "c", "d", "e", "f"] and len(found.merges) == 6
    assert found.merges[-1][3] == 7


def test_a_concept_alone() -> None:
    reading = a_reading([("calm", torch.ones(4)), (None, torch.zeros(4))])
    found = measure_quality(reading, LAYER, torch.ones(1, 4), torch.eye(4))["calm"]
    assert found.nearest == () and found.combination.contributors == ()
    assert found.combination.r_squared == found.combination.contributors_r_squared == 0
    assert found.neuron is not None and found.neuron.cosine == pytest.approx(0.5)
    assert cluster_concepts(torch.ones(1, 4), ["calm"]).groups == (("calm",),)


# ---------------------------------------------------------------------- triage


def a_quality(
    *, share: float = 0.5, neuron: float = 0.0, r_squared: float = 0.0, nearest: float = 0.0
) -> ConceptQuality:
    return ConceptQuality(
        positives=4,
        negatives=4,
        spectrum=Spectrum(
            first_component_share=share, components_to_90=2, participation_ratio=2, rank=3, shares=(share,)
        ),
        agreement=Agreement(mean=0.5, texts=(), outliers=()),
        neuron=Neuron(index=0, cosine=neuron),
        nearest=(Neighbour(concept="other", cosine=nearest),),
        combination=Combination(r_squared=r_squared, contributors_r_squared=0, contributors=()),
    )


@pytest.mark.parametrize(
    ("found", "low", "expected"),
    [
        (a_quality(), None, ()),
        (a_quality(share=0.7, neuron=0.6, r_squared=0.9, nearest=0.8), 0.51, ()),
        (a_quality(share=0.71), 0.51, ("clean",)),
        (a_quality(share=0.39), None, ("fragmented",)),
        (a_quality(neuron=-0.61), None, ("single_neuron",)),
        (a_quality(r_squared=0.91), None, ("redundant",)),
        (a_quality(nearest=0.81), None, ("contaminated",)),
        (a_quality(nearest=-0.99), None, ()),
        (a_quality(), 0.5, ("not_valid",)),
        (a_quality(share=0.9, nearest=0.9), 0.3, ("clean", "contaminated", "not_valid")),
    ],
)
def test_what_a_concept_is_filed_under(
    found: ConceptQuality, low: float | None, expected: tuple[str, ...]
) -> None:
    assert triage(found, low) == expected
