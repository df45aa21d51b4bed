"""From files to directions that were measured, on a tiny model with a concept planted in its embeddings."""

from pathlib import Path

import pytest
import torch
from planted_corpus import write_texts

from understudy.concepts import (
    BadRows,
    Corpus,
    Manifest,
    Pooling,
    Recipe,
    UnknownLayer,
    extract,
    load_corpus,
    write_manifest,
)
from understudy.concepts.extraction import Stage
from understudy.engine import Directions, LoadedModel, load_model, untrained_twin, write_miniature

RECIPE = Recipe(layers=("0", "100%"), pooling=Pooling(None))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_miniature(tmp_path_factory.mktemp("model"), "qwen3"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_texts(tmp_path_factory.mktemp("corpus"))


def test_directions_are_of_length_one_and_made_from_training_texts(
    loaded: LoadedModel, corpus: Corpus, tmp_path: Path
) -> None:
    found = extract(loaded, corpus, RECIPE).directions
    assert found.concepts == ("cold", "warm")
    assert found.layers == (0, 1)
    for vectors in found.vectors_ch.values():
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))
    # Held-out texts may say anything: no direction changes.
    for path in corpus.manifest.held_out:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
    other = write_texts(tmp_path)
    for path in other.manifest.held_out:
        (tmp_path / path).write_text("Something else altogether.\n", encoding="utf-8")
    changed = extract(loaded, load_corpus(tmp_path), RECIPE).directions
    for layer, vectors in found.vectors_ch.items():
        torch.testing.assert_close(vectors, changed.vectors_ch[layer])


def test_a_planted_word_is_found_where_it_was_not_read(loaded: LoadedModel, corpus: Corpus) -> None:
    validity = extract(loaded, corpus, RECIPE).validity
    assert validity is not None
    assert set(validity.layers) == {0, 1}
    assert validity.layers[validity.best_layer].average.value > 0.9


def test_statistics_are_those_of_the_baselines_tokens(loaded: LoadedModel, corpus: Corpus) -> None:
    found = extract(loaded, corpus, RECIPE)
    statistics = found.directions.statistics
    assert statistics is not None
    readouts = []
    for text in corpus.texts:
        if text.kind == "baseline":
            ids = loaded.tokenizer(text.text)["input_ids"]
            with torch.no_grad():
                told = loaded.model(torch.tensor([ids]), use_cache=False, output_hidden_states=True)
            readouts.append(told.hidden_states[1][0] @ found.directions.vectors_ch[0].T)
    expected = torch.cat(readouts)
    assert statistics.tokens == len(expected)
    torch.testing.assert_close(torch.tensor(statistics.mean[0]), expected.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(statistics.deviation[0]), expected.std(0), atol=1e-4, rtol=1e-4)
    train = found.reading.split("train")
    difference = train.contrast("warm", 0).mean_difference_h
    assert statistics.norms[0][1] == pytest.approx(difference.norm().item(), rel=1e-5)


def test_without_baselines_all_training_tokens_stand_for_them(loaded: LoadedModel, tmp_path: Path) -> None:
    bare = write_texts(tmp_path, baselines=0)
    statistics = extract(loaded, bare, RECIPE).directions.statistics
    assert statistics is not None
    tokens = [len(loaded.tokenizer(text.text)["input_ids"]) for text in bare.of("train")]
    assert statistics.tokens == sum(tokens)


def test_what_is_saved_is_read_again(loaded: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    made = extract(loaded, corpus, RECIPE).directions
    made.save(tmp_path / "readout")
    found = Directions.load(tmp_path / "readout")
    assert found.manifest == made.manifest
    for layer, vectors in made.vectors_ch.items():
        assert torch.equal(vectors, found.vectors_ch[layer])


def test_a_twin_is_read_and_measured_beside(loaded: LoadedModel, corpus: Corpus) -> None:
    stages: list[Stage] = []
    twin = untrained_twin(loaded, seed=1)
    assert not torch.equal(
        twin.model.get_input_embeddings().weight, loaded.model.get_input_embeddings().weight
    )
    found = extract(
        loaded, corpus, RECIPE, twin=twin, told=lambda stage, done, of, left: stages.append(stage)
    )
    assert found.validity is not None
    assert all(layer.twin is not None for layer in found.validity.layers.values())
    assert {"reading", "reading by an untrained twin", "reading without keywords", "measuring"} == set(stages)


def test_where_nothing_is_held_out_nothing_is_measured(loaded: LoadedModel, tmp_path: Path) -> None:
    write_texts(tmp_path)
    write_manifest(tmp_path, Manifest())
    assert extract(loaded, load_corpus(tmp_path), RECIPE).validity is None


def test_every_method_goes_the_whole_way(loaded: LoadedModel, corpus: Corpus) -> None:
    for method in ("pair_pca", "logistic", "subspace", "whitened_mean"):
        recipe = Recipe(layers=("0",), method=method, pooling=Pooling(None))
        validity = extract(loaded, corpus, recipe).validity
        assert validity is not None
        assert validity.layers[0].average.value > 0.8, method


def test_an_unknown_layer_and_a_concept_that_is_not_held_out_are_named(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    made = write_texts(tmp_path)
    with pytest.raises(UnknownLayer, match="0 to 1"):
        extract(loaded, made, Recipe(layers=("7",)))
    write_manifest(tmp_path, Manifest(held_out=("stories/warm/s0.txt",)))
    with pytest.raises(BadRows, match="cold"):
        extract(loaded, load_corpus(tmp_path), RECIPE)
