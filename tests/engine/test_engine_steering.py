"""What a request says in words about steering, and what it does to the stream of transformers' model."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steered_stream import CONCEPTS, Expected, streams, write_directions

from understudy.config import ModelSettings
from understudy.engine import (
    BadRequest,
    BrokenReadout,
    Directions,
    EmbeddedEngine,
    GenerationRequest,
    ReadoutManifest,
    ReadoutStatistics,
    Sampling,
    Slice,
    Steer,
    encode_text,
    write_miniature,
)

TEXTS = ("Please put the red cup on the table.", "What would you like?", "The door")
GREEDY = Sampling(max_tokens=6, temperature=0.0, ignore_eos=True)
NAMED_SPANS: tuple[Literal["answer", "prompt", "first"], ...] = ("answer", "prompt", "first")

# ------------------------------------------------------------------ in words


@pytest.mark.parametrize(
    ("text", "steer"),
    [
        ("calm=4", Steer("calm", 4.0)),
        ("add:calm=4", Steer("calm", 4.0)),
        ("calm=-.5e1@3", Steer("calm", -5.0, (3,))),
        ("calm=4x@3,1", Steer("calm", 4.0, (3, 1), in_lengths=True)),
        ("a=b=1", Steer("a=b", 1.0)),
        ("a@2=1", Steer("a@2", 1.0)),
        ("ablate:calm", Steer("calm", mode="ablate")),
        ("ablate:calm@3[12:]", Steer("calm", 1.0, (3,), "ablate", span=Slice(12))),
        ("ablate:calm=0.5", Steer("calm", 0.5, mode="ablate")),
        ("clamp:calm=2x[answer]", Steer("calm", 2.0, (), "clamp", True, "answer")),
        ("calm=1@0[prompt]", Steer("calm", 1.0, (0,), span="prompt")),
        ("calm=1[first]", Steer("calm", 1.0, span="first")),
        ("calm=1[:5]", Steer("calm", 1.0, span=Slice(0, 5))),
        ("calm=1[2:5]", Steer("calm", 1.0, span=Slice(2, 5))),
        ("add:add:x=1", Steer("add:x", 1.0)),
        ("clamp:ablate:x=1", Steer("ablate:x", 1.0, mode="clamp")),
        ("other:x=1", Steer("other:x", 1.0)),
    ],
)
def test_the_grammar(text: str, steer: Steer) -> None:
    assert Steer.parse(text) == steer
    assert Steer.parse(str(steer)) == steer


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("calm", "a strength for add and clamp"),
        ("clamp:calm", "a strength for add and clamp"),
        ("ablate:", "span of answer, prompt, first or start:end"),
        ("ablate:calm=much", "expected"),
        ("calm=1@3,", "expected"),
        ("calm=1@3@4", "expected"),
        ("calm=1[", "expected"),
        ("calm=1[5]", "expected"),
        ("calm=1[-3:]", "expected"),
        ("calm=1[question]", "expected"),
        ("calm=1[1:2]@3", "expected"),
        ("calm=\u0661", "expected"),
        ("calm=1e999", "a finite strength"),
        ("calm=1@3,3", "different layers"),
        ("calm=1[5:5]", "a span of at least one position"),
        ("ablate:calm=2x", "a strength without x for ablate"),
    ],
)
def test_what_is_no_steer_is_refused_with_the_reason(text: str, match: str) -> None:
    with pytest.raises(BadRequest, match=match):
        Steer.parse(text)


spans = (
    st.none()
    | st.sampled_from(NAMED_SPANS)
    | st.builds(
        lambda start, more: Slice(start, None if more is None else start + more),
        st.integers(0, 10**6),
        st.none() | st.integers(1, 10**6),
    )
)
modes = st.sampled_from(["add", "ablate", "clamp"])
names = st.text(min_size=1) | st.text("adlbtecmp:=x@[],0123456789", min_size=1)


@given(
    names,
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers(0, 10**6), unique=True).map(tuple),
    modes,
    st.booleans(),
    spans,
)
def test_a_steer_comes_back_as_it_was_written(
    concept: str, strength: float, layers: tuple[int, ...], mode: Any, in_lengths: bool, span: Any
) -> None:
    steer = Steer(concept, strength, layers, mode, in_lengths and mode != "ablate", span)
    assert Steer.parse(str(steer)) == steer


@given(st.text() | names.map(lambda text: f"ablate:{text}=1"))
def test_any_text_is_a_steer_or_refused(text: str) -> None:
    try:
        steer = Steer.parse(text)
    except BadRequest:
        return
    assert Steer.parse(str(steer)) == steer


# ------------------------------------------------------------------ in the stream


@pytest.fixture(scope="module", params=["qwen3", "qwen3_5", "llama"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedEngine]:
    folder = tmp_path_factory.mktemp(request.param)
    write_miniature(folder / "model", request.param)
    write_directions(folder / "directions", 32)
    with EmbeddedEngine(ModelSettings(), folder / "model", readout=folder / "directions") as opened:
        yield opened


def directions_of(engine: EmbeddedEngine) -> Directions:
    assert engine.directions is not None
    return engine.directions


def asked(engine: EmbeddedEngine, texts: Sequence[str], samples: int = 1) -> GenerationRequest:
    """Prompts of different lengths, so that rows are padded."""
    prompts = tuple(tuple(encode_text(engine.tokenizer, text)) for text in TEXTS)
    assert len({len(prompt) for prompt in prompts}) == len(prompts)
    return GenerationRequest(prompts, GREEDY, samples, "all", tuple(Steer.parse(text) for text in texts))


def norm(directions: Directions, layer: int, concept: str) -> float:
    assert directions.statistics is not None
    return directions.statistics.norms[layer][CONCEPTS.index(concept)]


ALWAYS = range(1000)
Make = Callable[[Directions, int], list[Expected]]
"""What is expected, from the directions and the prompt's last position."""
CASES: list[tuple[list[str], Make]] = [
    (["calm=0.5"], lambda d, last: [Expected("add", "calm", 0.5)]),
    (["ablate:calm"], lambda d, last: [Expected("ablate", "calm", 1.0)]),
    (["ablate:proud=0.5@1"], lambda d, last: [Expected("ablate", "proud", 0.5, (1,))]),
    (["clamp:curious=3@0,1"], lambda d, last: [Expected("clamp", "curious", 3.0)]),
    (["calm=2[answer]"], lambda d, last: [Expected("add", "calm", 2.0, positions=ALWAYS[last:])]),
    (["calm=2[prompt]"], lambda d, last: [Expected("add", "calm", 2.0, positions=ALWAYS[:last])]),
    (["calm=3[first]"], lambda d, last: [Expected("add", "calm", 3.0, positions=ALWAYS[last : last + 1])]),
    (
        ["calm=-2x@0[first]", "ablate:proud[prompt]"],
        lambda d, last: [
            Expected("add", "calm", -2 * norm(d, 0, "calm"), (0,), ALWAYS[last : last + 1]),
            Expected("ablate", "proud", 1.0, positions=ALWAYS[:last]),
        ],
    ),
    (["clamp:calm=2@1[3:]"], lambda d, last: [Expected("clamp", "calm", 2.0, (1,), ALWAYS[3:])]),
    (["ablate:calm[1:9]"], lambda d, last: [Expected("ablate", "calm", 1.0, positions=ALWAYS[1:9])]),
    (
        ["calm=4x"],
        lambda d, last: [Expected("add", "calm", 4 * norm(d, n, "calm"), (n,)) for n in (0, 1)],
    ),
    (
        ["clamp:proud=-2x@1[answer]"],
        lambda d, last: [Expected("clamp", "proud", -2 * norm(d, 1, "proud"), (1,), ALWAYS[last:])],
    ),
    (
        ["ablate:calm", "curious=1", "calm=1", "clamp:proud=1@0[:4]", "proud=-1"],
        lambda d, last: [
            Expected("ablate", "calm", 1.0),
            Expected("add", "curious", 1.0),
            Expected("add", "calm", 1.0),
            Expected("clamp", "proud", 1.0, (0,), ALWAYS[:4]),
            Expected("add", "proud", -1.0),
        ],
    ),
    (
        ["calm=1", "curious=1", "ablate:calm"],
        lambda d, last: [
            Expected("add", "calm", 1.0),
            Expected("add", "curious", 1.0),
            Expected("ablate", "calm", 1.0),
        ],
    ),
]


