"""The browser harness catches what it is there to catch, on pages that do it."""

import asyncio
import shutil
import threading
from collections.abc import Iterator

import pytest
from browser import (
    PHONE,
    Finding,
    Focus,
    NoBrowser,
    browser,
    check_accessibility,
    check_fits,
    focused,
    open_page,
    tab_to,
)
from playwright.sync_api import Browser, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from understudy.server.running import serving

ELSEWHERE = "http://tracker.example"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'"
WIDTH = '<meta name="viewport" content="width=device-width">'

BODIES = {
    "clean": "<p>Nothing to see.</p>",
    "alert": "<script>alert('ran')</script>",
    "late-alert": "<script>setTimeout(() => alert('late'), 1)</script>",
    "handler": '<img alt="" src="/missing" onerror="alert(1)">',
    "error": "<script>undefinedFunction()</script>",
    "log": "<script>console.error('went wrong')</script>",
    "image": f'<img alt="" src="{ELSEWHERE}/pixel.png">',
    "style": f"<style>body {{ background: url({ELSEWHERE}/background.png) }}</style>",
    "frame": f'<iframe title="Inside" srcdoc="<img alt=\'\' src={ELSEWHERE}/inside.png>"></iframe>',
    "ping": f'<a href="#there" ping="{ELSEWHERE}/ping">Go</a>',
    "socket": "<script>new WebSocket('ws://tracker.example/socket')</script>",
    "neighbour": '<img alt="" src="http://127.0.0.1:9999/pixel.png">',
    "popup": '<a href="/alert" target="_blank">Open</a>',
    "leaving": f'<meta http-equiv="refresh" content="0;url={ELSEWHERE}/away">',
    "inline-style": '<p style="color: red">Red.</p>',
    "unnamed": "<button></button>",
    "faint": '<p id="faint">Hardly there.</p><script src="/script.js"></script>',
    "framed": '<iframe title="Inside" src="/unnamed"></iframe>',
    "wide": f"<p>{'x' * 2000}</p>",
    "keys": '<a href="#first">First</a><label for="text">Your name</label><input id="text">'
    '<div tabindex="0" role="switch" aria-checked="false" aria-label="Second"></div><button>Second</button>',
    "scheme": "<p></p><script src='/script.js'></script>",
    "cookie": "<p></p><script src='/script.js'></script>",
}
SCRIPT = """
const faint = document.getElementById("faint")
if (faint) faint.style.color = "rgb(240, 240, 240)"
const dark = matchMedia("(prefers-color-scheme: dark)").matches
document.querySelector("p").append(dark ? "dark" : "light", " ", document.cookie)
"""


async def page(request: Request) -> Response:
    body = BODIES.get(request.path_params["name"])
    if body is None:
        return HTMLResponse("<!doctype html><title>Not here</title>", status_code=404)
    headers = {"Content-Security-Policy": POLICY} if "strict" in request.query_params else {}
    text = f'<!doctype html><html lang="en"><head><title>Test</title>{WIDTH}</head>'
    return HTMLResponse(f"{text}<body><main><h1>Test</h1>{body}</main></body></html>", headers=headers)


async def script(request: Request) -> Response:
    return Response(SCRIPT, media_type="text/javascript")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(Starlette(routes=[Route("/script.js", script), Route("/{name}", page)])) as url:
        yield url


@pytest.fixture(scope="module")
def chromium(server: str) -> Iterator[Browser]:
    with browser() as started:
        yield started


def seen(chromium: Browser, url: str) -> str:
    """What the page's end tells, which has to be a failure."""
    with pytest.raises(AssertionError) as caught, open_page(chromium, url):
        pass
    return str(caught.value)


def test_a_clean_page_is_clean(chromium: Browser, server: str) -> None:
    for query in ("", "?strict"):
        with open_page(chromium, f"{server}/clean{query}") as opened:
            assert opened.page.title() == "Test"
            check_accessibility(opened.page)
            check_fits(opened.page)


@pytest.mark.parametrize(
    ("name", "findings"),
    [
        ("alert", ["dialog: alert('ran')"]),
        ("handler", ["status: 404 for GET {server}/missing", "dialog: alert('1')"]),
        ("error", ["error: undefinedFunction is not defined"]),
        ("log", ["console: went wrong"]),
        ("image", [f"request: GET {ELSEWHERE}/pixel.png (image)"]),
        ("style", [f"request: GET {ELSEWHERE}/background.png (image)"]),
        ("frame", [f"request: GET {ELSEWHERE}/inside.png (image)"]),
        ("socket", ["request: ws://tracker.example/socket (websocket)"]),
        ("neighbour", ["request: GET http://127.0.0.1:9999/pixel.png (image)"]),
    ],
)
def test_each_is_caught(chromium: Browser, server: str, name: str, findings: list[str]) -> None:
    told = seen(chromium, f"{server}/{name}")
    for finding in findings:
        assert f"- {finding.format(server=server)}" in told


@pytest.mark.parametrize(
    ("name", "blocked"),
    [
        ("alert", "script-src-elem blocked inline"),
        ("handler", "script-src-attr blocked inline"),
        ("inline-style", "style-src-attr blocked inline"),
        ("image", f"img-src blocked {ELSEWHERE}/pixel.png"),
    ],
)
def test_a_violation_of_the_policy_is_caught(chromium: Browser, server: str, name: str, blocked: str) -> None:
    told = seen(chromium, f"{server}/{name}?strict")
    assert f"- csp: {blocked}" in told
    assert "dialog:" not in told and "request:" not in told  # nothing ran, nothing left


