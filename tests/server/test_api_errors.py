"""Bad input gets an error in OpenAI's shape that says what was expected, what came and what to do."""

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from api_server import MODEL, TOKEN, Served, small_server, wait_until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from understudy.config import ServerSettings
from understudy.server import ServerFailed
from understudy.server.messages import MAX_BODY_BYTES

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
TEXT = {"model": MODEL, "prompt": "hi", "max_tokens": 2}


async def fall(request: Request) -> Response:
    raise RuntimeError("a secret of the house")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with small_server(tmp_path_factory.mktemp("model"), routes=[Route("/fall", fall)]) as served:
        yield served


def refused(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"model": 3}, "model", "Expected `str`, got `int`, got 3"),
        ({"messages": []}, "messages", "length >= 1, got []"),
        ({"messages": "hi"}, "messages", "Expected `array`, got `str`, got 'hi'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing required field"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "got `null`"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "system, developer, user, as"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content[0].type",
            "'image_url'",
        ),
        ({"temperature": 2.5}, "temperature", "Expected `float` <= 2.0, got 2.5"),
        ({"temperature": "hot"}, "temperature", "got 'hot'"),
        ({"top_p": 0}, "top_p", "Expected `float` > 0.0"),
        ({"max_tokens": 0}, "max_tokens", "Expected `int` >= 1, got 0"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_completion_tokens", "only one of it"),
        ({"n": 0}, "n", "Expected `int` >= 1"),
        ({"n": 65}, "n", "at most 64 answers"),
        ({"stop": ["a", ""]}, "stop[1]", "length >= 1"),
        ({"seed": 2**63}, "seed", "<="),
        ({"logprobs": 3}, "logprobs", "Expected `bool | null`, got `int`"),
        ({"top_logprobs": 3}, "top_logprobs", "only together with `logprobs: true`"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only together with `stream: true`"),
        ({"presence_penalty": 0.5}, "presence_penalty", "penalties are not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "penalties are not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "biases are not supported"),
        ({"tools": [{"type": "function"}]}, "tools", "tools are not supported"),
        ({"tool_choice": "required"}, "tool_choice", "tools are not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", '{"type": "text"}'),
        ({"modalities": ["audio"]}, "modalities", '["text"]'),
        ({"tempreature": 1}, "tempreature", "only the fields this server knows (model, n,"),
    ],
)
def test_a_bad_field_of_a_chat_is_named(served: Served, change: Any, param: str, words: str) -> None:
    error = refused(httpx2.post(f"{served.url}/v1/chat/completions", json={**CHAT, **change}), 400)
    assert error["param"] == param
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"prompt": []}, "prompt", "a string, a list of strings, a list of token ids"),
        ({"prompt": ["a", 3]}, "prompt", "a string, a list of strings, a list of token ids"),
        ({"prompt": [[1], "a"]}, "prompt", "a string, a list of strings, a list of token ids"),
        ({"prompt": {"a": 1}}, "prompt", "got `object`"),
        ({"prompt": [[]]}, None, "at least one token"),
        ({"prompt": ""}, None, "at least one token"),
        ({"prompt": [99999]}, None, "token ids from 0 to"),
        ({"prompt": ["x"] * 65}, "n", "at most 64 answers (prompts times n), got 65"),
        ({"echo": True}, "echo", "POST /score"),
        ({"best_of": 4}, "best_of", "the value of n"),
        ({"suffix": "end"}, "suffix", "only continued"),
        ({"logprobs": 21}, "logprobs", "<= 20"),
    ],
)
def test_a_bad_field_of_a_completion_is_named(
    served: Served, change: Any, param: str | None, words: str
) -> None:
    error = refused(httpx2.post(f"{served.url}/v1/completions", json={**TEXT, **change}), 400)
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "n": None, "stop": None},
        {"user": "u", "metadata": {"a": "b"}, "seed": None, "stream": False, "temperature": None},
        {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "store": False},
    ],
)
def test_what_changes_nothing_is_taken(served: Served, change: Any) -> None:
    assert httpx2.post(f"{served.url}/v1/chat/completions", json={**CHAT, **change}).status_code == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "got an empty body"),
        (b"{", "expected a JSON object"),
        (b"\xff\xfe", "expected a JSON object"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"model": "\\ud800"}', "expected"),
    ],
)
def test_a_body_that_is_not_one(served: Served, body: bytes, words: str) -> None:
    error = refused(httpx2.post(f"{served.url}/v1/chat/completions", content=body), 400)
    assert words in error["message"]


