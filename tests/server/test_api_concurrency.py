"""Several clients at once, over real sockets: slow ones, silent ones, ones that leave."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from api_server import DEADLINE_SECONDS, MODEL, Served, small_server, wait_until

LONG = {"model": MODEL, "prompt": "The cup", "max_tokens": 2000, "seed": 1, "ignore_eos": True}
SHORT = {"model": MODEL, "prompt": "The cup", "max_tokens": 10, "seed": 1}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with small_server(tmp_path_factory.mktemp("model")) as served:
        yield served


@contextmanager
def raw_post(
    served: Served, path: str, body: Any, receive_bytes: int | None = None
) -> Iterator[socket.socket]:
    """A socket on which a request was sent, and nothing read."""
    address = urlsplit(served.url)
    content = json.dumps(body).encode()
    with socket.socket() as sock:
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(DEADLINE_SECONDS)
        sock.connect((address.hostname, address.port))
        head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
        sock.sendall(head.encode() + content)
        yield sock


def completion_tokens(served: Served) -> float:
    counted = served.app.state.metrics.registry.get_sample_value(
        "understudy_tokens_total", {"kind": "completion"}
    )
    return counted or 0.0


def ask_short(served: Served) -> str:
    answer = httpx2.post(f"{served.url}/v1/completions", json=SHORT, timeout=DEADLINE_SECONDS)
    assert answer.status_code == 200
    text: str = answer.json()["choices"][0]["text"]
    return text


def test_a_client_that_leaves_mid_stream_ends_its_request(served: Served) -> None:
    before = completion_tokens(served)
    with raw_post(served, "/v1/completions", {**LONG, "stream": True}) as sock:
        assert b"data: " in sock.recv(65536) + sock.recv(65536)
        assert served.engine.running == 1
    wait_until(lambda: served.engine.running == 0)
    assert completion_tokens(served) == before  # it did not run to its end


def test_a_client_that_leaves_before_its_answer_ends_its_request(served: Served) -> None:
    before = completion_tokens(served)
    for path, body in (
        ("/v1/completions", LONG),
        (
            "/v1/chat/completions",
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": "x"}],
                "max_tokens": 2000,
                "ignore_eos": True,
            },
        ),
    ):
        with raw_post(served, path, body):
            wait_until(lambda: served.engine.running == 1)
        wait_until(lambda: served.engine.running == 0)
    assert completion_tokens(served) == before
    left = {"route": "/v1/completions", "method": "POST", "status": "499"}
    registry = served.app.state.metrics.registry
    wait_until(lambda: (registry.get_sample_value("understudy_requests_total", left) or 0) >= 1)


def test_a_client_that_leaves_while_it_waits_gives_up_its_place(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with small_server(tmp_path_factory.mktemp("model"), max_concurrent=1, max_waiting=2) as served:
        with raw_post(served, "/v1/completions", LONG):
            wait_until(lambda: served.engine.running == 1)
            with raw_post(served, "/v1/completions", LONG):
                wait_until(lambda: served.engine.waiting == 1)
            wait_until(lambda: served.engine.waiting == 0)
            assert served.engine.running == 1
        wait_until(lambda: served.engine.running == 0)


def test_a_client_that_never_reads_stalls_nobody(served: Served) -> None:
    expected = ask_short(served)
    # Over ten megabytes, more than twice what the buffers between server and client take.
    body = {**LONG, "prompt": ["The cup"] * 64, "max_tokens": 240, "logprobs": 20, "stream": True}
    before = completion_tokens(served)
    with raw_post(served, "/v1/completions", body, receive_bytes=4096) as silent:
        wait_until(lambda: served.engine.running == 1)
        assert ask_short(served) == expected
        wait_until(lambda: served.engine.running == 0)  # generated to the end, though nothing was read
        assert ask_short(served) == expected
        assert completion_tokens(served) - before <= 20  # the silent one's stream has not ended
        received = bytearray()
        while not received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            piece = silent.recv(2**20)
            assert piece, "the server gave up on a slow client"
            received += piece
    assert len(received) > 10_000_000
    rows = {
        json.loads(line[6:])["choices"][0]["index"]
        for line in received.splitlines()
        if line[:7] == b"data: {"
    }
    assert rows == set(range(64))


def test_a_silent_client_that_leaves_is_forgotten(served: Served) -> None:
    body = {**LONG, "logprobs": 20, "stream": True}
    with raw_post(served, "/v1/completions", body, receive_bytes=4096):
        wait_until(lambda: served.engine.running == 1)
    wait_until(lambda: served.engine.running == 0)
    assert ask_short(served)


def test_many_at_once_are_each_answered_as_alone(served: Served) -> None:
    asked = [{**SHORT, "seed": seed, "max_tokens": 20, "prompt": f"cup {seed % 5}"} for seed in range(24)]

    def text(answer: httpx2.Response) -> str:
        assert answer.status_code == 200
        found: str = answer.json()["choices"][0]["text"]
        return found

    with httpx2.Client(timeout=DEADLINE_SECONDS) as client:
        alone = [text(client.post(f"{served.url}/v1/completions", json=body)) for body in asked]

    async def together() -> list[str]:
        async with httpx2.AsyncClient(timeout=DEADLINE_SECONDS) as client:
            posts = (client.post(f"{served.url}/v1/completions", json=body) for body in asked)
            return [text(answer) for answer in await asyncio.gather(*posts)]

    assert asyncio.run(together()) == alone


def test_the_server_answers_others_while_all_workers_are_busy(served: Served) -> None:
    with raw_post(served, "/v1/completions", LONG), raw_post(served, "/v1/completions", LONG):
        wait_until(lambda: served.engine.running == 2)
        found = httpx2.get(f"{served.url}/health", timeout=DEADLINE_SECONDS).json()
        assert found["running"] == 2
        page = httpx2.get(f"{served.url}/metrics", timeout=DEADLINE_SECONDS).text
        assert "understudy_running 2.0" in page
    wait_until(lambda: served.engine.running == 0)
