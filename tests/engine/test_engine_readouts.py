"""What is read from the residual stream is transformers' hidden states; what is added to it steers."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from understudy.config import ModelSettings
from understudy.engine import (
    BadRequest,
    BrokenReadout,
    Directions,
    EmbeddedEngine,
    GenerationRequest,
    NoDirections,
    ReadoutManifest,
    Sampling,
    Steer,
    encode_text,
    gather_completions,
    write_miniature,
)

CONCEPTS = ["calm", "curious", "proud"]
TEXTS = ("Please put the red cup on the table.", "What would you like?", "The door")
GREEDY = Sampling(max_tokens=6, temperature=0.0, ignore_eos=True)


def write_directions(folder: Path, hidden_size: int, layers: tuple[int, ...]) -> Directions:
    draw = torch.Generator().manual_seed(0)
    made = Directions(
        ReadoutManifest(concepts=CONCEPTS, layers=list(layers), hidden_size=hidden_size, dtype="float32"),
        {layer: torch.randn(len(CONCEPTS), hidden_size, generator=draw) for layer in layers},
    )
    made.save(folder)
    return made


@pytest.fixture(scope="module", params=["qwen3", "qwen3_5", "llama"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedEngine]:
    folder = tmp_path_factory.mktemp(request.param)
    write_miniature(folder / "model", request.param)
    write_directions(folder / "directions", 32, (0, 1))
    with EmbeddedEngine(ModelSettings(), folder / "model", readout=folder / "directions") as opened:
        yield opened


def prompts(engine: EmbeddedEngine) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(encode_text(engine.tokenizer, text)) for text in TEXTS)


def expected(engine: EmbeddedEngine, ids: list[int], added: dict[int, torch.Tensor] | None = None) -> Any:
    """[tokens][layers][concepts] by transformers' own hooks, one sequence without a cache."""
    assert engine.directions is not None
    found: dict[int, torch.Tensor] = {}

    def after(layer: int) -> Any:
        def hook(_module: Any, _given: Any, stream: torch.Tensor) -> torch.Tensor:
            moved = stream + (added or {}).get(layer, torch.zeros(1))
            found[layer] = moved[0]
            return moved

        return hook

    hooks = [engine.model.model.layers[n].register_forward_hook(after(n)) for n in engine.directions.layers]
    with torch.no_grad():
        engine.model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack([found[n] @ v.T for n, v in engine.directions.vectors_ch.items()], dim=1)


