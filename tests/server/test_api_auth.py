"""Who may do what."""

import socket
from collections.abc import Iterator

import httpx2
import pytest
from api_server import MODEL, TOKEN, Served, small_server
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from understudy.config import ServerSettings
from understudy.server import json_response, new_token, require_token
from understudy.server.auth import is_loopback

BEARER = {"Authorization": f"Bearer {TOKEN}"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
SCORE = {"sequences": [{"token_ids": [5, 6], "ranges": [[1, 2]]}]}


async def done(request: Request) -> Response:
    return json_response({"done": True})


ROUTES = [
    Route("/train", done, methods=["POST"]),
    Route("/train/status", done, methods=["GET"]),
    Route("/secret", require_token(done), methods=["GET"]),
    Route("/thing", done, methods=["PUT", "DELETE", "PATCH"]),
]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with small_server(tmp_path_factory.mktemp("model"), routes=ROUTES) as served:
        yield served


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Configured for all interfaces; the tests reach it by loopback."""
    settings = ServerSettings(host="0.0.0.0")
    with small_server(tmp_path_factory.mktemp("model"), routes=ROUTES, settings=settings) as served:
        yield served


READING = [
    ("GET", "/health", None),
    ("GET", "/metrics", None),
    ("GET", "/v1/models", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/completions", {"model": MODEL, "prompt": "x", "max_tokens": 1}),
    ("POST", "/score", SCORE),
    ("GET", "/train/status", None),
]
WRITING = [
    ("POST", "/train"),
    ("PUT", "/thing"),
    ("DELETE", "/thing"),
    ("PATCH", "/thing"),
    ("GET", "/secret"),
    ("POST", "/no/such/route"),
]


@pytest.mark.parametrize(("method", "path", "body"), READING)
def test_reading_is_open_on_loopback(local: Served, method: str, path: str, body: object) -> None:
    assert httpx2.request(method, local.url + path, json=body).status_code == 200


@pytest.mark.parametrize(("method", "path"), WRITING)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"X-Token": TOKEN},
    ],
)
def test_writing_without_the_token_is_refused(
    local: Served, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = httpx2.request(method, local.url + path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert error["code"] == "invalid_api_key"
    assert "Authorization: Bearer <token>" in error["message"]


@pytest.mark.parametrize(("method", "path"), WRITING[:-1])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_writing_with_the_token_is_done(local: Served, method: str, path: str, scheme: str) -> None:
    answer = httpx2.request(method, local.url + path, headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answer.json() == {"done": True}


def test_a_token_that_is_not_ascii_is_refused_and_not_a_fault(local: Served) -> None:
    headers = [(b"authorization", "Bearer t\u00f6ken".encode())]
    assert httpx2.post(f"{local.url}/train", headers=headers).status_code == 401


@pytest.mark.parametrize(("method", "path", "body"), READING[1:])
def test_elsewhere_everything_but_health_needs_the_token(
    exposed: Served, method: str, path: str, body: object
) -> None:
    assert httpx2.request(method, exposed.url + path, json=body).status_code == 401
    assert httpx2.request(method, exposed.url + path, json=body, headers=BEARER).status_code == 200
    assert httpx2.get(f"{exposed.url}/health").status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8423", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "a b"],
)
@pytest.mark.parametrize("path", ["/v1/models", "/health"])
def test_a_name_that_was_bound_to_this_address_is_refused(local: Served, host: str, path: str) -> None:
    answer = httpx2.get(local.url + path, headers={"Host": host, **BEARER})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "LOCALHOST.", "127.0.0.1:8423", "127.9.9.9", "[::1]:80"]
)
def test_loopback_names_are_ours(local: Served, host: str) -> None:
    assert httpx2.get(f"{local.url}/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"), [("192.168.1.7:8423", 200), ("[fe80::1]", 200), ("evil.example", 403)]
)
def test_on_all_interfaces_addresses_are_ours_and_foreign_names_are_not(
    exposed: Served, host: str, status: int
) -> None:
    answer = httpx2.get(f"{exposed.url}/v1/models", headers={"Host": host, **BEARER})
    assert answer.status_code == status
    own = httpx2.get(f"{exposed.url}/v1/models", headers={"Host": socket.gethostname(), **BEARER})
    assert own.status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1", "file://"]
)
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/score", SCORE), ("/train", {})]
)
def test_posts_of_foreign_pages_are_refused(local: Served, origin: str, path: str, body: object) -> None:
    answer = httpx2.post(local.url + path, json=body, headers={"Origin": origin, **BEARER})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin_not_allowed"


def test_posts_of_our_own_pages_are_taken(local: Served) -> None:
    answer = httpx2.post(f"{local.url}/v1/chat/completions", json=CHAT, headers={"Origin": local.url})
    assert answer.status_code == 200


def test_no_answer_invites_other_origins(local: Served) -> None:
    for method in ("GET", "OPTIONS"):
        answer = httpx2.request(method, f"{local.url}/v1/models", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in answer.headers


@given(st.text(max_size=30))
def test_any_name_can_be_judged(name: str) -> None:
    if is_loopback(name):
        assert name.strip("[]").rstrip(".").lower().endswith("localhost") or set(name) <= set(
            "0123456789.:[]abcdef%ABCDEF"
        )


def test_tokens_are_long_and_different() -> None:
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) >= 40 for token in tokens)


def test_an_app_needs_a_token(local: Served) -> None:
    from understudy.server.auth import GuardMiddleware

    with pytest.raises(ValueError, match="expected a token"):
        GuardMiddleware(local.app, host="127.0.0.1", token="")
