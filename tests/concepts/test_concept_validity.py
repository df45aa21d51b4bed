"""What is planted is found valid; what is not is not; and every control says so."""

from dataclasses import replace

import pytest
import torch

from understudy.concepts.activations import Activations
from understudy.concepts.corpus import Text
from understudy.concepts.errors import BadRows
from understudy.concepts.reading import CorpusReading
from understudy.concepts.validity import Readings, measure_validity

CONCEPTS = ("calm", "proud", "stuck")
HIDDEN, LAYER = 32, 2


def reading(
    seed: int, split: str, strength: float, *, scenes: int = 4, of_scene: float = 0.0, each: int = 24
) -> CorpusReading:
    """Rows that lean to their concept's own axis by `strength`, and to their scene's by `of_scene`.

    Each scene leans the same way for all concepts, unless there is one scene to a concept.
    """
    draw = torch.Generator().manual_seed(seed)
    texts, rows = [], []
    for number, concept in enumerate(CONCEPTS):
        for place in range(each):
            scene = place % scenes
            row = torch.randn(HIDDEN, generator=draw)
            row[number] += strength
            row[10 + scene] += of_scene
            texts.append(
                Text(
                    f"stories/{concept}/{split}{place}.txt",
                    "story",
                    concept,
                    f"scene {scene}",
                    "train" if split == "train" else "held_out",
                    f"{concept} {split} {place}",
                )
            )
            rows.append(row)
    return CorpusReading(CONCEPTS, tuple(texts), Activations({LAYER: torch.stack(rows)}, {}))


def readings(strength: float, seed: int = 0) -> Readings:
    held_out = reading(seed + 1, "held_out", strength)
    return Readings(reading(seed, "train", strength), held_out, reading(seed + 2, "held_out", strength / 4))


def test_planted_concepts_are_valid_and_their_controls_are_not() -> None:
    found = measure_validity(readings(3.0), "mean_difference").layers[LAYER]
    assert found.average.value > 0.97
    assert found.average.low > 0.9
    assert all(one.held_out.value > 0.95 and one.stability > 0.9 for one in found.concepts.values())
    assert 0.5 < found.keyword_free.value < found.average.value
    for mean, low, high in (found.random, found.shuffled):
        assert low < 0.5 < high
        assert mean == pytest.approx(0.5, abs=0.08)
    assert found.twin is None


def test_where_nothing_is_planted_nothing_is_found() -> None:
    found = measure_validity(readings(0.0), "mean_difference").layers[LAYER]
    assert found.average.low < 0.5 < found.average.high
    assert all(one.held_out.interval()[0] < 0.5 for one in found.concepts.values())


def test_a_twin_is_measured_by_directions_of_its_own() -> None:
    made = readings(3.0)
    # The twin's rows lean to other axes than the model's: the model's directions would tell nothing there.
    shift = torch.roll(torch.eye(HIDDEN), 20, 0)

    def turned(one: CorpusReading) -> CorpusReading:
        return replace(one, activations=Activations({LAYER: one.activations.rows_nh[LAYER] @ shift}, {}))

    twin = Readings(turned(made.train), turned(made.held_out), turned(made.keyword_free))
    found = measure_validity(made, "mean_difference", twin=twin).layers[LAYER]
    assert found.twin is not None
    assert found.twin.value == pytest.approx(found.average.value, abs=1e-9)


def test_a_direction_that_is_its_scene_does_not_transfer() -> None:
    """Each concept has scenes of its own, which alone tell it: held-out texts of the same scenes are told
    apart, scenes that were left out are not."""
    draw = torch.Generator().manual_seed(0)

    def made(split: str) -> CorpusReading:
        texts, rows = [], []
        for number, concept in enumerate(CONCEPTS):
            for place in range(24):
                scene = 4 * number + place % 4
                row = torch.randn(HIDDEN, generator=draw)
                row[scene] += 6
                texts.append(
                    Text(
                        f"stories/{concept}/{split}{place}.txt",
                        "story",
                        concept,
                        f"scene {scene:02}",
                        "train" if split == "train" else "held_out",
                        f"{split} {number} {place}",
                    )
                )
                rows.append(row)
        return CorpusReading(CONCEPTS, tuple(texts), Activations({LAYER: torch.stack(rows)}, {}))

    train, held_out = made("train"), made("held_out")
    found = measure_validity(Readings(train, held_out, held_out), "mean_difference").layers[LAYER]
    assert found.average.value > 0.9
    assert found.transfer is not None
    assert found.transfer.value < 0.6


def test_scenes_in_common_transfer() -> None:
    found = measure_validity(readings(3.0), "mean_difference").layers[LAYER]
    assert found.transfer is not None
    assert found.transfer.value > 0.9


def test_a_concept_of_one_scene_has_no_transfer() -> None:
    made = readings(3.0)
    train = replace(made.train, texts=tuple(replace(text, scene="one") for text in made.train.texts))
    found = measure_validity(replace(made, train=train), "mean_difference").layers[LAYER]
    assert found.transfer is None
    assert all(one.transfer is None for one in found.concepts.values())


def test_figures_are_the_same_for_the_same_seed_and_not_for_another() -> None:
    made = readings(1.0)
    one, same, other = (measure_validity(made, "mean_difference", seed=seed) for seed in (4, 4, 5))
    assert one == same
    assert one.layers[LAYER].random != other.layers[LAYER].random


def test_the_best_layer_is_where_the_average_is_highest() -> None:
    weak, strong = readings(0.3), readings(3.0)

    def both(first: CorpusReading, second: CorpusReading) -> CorpusReading:
        rows = {1: first.activations.rows_nh[LAYER], 5: second.activations.rows_nh[LAYER]}
        return replace(first, activations=Activations(rows, {}))

    made = Readings(
        both(weak.train, strong.train),
        both(weak.held_out, strong.held_out),
        both(weak.keyword_free, strong.keyword_free),
    )
    told: list[tuple[int, int]] = []
    found = measure_validity(made, "mean_difference", report=lambda done, of: told.append((done, of)))
    assert found.best_layer == 5
    assert told == [(1, 2), (2, 2)]


def test_a_concept_that_is_not_held_out_cannot_be_measured() -> None:
    made = readings(3.0)
    some = [number for number, text in enumerate(made.held_out.texts) if text.concept != "proud"]
    with pytest.raises(BadRows, match="proud"):
        replace(made, held_out=made.held_out.of(some))
