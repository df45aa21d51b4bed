"""The hostile cases are what they claim: the rules take or refuse them, and a trusting page suffers."""

from collections.abc import Callable, Iterator

import pytest
from browser import browser, open_page
from hostile import (
    BODIES,
    BODIES_REFUSED,
    FETCHES,
    HOST,
    HTML,
    LARGE,
    MEGABYTE,
    NAMES,
    NAMES_REFUSED,
    PATHS,
    PATHS_REFUSED,
    PATHS_TOO_LONG,
    TITLES,
    TITLES_REFUSED,
    Cases,
)
from playwright.sync_api import Browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from understudy.conversation import ConversationError, normalise_body, valid_name, valid_title
from understudy.conversation.files import valid_path
from understudy.server.running import serving

RUN = [
    "script",
    "script-mixed-case",
    "svg-onload",
    "svg-script",
    "img-onerror",
    "iframe-srcdoc",
    "title-ended",
]
LEAVE = ["fetch-srcset", "fetch-video", "fetch-style-url", "fetch-stylesheet", "fetch-svg-image"]
RULES: list[tuple[Callable[[str], str], Cases, Cases]] = [
    (valid_name, NAMES, NAMES_REFUSED),
    (valid_title, TITLES, TITLES_REFUSED),
    (valid_path, PATHS, {**PATHS_REFUSED, **PATHS_TOO_LONG}),
    (normalise_body, BODIES, BODIES_REFUSED),
]


async def trusting(request: Request) -> Response:
    name = request.path_params["name"]
    return HTMLResponse({**HTML, **FETCHES}.get(name, ""))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(Starlette(routes=[Route("/{name}", trusting)])) as url:
        yield url


@pytest.fixture(scope="module")
def chromium(server: str) -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.mark.parametrize(("rule", "taken", "refused"), RULES, ids=["names", "titles", "paths", "bodies"])
def test_the_rules_take_and_refuse_them(rule: Callable[[str], str], taken: Cases, refused: Cases) -> None:
    for text in taken.values():
        rule(text)
    for text in refused.values():
        with pytest.raises(ConversationError):
            rule(text)
    assert len({*taken.values(), *refused.values()}) == len(taken) + len(refused)


def test_long_is_long() -> None:
    assert min(len(body.encode()) for body in LARGE.values()) > 0.99 * MEGABYTE


@pytest.mark.parametrize("name", RUN)
def test_what_would_run_runs_where_it_is_trusted(chromium: Browser, server: str, name: str) -> None:
    with pytest.raises(AssertionError, match="dialog: alert"), open_page(chromium, f"{server}/{name}"):
        pass


@pytest.mark.parametrize("name", LEAVE)
def test_what_would_leave_leaves_where_it_is_trusted(chromium: Browser, server: str, name: str) -> None:
    with (
        pytest.raises(AssertionError, match=f"request: GET .*{HOST}"),
        open_page(chromium, f"{server}/{name}"),
    ):
        pass