@pytest.mark.parametrize(("texts", "make"), CASES, ids=[" ".join(texts) for texts, _ in CASES])
def test_each_way_of_steering_is_what_hooks_on_transformers_do(
    engine: EmbeddedEngine, texts: list[str], make: Make
) -> None:
    request, directions = asked(engine, texts, samples=2), directions_of(engine)
    for row, said in enumerate(engine.complete(request)):
        prompt = request.prompts[row // 2]
        steers = make(directions, len(prompt) - 1)
        rows = streams(engine.model, [*prompt, *said.token_ids[:-1]], directions, steers)
        found = torch.tensor([*said.prompt_readout, *list(said.readout)[1:]])
        assert torch.allclose(found, rows, atol=1e-3, rtol=1e-4), (row, (found - rows).abs().max())


def test_what_is_ablated_says_nothing_and_what_is_clamped_says_so_much(engine: EmbeddedEngine) -> None:
    directions = directions_of(engine)
    for text, expected in (("ablate:calm", 0.0), ("clamp:calm=2.5", 2.5)):
        for said in engine.complete(asked(engine, [text])):
            found = torch.tensor([*said.prompt_readout, *said.readout])[:, :, 0]
            lengths = torch.stack([directions.vectors_ch[layer][0].norm() for layer in (0, 1)])
            assert torch.allclose(found / lengths, torch.full_like(found, expected), atol=1e-4)


@pytest.mark.parametrize("span", ["answer", "first"])
def test_rows_that_end_and_rows_that_stay_keep_their_own_positions(engine: EmbeddedEngine, span: str) -> None:
    """A row that leaves the batch moves the others to other places."""
    request = asked(engine, [f"calm=2[{span}]"])
    alone = [engine.complete(replace(request, prompts=(prompt,)))[0] for prompt in request.prompts]
    stop = alone[1].text[:1]
    stopped = replace(request, sampling=replace(GREEDY, stop=(stop,)))
    for said, other in zip(engine.complete(stopped), alone, strict=True):
        count = len(said.token_ids)
        assert said.token_ids == other.token_ids[:count]
        assert torch.allclose(torch.tensor(said.readout), torch.tensor(other.readout)[:count], atol=1e-3)


def test_a_span_that_is_never_reached_changes_nothing(engine: EmbeddedEngine) -> None:
    request = replace(asked(engine, ["calm=3[500:]"]), sampling=replace(GREEDY, logprobs=0))
    plain = engine.complete(replace(request, steering=()))
    assert [said.logprobs for said in engine.complete(request)] == [said.logprobs for said in plain]


def test_a_direction_without_length_is_only_added(tmp_path: Path) -> None:
    manifest = ReadoutManifest(concepts=["calm"], layers=[0], hidden_size=4, dtype="float32")
    nothing = Directions(manifest, {0: torch.zeros(1, 4)})
    nothing.steering([Steer("calm", 1.0)])
    for text in ("ablate:calm", "clamp:calm=1"):
        with pytest.raises(BadRequest, match="a direction with a length"):
            nothing.steering([Steer.parse(text)])


def test_strengths_in_lengths_need_statistics(tmp_path: Path) -> None:
    bare = write_directions(tmp_path, 32, statistics=False)
    assert "statistics" not in json.loads((tmp_path / "readout.json").read_text())
    with pytest.raises(BadRequest, match=r"have no statistics: `norms` of `statistics` in readout\.json"):
        bare.steering([Steer.parse("calm=4x")])


# ------------------------------------------------------------------ statistics


def test_statistics_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = write_directions(tmp_path, 32)
    file = tmp_path / "readout.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "card": "left alone"}))
    read = Directions.load(tmp_path)
    assert read.manifest == made.manifest and read.statistics == made.statistics
    assert read.statistics is not None
    raw = torch.randn(5, 2, 3).double()
    mean, deviation = torch.tensor(read.statistics.mean), torch.tensor(read.statistics.deviation)
    assert torch.allclose(
        torch.tensor(read.statistics.standardize(raw.tolist())), (raw - mean) / deviation, atol=1e-6
    )


ROW = [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mean": [ROW]}, r"statistics\.mean of 2 layers with 3 concepts each, got \[3\]"),
        (
            {"deviation": [ROW, ROW[:2]]},
            r"statistics\.deviation of 2 layers with 3 concepts each, got \[3, 2\]",
        ),
        ({"norms": [ROW, ROW, ROW]}, r"statistics\.norms of 2 layers"),
        ({"deviation": [ROW, [0.5, 0.0, 0.5]]}, r"statistics\.deviation above 0"),
        ({"deviation": [ROW, [0.5, -1.0, 0.5]]}, r"of at least 0 in statistics\.deviation"),
        ({"mean": [ROW, [0.5, float("nan"), 0.5]]}, "readout.json"),
        ({"norms": [ROW, [0.5, -1.0, 0.5]]}, r"of at least 0 in statistics\.norms"),
        ({"tokens": 0}, "tokens"),
    ],
)
def test_statistics_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: dict[str, object], match: str
) -> None:
    write_directions(tmp_path, 32)
    file = tmp_path / "readout.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "statistics": {**manifest["statistics"], **change}}))
    with pytest.raises(BrokenReadout, match=match):
        Directions.load(tmp_path)


def test_statistics_are_checked_before_they_are_written() -> None:
    with pytest.raises(BrokenReadout, match=r"finite numbers in statistics\.mean"):
        ReadoutManifest(
            concepts=["calm"],
            layers=[0],
            hidden_size=4,
            dtype="float32",
            statistics=ReadoutStatistics(mean=[[float("inf")]], deviation=[[1.0]], norms=[[1.0]], tokens=1),
        )
