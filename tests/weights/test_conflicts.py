"""Conflicts between behaviours, held against what the definitions give entry by entry."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_vectors import random_tensors, write_model

from understudy.weights import (
    ModelState,
    NotTensors,
    WeightsMismatch,
    make_vector,
    measure_conflicts,
    negate_vector,
)


@pytest.fixture
def vectors(tmp_path: Path) -> list[Path]:
    base = write_model(tmp_path / "base", random_tensors(0))
    made = []
    for n in (1, 2, 3):
        tensors = random_tensors(n)
        tensors["n"][: 2 * n] = random_tensors(0)["n"][: 2 * n]  # entries that do not move
        model = write_model(tmp_path / f"m{n}", tensors)
        make_vector(ModelState(base), ModelState(model), tmp_path / f"v{n}.safetensors")
        made.append(tmp_path / f"v{n}.safetensors")
    return made


def test_a_behaviour_against_itself_and_its_opposite(vectors: list[Path], tmp_path: Path) -> None:
    negate_vector(vectors[0], tmp_path / "turned.safetensors")
    same = measure_conflicts([vectors[0], vectors[0]]).pairs[0].whole
    assert (round(same.cosine, 9), same.disagreement, same.overlap, same.overlap_disagreement) == (1, 0, 1, 0)
    turned = measure_conflicts([vectors[0], tmp_path / "turned.safetensors"]).pairs[0].whole
    assert round(turned.cosine, 9) == -1
    assert (turned.disagreement, turned.overlap, turned.overlap_disagreement) == (1, 1, 1)


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_every_figure_is_its_definition(vectors: list[Path], density: float) -> None:
    report = measure_conflicts(vectors, density=density)
    assert [(pair.first, pair.second) for pair in report.pairs] == [
        (vectors[0], vectors[1]),
        (vectors[0], vectors[2]),
        (vectors[1], vectors[2]),
    ]
    for pair in report.pairs:
        first, second = load_file(pair.first), load_file(pair.second)
        products, squares = [], []
        for name, found in pair.matrices.items():
            a, b = first[name].flatten().double(), second[name].flatten().double()
            products.append(float(a @ b))
            squares.append((float(a @ a), float(b @ b)))
            assert found.elements == a.numel()
            expected = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
            assert found.cosine == pytest.approx(expected, abs=1e-9)
            both = [n for n in range(a.numel()) if a[n] != 0 and b[n] != 0]
            opposite = [n for n in both if a[n] * b[n] < 0]
            assert found.disagreement == pytest.approx(len(opposite) / len(both) if both else 0)
            count = max(1, int(density * a.numel()))
            tops = [
                {n for n in sorted(range(v.numel()), key=lambda n: -abs(float(v[n])))[:count] if v[n] != 0}
                for v in (a, b)
            ]
            shared = tops[0] & tops[1]
            most = max(map(len, tops))
            assert found.overlap == pytest.approx(len(shared) / most if most else 0)
            against = shared & set(opposite)
            assert found.overlap_disagreement == pytest.approx(len(against) / len(shared) if shared else 0)
        total = sum(products) / (sum(a for a, _ in squares) * sum(b for _, b in squares)) ** 0.5
        assert pair.whole.cosine == pytest.approx(total, abs=1e-9)
        assert pair.whole.elements == sum(found.elements for found in pair.matrices.values())


def test_the_report_is_plain_data(vectors: list[Path]) -> None:
    report = measure_conflicts(vectors[:2])
    held = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert held["same_base"] is True
    cosines = [entry["cosine"] for entry in held["pairs"][0]["matrices"]]
    assert cosines == sorted(cosines)
    assert len(cosines) == 4


def test_vectors_from_different_weights_are_told(vectors: list[Path], tmp_path: Path) -> None:
    make_vector(ModelState(tmp_path / "m1"), ModelState(tmp_path / "m2"), tmp_path / "other.safetensors")
    assert not measure_conflicts([vectors[0], tmp_path / "other.safetensors"]).same_base


def test_what_cannot_be_compared_is_refused(vectors: list[Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatch, match="two vectors"):
        measure_conflicts(vectors[:1])
    with pytest.raises(WeightsMismatch, match="density"):
        measure_conflicts(vectors, density=0)
    with pytest.raises(NotTensors, match="task vector"):
        measure_conflicts([vectors[0], tmp_path / "base" / "model.safetensors"])
    small = [write_model(tmp_path / name, {"n": torch.ones(2) * n}) for n, name in enumerate("xy")]
    make_vector(ModelState(small[0]), ModelState(small[1]), tmp_path / "small.safetensors")
    with pytest.raises(WeightsMismatch, match="another model"):
        measure_conflicts([vectors[0], tmp_path / "small.safetensors"])
