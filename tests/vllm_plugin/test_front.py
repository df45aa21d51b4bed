"""What stands before vLLM's routes and the workspace's."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from understudy.server.vllm_front import KeyMiddleware


async def tell(request: Request) -> Response:
    """The credential that reaches the workspace's own guard."""
    return PlainTextResponse(request.headers.get("authorization", ""))


PATHS = ("/v1/completions", "/score", "/v1/readout/manifest", "/train")


def client(keys: list[str]) -> TestClient:
    inner = Starlette(routes=[Route(path, tell, methods=["GET", "POST"]) for path in PATHS])
    guarded = KeyMiddleware(inner, keys, "token")
    return TestClient(Starlette(routes=[Mount("/understudy", app=guarded), Mount("", app=guarded)]))


@pytest.mark.parametrize("prefix", ["", "/understudy"])
@pytest.mark.parametrize("path", PATHS[:3])
def test_vllms_key_reads_and_nothing_else_does(prefix: str, path: str) -> None:
    asked = client(["sesame"])
    assert asked.get(prefix + path).status_code == 401
    assert asked.get(prefix + path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    for credential in ("sesame", "token"):
        answer = asked.get(prefix + path, headers={"Authorization": f"Bearer {credential}"})
        assert answer.text == "Bearer token", "the workspace's guard lets it through on any address"


@pytest.mark.parametrize("path", PATHS)
def test_a_persons_token_is_left_for_the_workspace_to_judge(path: str) -> None:
    answer = client(["sesame"]).get(path, headers={"Authorization": "Bearer us_anns"})
    assert answer.text == "Bearer us_anns"
    own = client(["us_sesame"]).get(PATHS[0], headers={"Authorization": "Bearer us_sesame"})
    assert own.text == "Bearer token", "a key of vLLM's may begin like one"


def test_vllms_key_is_not_the_workspaces_token() -> None:
    answer = client(["sesame"]).post("/train", headers={"Authorization": "Bearer sesame"})
    assert answer.text == "Bearer sesame", "left as it is, for the workspace's guard to refuse"


def test_without_keys_nothing_is_asked_for() -> None:
    assert client([]).get("/v1/completions").text == ""