def test_each_token_carries_what_was_read_where_it_was_chosen(engine: EmbeddedEngine) -> None:
    request = GenerationRequest(prompts(engine), GREEDY, samples=2, readout="all")
    for row, said in enumerate(engine.complete(request)):
        prompt = request.prompts[row // 2]
        rows = expected(engine, [*prompt, *said.token_ids[:-1]])
        assert torch.allclose(torch.tensor(said.prompt_readout), rows[: len(prompt)], atol=1e-4)
        assert torch.allclose(torch.tensor(said.readout), rows[len(prompt) - 1 :], atol=1e-4)
        assert len(said.readout) == len(said.token_ids) == 6


def test_answers_are_the_same_with_and_without(engine: EmbeddedEngine) -> None:
    request = GenerationRequest(prompts(engine), replace(GREEDY, logprobs=0))
    plain = engine.complete(request)
    read = engine.complete(replace(request, readout="answer"))
    assert [said.logprobs for said in plain] == [said.logprobs for said in read]
    assert not any(said.readout or said.prompt_readout for said in plain)
    assert not any(said.prompt_readout for said in read)


def test_steering_adds_to_the_stream_at_its_layers(engine: EmbeddedEngine) -> None:
    assert engine.directions is not None
    vectors = engine.directions.vectors_ch
    steering = (Steer("calm", 0.5), Steer("proud", -1.0, (1,)))
    added = {0: 0.5 * vectors[0][0], 1: 0.5 * vectors[1][0] - vectors[1][2]}
    [ids] = prompts(engine)[:1]
    request = GenerationRequest((ids,), GREEDY, readout="all", steering=steering)
    [said] = engine.complete(request)
    rows = expected(engine, [*ids, *said.token_ids[:-1]], added)
    assert torch.allclose(torch.tensor(said.readout), rows[len(ids) - 1 :], atol=1e-4)
    assert torch.allclose(torch.tensor(said.prompt_readout), rows[: len(ids)], atol=1e-4)


def test_requests_beside_it_are_not_steered(engine: EmbeddedEngine) -> None:
    plain = GenerationRequest(prompts(engine), replace(GREEDY, logprobs=0))
    steered = replace(plain, steering=(Steer("calm", 3.0),))
    alone, strong = engine.complete(plain), engine.complete(steered)
    assert [said.logprobs for said in alone] != [said.logprobs for said in strong]

    async def together() -> list[Any]:
        streams = [engine.submit(plain if n % 2 else steered) for n in range(6)]
        return [[step async for steps in stream for step in steps] for stream in streams]

    for number, steps in enumerate(asyncio.run(together())):
        said = gather_completions(steps, len(TEXTS))
        wanted = alone if number % 2 else strong
        assert [one.token_ids for one in said] == [one.token_ids for one in wanted]


@pytest.mark.parametrize(
    ("steer", "match"),
    [
        (Steer("angry", 1.0), "a concept that is loaded .calm, curious, proud., got 'angry'"),
        (Steer("calm", 1.0, (7,)), r"a layer of \[0, 1\], got 7"),
    ],
)
def test_what_there_is_no_direction_for_is_refused(engine: EmbeddedEngine, steer: Steer, match: str) -> None:
    with pytest.raises(BadRequest, match=match):
        engine.complete(GenerationRequest(((5,),), GREEDY, steering=(steer,)))


def test_without_directions_nothing_is_read_or_steered(tmp_path: Path) -> None:
    with EmbeddedEngine(ModelSettings(), write_miniature(tmp_path / "m", "llama")) as bare:
        for asked in ({"readout": "answer"}, {"steering": (Steer("calm", 1.0),)}):
            with pytest.raises(NoDirections, match="name their folder with `readout`"):
                bare.complete(GenerationRequest(((5,),), GREEDY, **asked))


@pytest.mark.parametrize("text", ["calm", "calm=", "=1", "calm=x", "calm=nan", "calm=1@", "calm=1@two"])
def test_steering_in_words(text: str) -> None:
    with pytest.raises(BadRequest, match=r"expected \[mode:\]concept\[=strength\]"):
        Steer.parse(text)
    assert Steer.parse("a=b=-2.5@3") == Steer("a=b", -2.5, (3,))
    assert Steer.parse(str(Steer("calm", 1e-7))) == Steer("calm", 1e-7)


def test_the_files_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = write_directions(tmp_path, 32, (1, 3))
    read = Directions.load(tmp_path)
    assert read.manifest == made.manifest and read.layers == (1, 3)
    assert all(torch.equal(read.vectors_ch[layer], made.vectors_ch[layer]) for layer in made.layers)
    assert json.loads((tmp_path / "readout.json").read_text()).keys() == {
        "concepts",
        "layers",
        "hidden_size",
        "dtype",
    }


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"layers": [1]}, "layer_3.vectors is only in one"),
        ({"layers": [3, 1]}, "ascending order"),
        ({"layers": [1, 1]}, "different layers"),
        ({"layers": []}, "readout.json"),
        ({"concepts": ["calm", "calm", "proud"]}, "different concepts"),
        ({"concepts": ["calm", "proud"]}, r"of shape \(2, 32\)"),
        ({"concepts": ["calm", "", "proud"]}, "readout.json"),
        ({"dtype": "pickle"}, "an element type"),
        ({"hidden_size": 16}, r"got \(3, 32\)"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: dict[str, object], match: str
) -> None:
    write_directions(tmp_path, 32, (1, 3))
    manifest = json.loads((tmp_path / "readout.json").read_text())
    (tmp_path / "readout.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(BrokenReadout, match=match):
        Directions.load(tmp_path)


def test_broken_and_missing_files_and_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenReadout, match=r"expected a description"):
        Directions.load(tmp_path)
    write_directions(tmp_path, 32, (1,))
    save_file({"layer_1.vectors": torch.full((3, 32), torch.nan)}, tmp_path / "readout.safetensors")
    with pytest.raises(BrokenReadout, match=r"finite numbers in layer_1\.vectors"):
        Directions.load(tmp_path)
    (tmp_path / "readout.safetensors").write_bytes(b"nothing")
    with pytest.raises(BrokenReadout, match="expected vectors in"):
        Directions.load(tmp_path)
    write_directions(tmp_path, 32, (5,))
    model = write_miniature(tmp_path / "m", "llama")
    with pytest.raises(BrokenReadout, match="made from another model"):
        EmbeddedEngine(ModelSettings(), model, readout=tmp_path)
