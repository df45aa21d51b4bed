"""Scores against a plain float32 pass over each whole sequence."""

from collections.abc import Iterator

import pytest
import torch

from understudy.config import ModelSettings
from understudy.engine import (
    Architecture,
    BadRequest,
    EmbeddedEngine,
    Score,
    ScoreRequest,
    load_model,
    write_miniature,
)

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "qwen3_5")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedEngine]:
    directory = write_miniature(tmp_path_factory.mktemp("model"), request.param, context_length=600)
    with EmbeddedEngine(ModelSettings(), directory) as engine:
        yield engine


def plain(engine: EmbeddedEngine, sequence: ScoreRequest) -> list[list[float]]:
    """By the book: all logits, then the numbers that were asked for."""
    with torch.no_grad():
        logprobs = engine.model(torch.tensor([sequence.token_ids])).logits[0].double().log_softmax(-1)
    return [
        [logprobs[i - 1, sequence.token_ids[i]].item() for i in range(start, end)]
        for start, end in sequence.ranges
    ]


def random_ids(length: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, 300, (length,), generator=generator).tolist())


def agree(found: Score, expected: list[list[float]]) -> bool:
    flat = [number for part in found.logprobs for number in part]
    return [len(part) for part in found.logprobs] == [
        len(part) for part in expected
    ] and flat == pytest.approx([number for part in expected for number in part], abs=1e-4)


def test_scores_equal_a_plain_pass_in_any_order_and_length(engine: EmbeddedEngine) -> None:
    sequences = [
        ScoreRequest(random_ids(90, 1), ((1, 4), (80, 90))),
        ScoreRequest(random_ids(2, 2), ((1, 2),)),
        ScoreRequest(random_ids(300, 3), ((10, 300), (5, 7))),  # more positions than one softmax takes
        ScoreRequest(random_ids(40, 4), ((39, 40), (1, 2), (1, 2))),
        *(ScoreRequest(random_ids(500, seed), ((499, 500),)) for seed in range(5, 12)),  # more than one pass
    ]
    scores = engine.score(sequences)
    for sequence, score in zip(sequences, scores, strict=True):
        assert agree(score, plain(engine, sequence))


def test_the_whole_context_can_be_scored_and_no_more(engine: EmbeddedEngine) -> None:
    limit = engine.context_length
    full = ScoreRequest(random_ids(limit, 1), ((limit - 1, limit),))
    [score] = engine.score([full])
    assert agree(score, plain(engine, full))
    with pytest.raises(BadRequest, match=f"at most {limit} tokens.*got {limit + 1}"):
        engine.score([ScoreRequest(random_ids(limit + 1, 1), ((1, 2),))])


def test_logits_are_computed_only_where_they_are_needed(engine: EmbeddedEngine) -> None:
    fed: list[torch.Size] = []
    handle = engine.model.get_output_embeddings().register_forward_hook(
        lambda module, given, output: fed.append(given[0].shape)
    )
    try:
        engine.score([ScoreRequest(random_ids(200, 1), ((100, 102), (150, 151)))])
    finally:
        handle.remove()
    assert [shape[:2] for shape in fed] == [(1, 3)]


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        (((0, 2),), "start at 1 or later"),
        (((3, 3),), r"0 < start < end <= 5"),
        (((4, 6),), r"0 < start < end <= 5"),
        (((-1, 2),), r"0 < start < end <= 5"),
        ((), "ranges: expected at least one"),
    ],
)
def test_ranges_that_cannot_be_scored(ranges: tuple[tuple[int, int], ...], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        ScoreRequest((5, 6, 7, 8, 9), ranges)


def test_unknown_tokens_are_refused(engine: EmbeddedEngine) -> None:
    with pytest.raises(BadRequest, match="token ids from 0"):
        engine.score([ScoreRequest((5, -1), ((1, 2),))])


def test_engine_scores_equal_those_of_a_fresh_load_of_the_same_directory(engine: EmbeddedEngine) -> None:
    fresh = load_model(engine.directory)
    sequence = ScoreRequest(random_ids(64, 9), ((1, 64),))
    [score] = engine.score([sequence])
    with torch.no_grad():
        logprobs = fresh.model(torch.tensor([sequence.token_ids])).logits[0].log_softmax(-1)
    expected = [logprobs[i - 1, sequence.token_ids[i]].item() for i in range(1, 64)]
    assert list(score.logprobs[0]) == pytest.approx(expected, abs=1e-4)