def test_the_client_raises_its_own_errors(served: Served) -> None:
    with served.client() as client:
        with pytest.raises(openai.NotFoundError, match="got 'gpt-9'") as missing:
            client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.completions.create(model=MODEL, prompt="x", temperature=9)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_told_both_numbers(served: Served, stream: bool) -> None:
    body = {"model": MODEL, "prompt": [5] * 2048, "stream": stream}
    error = refused(httpx2.post(f"{served.url}/v1/completions", json=body), 400)
    assert error["code"] == "context_length_exceeded"
    assert "at most 2047 prompt tokens" in error["message"]
    assert "got 2048" in error["message"]


def test_routes_and_methods(served: Served) -> None:
    error = refused(httpx2.get(f"{served.url}/v1/nothing"), 404)
    assert (error["code"], error["type"]) == ("unknown_url", "not_found_error")
    answer = httpx2.get(f"{served.url}/v1/chat/completions")
    error = refused(answer, 405)
    assert "does not take GET" in error["message"]
    assert answer.headers["allow"] == "POST"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(served: Served) -> None:
    error = refused(httpx2.post(f"{served.url}/score", content=b"x" * (MAX_BODY_BYTES + 1)), 413)
    assert f"at most {MAX_BODY_BYTES} bytes" in error["message"]


def test_a_body_that_hides_its_size_is_refused_too(served: Served) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**20 + 1):
            yield b" " * 2**20

    refused(httpx2.post(f"{served.url}/score", content=pieces()), 413)


def test_a_fault_of_ours_is_logged_and_not_shown(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = httpx2.get(f"{served.url}/fall")
    error = refused(answer, 500)
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    [record] = [r for r in caplog.records if r.name == "understudy.server.refusals"]
    number = error["code"].removeprefix("error_")
    assert number in error["message"]
    assert number in record.getMessage()
    assert record.exc_info is not None
    assert "a secret of the house" in str(record.exc_info[1])


def test_a_failure_on_the_way_is_the_streams_last_event(tmp_path_factory: pytest.TempPathFactory) -> None:
    with small_server(tmp_path_factory.mktemp("model")) as served:
        body = {**TEXT, "ignore_eos": True, "max_tokens": 2000, "stream": True, "seed": 1}
        with httpx2.stream("POST", f"{served.url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: {")
            served.engine.close()
            last = [line for line in lines if line][-1]
        assert "engine_closed" in last
        error = refused(httpx2.post(f"{served.url}/v1/completions", json=TEXT), 503)
        assert error["code"] == "engine_closed"


def test_too_many_requests(tmp_path_factory: pytest.TempPathFactory) -> None:
    with small_server(tmp_path_factory.mktemp("model"), max_concurrent=1, max_waiting=0) as served:
        body = {**TEXT, "ignore_eos": True, "max_tokens": 2000, "stream": True, "seed": 1}
        with httpx2.stream("POST", f"{served.url}/v1/completions", json=body) as running:
            lines = running.iter_lines()  # dropping it would end the request
            next(lines)
            answer = httpx2.post(f"{served.url}/v1/completions", json=TEXT)
            error = refused(answer, 429)
            assert error["code"] == "engine_busy"
            assert answer.headers["retry-after"] == "1"
            with served.client() as client, pytest.raises(openai.RateLimitError):
                client.completions.create(model=MODEL, prompt="x")
        wait_until(lambda: served.engine.running == 0)
        assert httpx2.post(f"{served.url}/v1/completions", json=TEXT).status_code == 200


def test_a_start_that_fails_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        if app.routes:
            raise RuntimeError("no trainer")
        yield

    with (
        pytest.raises(ServerFailed, match="it ended while starting"),
        small_server(tmp_path_factory.mktemp("model"), lifespan=broken),
    ):
        raise AssertionError("it must not start")


def test_the_lifespan_runs_around_serving(tmp_path_factory: pytest.TempPathFactory) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        seen.append("start")
        yield
        seen.append("end")

    with small_server(tmp_path_factory.mktemp("model"), lifespan=lifespan) as served:
        assert httpx2.get(f"{served.url}/health").status_code == 200
        assert seen == ["start"]
    assert seen == ["start", "end"]


def test_a_port_that_is_taken(served: Served, tmp_path_factory: pytest.TempPathFactory) -> None:
    from understudy.server import listening

    port = int(served.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), listening(ServerSettings(port=port)):
        raise AssertionError("two servers on one port")


def test_importing_the_server_does_not_load_torch() -> None:
    code = "import sys, understudy.server; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_token_of_the_tests_is_not_shown_in_errors(served: Served) -> None:
    answer = httpx2.post(f"{served.url}/train", headers={"Authorization": "Bearer wrong"}, json={})
    assert TOKEN not in answer.text