def test_what_a_click_sends_elsewhere_is_caught(chromium: Browser, server: str) -> None:
    with open_page(chromium, f"{server}/ping") as opened:
        opened.page.get_by_role("link", name="Go").click()
        assert opened.expect("request", ELSEWHERE) == [Finding("request", f"POST {ELSEWHERE}/ping (ping)")]


def test_a_page_that_leaves_is_caught(chromium: Browser, server: str) -> None:
    with open_page(chromium, f"{server}/leaving") as opened:
        opened.expect("request", f"{ELSEWHERE}/away")


def test_popups_are_watched(chromium: Browser, server: str) -> None:
    with open_page(chromium, f"{server}/popup") as opened:
        with opened.page.context.expect_page() as popup:
            opened.page.get_by_role("link", name="Open").click()
        popup.value.wait_for_load_state("load")
        opened.expect("dialog", "ran")


def test_a_dialog_does_not_hold_the_page_up(chromium: Browser, server: str) -> None:
    with open_page(chromium, f"{server}/late-alert") as opened:
        opened.expect("dialog", "late")
        opened.page.goto(f"{server}/clean")


def test_what_is_expected_must_happen(chromium: Browser, server: str) -> None:
    with (
        open_page(chromium, f"{server}/clean") as opened,
        pytest.raises(AssertionError, match="expected a finding `status` with '422', found: none"),
    ):
        opened.expect("status", "422", seconds=0)


def test_a_refusal_can_be_expected(chromium: Browser, server: str) -> None:
    with open_page(chromium, f"{server}/nothing-here") as opened:
        assert [one.text for one in opened.expect("status", "404")] == [f"404 for GET {server}/nothing-here"]


def test_another_server_can_be_allowed(chromium: Browser, server: str) -> None:
    with serving(Starlette(routes=[Route("/{name}", page)])) as other:
        with open_page(chromium, f"{server}/clean", also=[f"{other}/login"]) as opened:
            opened.page.goto(f"{other}/clean")
        with open_page(chromium, f"{server}/clean") as opened:
            opened.page.goto(f"{other}/clean")
            opened.expect("request", f"GET {other}/clean (document)")


def test_a_failing_block_tells_what_was_found(chromium: Browser, server: str) -> None:
    with pytest.raises(ValueError, match="its own") as caught, open_page(chromium, f"{server}/alert"):
        raise ValueError("its own")
    assert "- dialog: alert('ran')" in "".join(caught.value.__notes__)


def inaccessible(chromium: Browser, url: str) -> str:
    """What the check of accessibility tells about a page, which has to be a failure."""
    with open_page(chromium, url) as opened, pytest.raises(AssertionError) as caught:
        check_accessibility(opened.page)
    return str(caught.value)


@pytest.mark.parametrize("query", ["", "?strict"])
def test_a_button_without_a_name_is_caught(chromium: Browser, server: str, query: str) -> None:
    told = inaccessible(chromium, f"{server}/unnamed{query}")
    assert "button-name (critical): Buttons must have discernible text" in told
    assert "at button: <button></button>" in told and "Element does not have inner text" in told


def test_faint_text_is_caught_under_a_strict_policy(chromium: Browser, server: str) -> None:
    assert "color-contrast (serious)" in inaccessible(chromium, f"{server}/faint?strict")


def test_frames_are_checked_as_well(chromium: Browser, server: str) -> None:
    assert "at iframe button: <button></button>" in inaccessible(chromium, f"{server}/framed")


def test_a_page_wider_than_a_phone_is_caught(chromium: Browser, server: str) -> None:
    with open_page(chromium, f"{server}/wide", phone=True) as opened:
        assert opened.page.evaluate("() => [screen.width, navigator.maxTouchPoints > 0]") == [
            PHONE["width"],
            True,
        ]
        with pytest.raises(AssertionError, match="px wide"):
            check_fits(opened.page)


def test_light_and_dark_and_cookies(chromium: Browser, server: str) -> None:
    with open_page(chromium, f"{server}/scheme?strict", dark=True) as opened:
        expect(opened.page.locator("p")).to_have_text("dark")
    with open_page(chromium, f"{server}/cookie", cookies={"who": "ann"}) as opened:
        expect(opened.page.locator("p")).to_have_text("light who=ann")


def test_keys_reach_what_is_named(chromium: Browser, server: str) -> None:
    with open_page(chromium, f"{server}/keys?strict") as opened:
        assert focused(opened.page).role == "none"  # the body: nothing yet
        assert tab_to(opened.page, "Your name") == Focus("textbox", "Your name")
        assert tab_to(opened.page, "Second") == Focus("switch", "Second")
        assert tab_to(opened.page, "First", key="Shift+Tab") == Focus("link", "First")
        assert tab_to(opened.page, "Second", role="button", presses=3) == Focus("button", "Second")
        with pytest.raises(AssertionError, match=r"expected 'Third' \(of any role\) within 5 presses of Tab"):
            tab_to(opened.page, "Third", presses=5)


def test_without_a_browser_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NoBrowser, match=r"run environments/install_chromium\.sh"), browser():
        pass


async def three() -> int:
    return 3


def test_this_thread_has_its_own_event_loop_back_after_a_browser() -> None:
    said: list[object] = []

    def use() -> None:
        with browser() as started, started.new_page():
            coroutine = three()
            try:
                asyncio.run(coroutine)
            except RuntimeError as error:
                said.append(str(error))
            coroutine.close()
        said.append(asyncio.run(three()))

    thread = threading.Thread(target=use)  # this one has a browser open already
    thread.start()
    thread.join()
    assert said == ["asyncio.run() cannot be called from a running event loop", 3]
