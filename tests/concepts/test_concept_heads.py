"""Heads by what they write, held to the model's own projections."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from understudy.concepts import heads
from understudy.concepts.corpus import Corpus, load_corpus
from understudy.concepts.encoding import Pooling, encode
from understudy.concepts.heads import (
    LayerHeads,
    Mixer,
    NotDecomposed,
    decompose_heads,
    find_mixer,
    project_heads,
    read_heads,
)
from understudy.concepts.reading import CorpusReading, Recipe, read_corpus
from understudy.engine import Architecture, LoadedModel, decoder_layers, load_model, write_miniature

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "qwen3_5")
POOLING = Pooling(3)
RECIPE = Recipe(layers=("all",), pooling=POOLING)
TEXTS = {
    "paired/door/baseline.txt": "The door is open and someone walks through it.",
    "paired/door/calm.txt": "She breathes, and the door is open, and there is time.",
    "paired/door/proud.txt": "He walked through the door as if he had built it.",
    "paired/cup/baseline.txt": "The cup is on the table.",
    "paired/cup/calm.txt": "The cup is warm and the table is quiet this morning.",
    "paired/cup/proud.txt": "Look at the cup, I made it.",
    "stories/calm/sea.txt": "Slow water.",
    "stories/proud/race.txt": "They all saw me win.",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    for path, text in TEXTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return load_corpus(folder)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_miniature(tmp_path_factory.mktemp("model"), request.param), "float32")


@pytest.fixture(scope="module")
def reading(loaded: LoadedModel, corpus: Corpus) -> CorpusReading:
    return read_corpus(loaded, corpus, RECIPE)


def directions(reading: CorpusReading) -> dict[int, torch.Tensor]:
    return {layer: reading.vectors(layer, "mean_difference") for layer in reading.layers}


def mixers(loaded: LoadedModel) -> dict[int, Mixer]:
    found = {number: find_mixer(layer) for number, layer in enumerate(decoder_layers(loaded.model))}
    return {number: mixer for number, mixer in found.items() if isinstance(mixer, Mixer)}


@torch.no_grad()
def passing(loaded: LoadedModel, module: Any, reading: CorpusReading) -> tuple[torch.Tensor, torch.Tensor]:
    """What a module takes and gives, by a hook of its own, text by text and never padded: [n, ...] each."""
    taken, given = [], []

    def see(_module: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        taken.append(inputs[0][0])
        given.append((output[0] if isinstance(output, tuple) else output)[0])

    hook = module.register_forward_hook(see)
    spans = [(text.ids, *POOLING.span(text)) for text in encode(loaded.tokenizer, reading.texts)]
    for ids, _, _ in spans:
        loaded.model(torch.tensor([ids]))
    hook.remove()
    found = []
    for rows in (taken, given):
        means = [row[start:end].mean(0) for row, (_, start, end) in zip(rows, spans, strict=True)]
        found.append(torch.stack(means))
    return found[0], found[1]


def test_every_layer_is_known(loaded: LoadedModel) -> None:
    kinds = [mixer.kind for mixer in mixers(loaded).values()]
    layers = len(decoder_layers(loaded.model))
    assert kinds == (["delta"] * 3 + ["attention"] if layers == 4 else ["attention"] * 2)
    assert [mixer.heads for mixer in mixers(loaded).values()] == ([2, 2, 2, 4] if layers == 4 else [4, 4])


def test_heads_sum_to_what_the_projection_gives(loaded: LoadedModel, reading: CorpusReading) -> None:
    read = read_heads(loaded, reading, mixers(loaded), RECIPE)
    for layer, mixer in mixers(loaded).items():
        heads_nkw = read.rows_nh[layer].reshape(len(reading.texts), mixer.heads, mixer.width)
        _, given = passing(loaded, mixer.projection, reading)
        torch.testing.assert_close(project_heads(mixer, heads_nkw).sum(1), given, rtol=1e-5, atol=1e-5)


def test_figures_are_those_of_heads_run_alone(loaded: LoadedModel, reading: CorpusReading) -> None:
    found = decompose_heads(loaded, reading, directions(reading), RECIPE)
    for layer, mixer in mixers(loaded).items():
        apart = found[layer]
        assert isinstance(apart, LayerHeads)
        taken, given = passing(loaded, mixer.projection, reading)
        _, stream = passing(loaded, decoder_layers(loaded.model)[layer], reading)
        for number, concept in enumerate(reading.concepts):
            shown = np.array([label == number for label in reading.labels])
            direction = directions(reading)[layer][number].double().numpy()
            whole = difference(stream, shown) @ direction
            for head in apart.concepts[concept].top:
                own = slice(head.head * mixer.width, (head.head + 1) * mixer.width)
                alone = torch.zeros_like(taken)
                alone[:, own] = taken[:, own]
                written = difference(mixer.projection(alone).detach(), shown)
                assert head.norm == pytest.approx(np.linalg.norm(written), rel=1e-4)
                assert head.along == pytest.approx(written @ direction, rel=1e-3, abs=1e-5)
                assert head.share == pytest.approx(head.along / whole, rel=1e-3, abs=1e-5)
                rest = taken[:, own].double().numpy()[~shown]
                deviation = np.sqrt(rest.var(0, ddof=1).sum())
                length = np.linalg.norm(difference(taken[:, own], shown))
                assert head.selectivity == pytest.approx(length / deviation, rel=1e-4)
            all_heads = difference(given, shown) @ direction / whole
            assert apart.concepts[concept].share == pytest.approx(all_heads, rel=1e-3, abs=1e-5)
            norms = [head.norm for head in apart.concepts[concept].top]
            assert norms == sorted(norms, reverse=True) and len(norms) == mixer.heads
            assert apart.concepts[concept].concentration == pytest.approx(1)


def difference(rows: torch.Tensor, shown: Any) -> Any:
    values = rows.double().numpy()
    return values[shown].mean(0) - values[~shown].mean(0)


def test_the_first_heads_are_weighed_against_all(
    loaded: LoadedModel, reading: CorpusReading, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decompose_heads(loaded, reading, directions(reading), RECIPE)
    monkeypatch.setattr(heads, "TOP_HEADS", 1)
    for layer, apart in decompose_heads(loaded, reading, directions(reading), RECIPE).items():
        every = whole[layer]
        assert isinstance(apart, LayerHeads) and isinstance(every, LayerHeads)
        assert apart.even == 1 / apart.heads
        for concept, found in apart.concepts.items():
            norms = [head.norm for head in every.concepts[concept].top]
            assert found.top == every.concepts[concept].top[:1]
            assert found.concentration == pytest.approx(norms[0] / sum(norms))


def test_a_projection_with_a_bias(corpus: Corpus, tmp_path: Path) -> None:
    loaded = load_model(write_miniature(tmp_path, "llama"), "float32")
    projection = torch.nn.Linear(64, 32)
    decoder_layers(loaded.model)[0].self_attn.o_proj = projection
    reading, own = read_corpus(loaded, corpus, RECIPE), {0: mixers(loaded)[0]}
    heads_nkw = read_heads(loaded, reading, own, RECIPE).rows_nh[0].reshape(-1, 4, 16)
    _, given = passing(loaded, projection, reading)
    summed = project_heads(own[0], heads_nkw).sum(1) + projection.bias
    torch.testing.assert_close(summed, given, rtol=1e-5, atol=1e-5)


def test_one_negative_text_has_no_deviation(tmp_path: Path) -> None:
    for name, text in (("calm", "Slow water."), ("baseline", "Water.")):
        (tmp_path / "paired" / "sea").mkdir(parents=True, exist_ok=True)
        (tmp_path / "paired" / "sea" / f"{name}.txt").write_text(text)
    loaded = load_model(write_miniature(tmp_path / "model", "qwen3"), "float32")
    reading = read_corpus(loaded, load_corpus(tmp_path), RECIPE)
    found = decompose_heads(loaded, reading, directions(reading), RECIPE)[0]
    assert isinstance(found, LayerHeads)
    assert [head.selectivity for head in found.concepts["calm"].top] == [None] * 4


# ---------------------------------------------------------------------- layers that are not taken apart


def test_a_layer_that_norms_what_heads_add_says_so(corpus: Corpus, tmp_path: Path) -> None:
    loaded = load_model(write_miniature(tmp_path, "llama"), "float32")
    decoder_layers(loaded.model)[0].post_feedforward_layernorm = torch.nn.Identity()
    reading = read_corpus(loaded, corpus, RECIPE)
    found = decompose_heads(loaded, reading, directions(reading), RECIPE)
    assert isinstance(found[0], NotDecomposed) and "post_feedforward_layernorm" in found[0].reason
    assert isinstance(found[1], LayerHeads)
    only = decompose_heads(loaded, reading, {0: directions(reading)[0]}, RECIPE)
    assert only == {0: found[0]}


def test_unknown_mixers_say_what_was_found() -> None:
    layer: Any = torch.nn.Module()
    assert "found neither among no modules" in reason(layer)
    layer.mixer = torch.nn.Linear(4, 4)
    assert "found neither among mixer" in reason(layer)
    layer.self_attn = torch.nn.Module()
    layer.self_attn.o_proj = torch.nn.Identity()
    assert "expected self_attn.o_proj with a matrix of real numbers, found Identity" in reason(layer)
    layer.self_attn.o_proj = torch.nn.Linear(30, 8)
    assert "found None for its 30 columns" in reason(layer)
    layer.self_attn.head_dim = 16
    assert "found 16 for its 30 columns" in reason(layer)
    layer.self_attn.head_dim = 10
    known = find_mixer(layer)
    assert isinstance(known, Mixer) and (known.kind, known.heads, known.width) == ("attention", 3, 10)


def reason(layer: torch.nn.Module) -> str:
    found = find_mixer(layer)
    assert isinstance(found, NotDecomposed)
    return found.reason
