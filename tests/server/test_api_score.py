"""`POST /score` over a real socket."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from api_server import MODEL, Served, small_server

from understudy.engine import ScoreRequest, encode_text


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with small_server(tmp_path_factory.mktemp("model")) as served:
        yield served


def post(served: Served, body: Any) -> httpx2.Response:
    return httpx2.post(f"{served.url}/score", json=body)


def test_scores_of_ids_and_of_text(served: Served) -> None:
    ids = list(encode_text(served.engine.tokenizer, "The cup is on the table"))
    ranges = [[1, 4], [len(ids) - 1, len(ids)]]
    answer = post(
        served,
        {
            "sequences": [
                {"token_ids": ids, "ranges": ranges},
                {"text": "The cup is on the table", "ranges": ranges},
            ]
        },
    )
    assert answer.status_code == 200
    assert answer.headers["X-Understudy-Weights"] == "initial"
    first, second = answer.json()["sequences"]
    assert first["token_ids"] == second["token_ids"] == ids
    for one, other in zip(
        first["ranges"], second["ranges"], strict=True
    ):  # two rows of a batch need not be alike
        assert one["logprobs"] == pytest.approx(other["logprobs"], abs=1e-4)
    [expected] = served.engine.score([ScoreRequest(tuple(ids), ((1, 4), (len(ids) - 1, len(ids))))])
    for part, asked, logprobs in zip(first["ranges"], ranges, expected.logprobs, strict=True):
        assert part["range"] == asked
        assert part["logprobs"] == pytest.approx(logprobs, abs=1e-4)
        assert part["sum"] == pytest.approx(sum(logprobs), abs=1e-3)


def test_the_model_may_be_named(served: Served) -> None:
    body = {"sequences": [{"token_ids": [5, 6], "ranges": [[1, 2]]}]}
    assert post(served, {**body, "model": MODEL}).status_code == 200
    assert post(served, {**body, "model": "other"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "sequences"),
        ({"sequences": []}, "sequences: Expected `array` of length >= 1"),
        ({"sequences": [{"ranges": [[1, 2]]}]}, "sequences[0]: expected either token_ids or text"),
        (
            {"sequences": [{"text": "a", "token_ids": [1], "ranges": [[1, 2]]}]},
            "sequences[0]: expected either token_ids or text",
        ),
        ({"sequences": [{"token_ids": [5, 6], "ranges": [[0, 1]]}]}, "start at 1 or later"),
        ({"sequences": [{"token_ids": [5, 6], "ranges": [[1, 3]]}]}, "0 < start < end <= 2"),
        ({"sequences": [{"token_ids": [5, 6], "ranges": []}]}, "ranges: expected at least one"),
        ({"sequences": [{"token_ids": [5, 999999], "ranges": [[1, 2]]}]}, "token ids from 0 to"),
        ({"sequences": [{"token_ids": [5, -6], "ranges": [[1, 2]]}]}, "token_ids"),
        ({"sequences": [{"token_ids": [5] * 3000, "ranges": [[1, 2]]}]}, "at most 2048 tokens"),
        ({"sequences": [{"token_ids": [5, 6], "ranges": [[1, 2]]}] * 65}, "at most 64 sequences, got 65"),
        ({"sequences": [{"token_ids": [5, 6], "ranges": [[1, 2]]}], "extra": 1}, "extra"),
    ],
)
def test_what_cannot_be_scored_is_explained(served: Served, body: Any, words: str) -> None:
    answer = post(served, body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
