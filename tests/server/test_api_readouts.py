"""Readouts in answers: raw and z-scored, by token and by message, whole and streamed, and in the metrics."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from api_server import MODEL, Served, small_server
from prometheus_client.parser import text_string_to_metric_families
from steered_stream import CONCEPTS, write_directions

from understudy.engine import Completion, NoDirections
from understudy.server.metrics import ReadoutTotals
from understudy.server.readouts import AnswerReadouts

PROMPT = [5, 6, 7, 8, 9]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    write_directions(tmp_path / "directions", 32)
    with small_server(tmp_path / "model", readout=tmp_path / "directions") as served:
        yield served


def ask(served: Served, path: str = "/v1/completions", **extra: Any) -> Any:
    answer = post(served, path, False, extra)
    assert answer.is_success, answer.text
    return answer.json()["choices"]


def post(served: Served, path: str, stream: bool, extra: dict[str, Any]) -> httpx2.Response:
    body: dict[str, Any] = {"model": MODEL, "max_tokens": 5, "temperature": 0, "ignore_eos": True, "n": 2}
    body |= {"prompt": [PROMPT, [8]]} if "chat" not in path else {"messages": MESSAGES}
    return httpx2.post(served.url + path, json={**body, "stream": stream, "vllm_xargs": extra}, timeout=60.0)


MESSAGES = [{"role": "user", "content": "Put the cup away."}]


def streamed(served: Served, path: str = "/v1/completions", **extra: Any) -> list[Any]:
    """The choices of all chunks."""
    lines = [
        line.removeprefix("data: ") for line in post(served, path, True, extra).text.splitlines() if line
    ]
    assert lines[-1] == "[DONE]"
    return [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]


def z(served: Served, raw: Any) -> torch.Tensor:
    assert served.engine.directions is not None
    statistics = served.engine.directions.statistics
    assert statistics is not None
    mean, deviation = (torch.tensor(t, dtype=torch.float64) for t in (statistics.mean, statistics.deviation))
    return (torch.tensor(raw, dtype=torch.float64) - mean) / deviation


def same(found: Any, expected: torch.Tensor) -> bool:
    return torch.allclose(torch.tensor(found, dtype=torch.float64), expected, atol=1e-4)


def raw_tensor(raw: Any) -> torch.Tensor:
    return torch.tensor(raw, dtype=torch.float64)


PATHS = ("/v1/completions", "/v1/chat/completions")


@pytest.mark.parametrize("path", PATHS)
def test_z_scores_and_means_are_made_of_the_raw_readouts(served: Served, path: str) -> None:
    raw = ask(served, path, readout="all")
    scored = ask(served, path, readout="all", readout_scale="z")
    means = ask(served, path, readout="all", readout_per="message")
    scored_means = ask(served, path, readout=True, readout_per="message", readout_scale="z")
    assert len(raw) == (4 if path == PATHS[0] else 2)
    for one, z_one, mean, z_mean in zip(raw, scored, means, scored_means, strict=True):
        assert same(z_one["readout"], z(served, one["readout"]))
        assert same(z_one["prompt_readout"], z(served, one["prompt_readout"]))
        assert "readout" not in mean and "prompt_readout" not in mean
        assert same(mean["message_readout"], raw_tensor(one["readout"]).mean(0))
        assert same(mean["message_prompt_readout"], raw_tensor(one["prompt_readout"]).mean(0))
        assert same(z_mean["message_readout"], z(served, one["readout"]).mean(0))
        assert "message_prompt_readout" not in z_mean


@pytest.mark.parametrize("path", PATHS)
def test_streamed_readouts_are_those_of_the_whole_answer(served: Served, path: str) -> None:
    whole = ask(served, path, readout="all", readout_scale="z")
    chunks = streamed(served, path, readout="all", readout_scale="z")
    for row, choice in enumerate(whole):
        told = [chunk for chunk in chunks if chunk["index"] == row]
        rows = [values for chunk in told for values in chunk.get("readout", [])]
        assert len(rows) == 5 and same(rows, raw_tensor(choice["readout"]))
        [prompt] = [chunk["prompt_readout"] for chunk in told if "prompt_readout" in chunk]
        assert same(prompt, raw_tensor(choice["prompt_readout"]))
    messages = ask(served, path, readout="all", readout_per="message")
    chunks = streamed(served, path, readout="all", readout_per="message")
    for row, choice in enumerate(messages):
        *before, last = [chunk for chunk in chunks if chunk["index"] == row]
        assert not any("readout" in field for chunk in before for field in chunk)
        assert last["finish_reason"] == "length"
        for field in ("message_readout", "message_prompt_readout"):
            assert same(last[field], raw_tensor(choice[field]))


def test_how_to_read_is_refused_where_nothing_is_read(served: Served) -> None:
    for extra in (
        {"readout_scale": "z"},
        {"readout_per": "message"},
        {"readout": False, "readout_scale": "raw"},
    ):
        answer = post(served, "/v1/completions", False, extra)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "unsupported_value" and "only together with `readout`" in error["message"]
    for extra in ({"readout": True, "readout_scale": "Z"}, {"readout": True, "readout_per": "answer"}):
        answer = post(served, "/v1/completions", False, extra)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"].startswith("vllm_xargs.readout_")
    assert post(served, "/v1/completions", False, {"readout_z": True}).status_code == 400


def test_steers_that_are_none_are_refused_with_the_grammar(served: Served) -> None:
    answer = post(served, "/v1/completions", False, {"steer": "clamp:calm"})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == "vllm_xargs.steer"
    assert "[mode:]concept[=strength][x][@layer[,layer...]]['[' span ']']" in error["message"]


def test_the_manifest_has_the_statistics(served: Served) -> None:
    told = httpx2.get(f"{served.url}/v1/readout/manifest").json()
    assert served.engine.directions is not None and served.engine.directions.statistics is not None
    assert told["statistics"]["norms"] == served.engine.directions.statistics.norms
    assert told["statistics"]["tokens"] == 100


def metrics(served: Served) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(httpx2.get(f"{served.url}/metrics").text)
        for sample in family.samples
        if "readout" in sample.name
    }


def test_metrics_average_what_answers_carried(served: Served) -> None:
    assert metrics(served) == {("understudy_readout_tokens_total", frozenset()): 0}
    ask(served)
    assert metrics(served) == {("understudy_readout_tokens_total", frozenset()): 0}, "nothing was read"
    raw = ask(served, readout="all")
    ask(served, readout=True, readout_per="message", readout_scale="z")
    streamed(served, readout=True)
    found = metrics(served)
    tokens = found.pop(("understudy_readout_tokens_total", frozenset()))
    assert tokens == 3 * sum(len(choice["readout"]) for choice in raw) == 60
    expected = torch.stack([z(served, choice["readout"]).sum(0) for choice in raw]).sum(0) * 3
    assert len(found) == expected.numel()
    for row, layer in enumerate(("0", "1")):
        for column, concept in enumerate(CONCEPTS):
            labels = frozenset({"concept": concept, "layer": layer, "scale": "z"}.items())
            value = found["understudy_readout_sum", labels]
            assert value == pytest.approx(float(expected[row, column]), abs=1e-3)


def test_without_statistics_readouts_are_raw(tmp_path: Path) -> None:
    write_directions(tmp_path / "directions", 32, statistics=False)
    with small_server(tmp_path / "model", readout=tmp_path / "directions") as served:
        raw = ask(served, readout=True)
        assert "statistics" not in httpx2.get(f"{served.url}/v1/readout/manifest").json()
        answer = post(served, "/v1/completions", False, {"readout": True, "readout_scale": "z"})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "no_statistics" and error["param"] == "vllm_xargs.readout_scale"
        answer = post(served, "/v1/completions", False, {"steer": "calm=4x"})
        assert answer.status_code == 400 and "have no statistics" in answer.text
        scales = {dict(labels).get("scale") for _, labels in metrics(served)}
        assert scales == {None, "raw"}
        total = sum(value for (name, _), value in metrics(served).items() if name == "understudy_readout_sum")
        carried = sum(float(raw_tensor(choice["readout"]).sum()) for choice in raw)
        assert total == pytest.approx(carried, abs=1e-3)


def test_an_answer_needs_directions_and_what_is_no_number_is_not_counted(tmp_path: Path) -> None:
    with pytest.raises(NoDirections):
        AnswerReadouts(None, "raw", "token", lambda sums, tokens: None)
    directions = write_directions(tmp_path, 32)

    class Holder:
        pass

    holder: Any = Holder()
    holder.directions = directions
    totals = ReadoutTotals(holder)
    readouts = AnswerReadouts(directions, "raw", "token", totals.count)
    broken = [[[float("nan")] * 3] * 2]
    assert "readout" in readouts.tell(0, Completion("", (1,), (), "stop", broken))
    [tokens, sums] = totals.collect()
    assert [sample.value for sample in tokens.samples] == [0] and not sums.samples
