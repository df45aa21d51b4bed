"""A real browser for tests of the pages: it sees what a person sees, and reports what must never happen.

A test module opens one for itself, and closes it with its last test: while Playwright's synchronous API is
open, its event loop counts as running in this thread, and every `asyncio.run` here would fail.

    @pytest.fixture(scope="module")
    def chromium() -> Iterator[Browser]:
        with browser() as started:
            yield started
"""

import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    Page,
    Request,
    Response,
    ViewportSize,
    WebError,
    WebSocket,
    expect,
    sync_playwright,
)

DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
WAIT_SECONDS = 30.0
"""How long a step of a test waits for what it names before it fails: a busy machine takes its time."""

NO_OTHER_HOST = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE [::1]"
BLOCKED = ("csp", "origin")
"""Why Chromium did not send a request after all: the page's own policy, another origin."""

SERIOUS = ("serious", "critical")
AXE = Path(__file__).with_name("axe.min.js")

Kind = Literal["request", "status", "console", "error", "csp", "dialog"]


class NoBrowser(RuntimeError):
    """There is no Chromium on PATH."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window while the block runs; it can reach this machine's servers and nothing else.

    Raises NoBrowser when there is none to start.
    """
    executable = shutil.which("chromium")
    if executable is None:
        raise NoBrowser(
            "expected `chromium` on PATH, there is none: "
            "run environments/install_chromium.sh, as `make test` does"
        )
    expect.set_options(timeout=WAIT_SECONDS * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", NO_OTHER_HOST], timeout=60_000
        )
        try:
            yield started
        finally:
            started.close()


@dataclass(frozen=True)
class Finding:
    """Something that a page of ours never does unless a test expects it.

    `request`: to another origin than the server's; `status`: the server refused (400 and above);
    `console`: an error there; `error`: a script failed; `csp`: against the page's policy; `dialog`: a script
    opened one.
    """

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Watch:
    """All that the pages of one browser context do which they must not, popups and frames included.

    It cannot see connections that carry no request: `<link rel=preconnect>` and `rel=dns-prefetch`.
    """

    def __init__(self, context: BrowserContext, origins: Collection[str]) -> None:
        self._origins = origins
        self._findings: list[Finding] = []
        self._foreign: list[Request] = []
        context.on("request", self._request)
        context.on("response", self._response)
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("dialog", self._dialog)
        context.on("page", self._page)
        context.expose_function("reportViolation", self._violation)
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', event =>"
            " reportViolation(event.effectiveDirective, event.blockedURI, event.sample))"
        )

    def found(self) -> list[Finding]:
        """What was found so far and not expected."""
        return [*(_told(one) for one in self._foreign if one.failure not in BLOCKED), *self._findings]

    def take(self, kind: Kind, text: str) -> list[Finding]:
        """What was found of this kind with the text in it; from now on it counts as expected."""
        taken = [one for one in self.found() if one.kind == kind and text in one.text]
        self._findings = [one for one in self._findings if one not in taken]
        self._foreign = [one for one in self._foreign if _told(one) not in taken]
        return taken

    def _add(self, kind: Kind, text: str) -> None:
        self._findings.append(Finding(kind, text))

    def _is_foreign(self, url: str) -> bool:
        return (
            urlsplit(url).scheme in ("http", "https", "ws", "wss", "ftp") and origin(url) not in self._origins
        )

    def _request(self, request: Request) -> None:
        if self._is_foreign(request.url):
            self._foreign.append(request)

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self._add("status", f"{response.status} for {response.request.method} {response.url}")

    def _page(self, page: Page) -> None:
        page.on("websocket", self._socket)

    def _socket(self, socket: WebSocket) -> None:
        if self._is_foreign(socket.url):
            self._add("request", f"{socket.url} (websocket)")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type != "error" or self._is_told_already(message):
            return
        self._add("csp" if "Content Security Policy" in message.text else "console", message.text)

    def _is_told_already(self, message: ConsoleMessage) -> bool:
        """Whether this is about a response with a `status` of its own, or about a foreign `request`."""
        failed = message.text.startswith("Failed to load resource:")
        return failed and (
            "the server responded" in message.text or self._is_foreign(message.location["url"])
        )

    def _error(self, error: WebError) -> None:
        self._add("error", str(error.error))

    def _violation(self, directive: str, blocked: str, sample: str) -> None:
        self._add("csp", f"{directive} blocked {blocked} {sample}".rstrip())

    def _dialog(self, dialog: Dialog) -> None:
        self._add("dialog", f"{dialog.type}({dialog.message!r})")
        dialog.dismiss()


@dataclass(frozen=True)
class OpenPage:
    """A page in a browser context of its own, watched."""

    page: Page
    watch: Watch

    def settle(self) -> None:
        """Wait until the page has loaded and what it did has been told."""
        if self.page.is_closed():
            return
        self.page.wait_for_load_state("load")
        try:
            self.page.evaluate("() => new Promise(done => setTimeout(done))")
        except Error:  # it was on its way to another page
            self.page.wait_for_load_state("load")

    def expect(self, kind: Kind, text: str, *, seconds: float = WAIT_SECONDS) -> list[Finding]:
        """Wait for what the test wants to happen, which then does not count; fails when it does not come."""
        deadline = time.monotonic() + seconds
        while not (taken := self.watch.take(kind, text)):
            assert time.monotonic() < deadline, (
                f"expected a finding `{kind}` with {text!r}, found: {_listed(self.watch.found()) or 'none'}"
            )
            self.page.wait_for_timeout(20)  # events arrive only while Playwright is called
        return taken

    def assert_clean(self) -> None:
        """Fails with everything that was found and not expected."""
        self.settle()
        found = self.watch.found()
        assert not found, f"at {self.page.url}, expected nothing of this:{_listed(found)}"


@contextmanager
def open_page(
    browser: Browser,
    url: str,
    *,
    phone: bool = False,
    dark: bool = False,
    cookies: Mapping[str, str] | None = None,
    also: Collection[str] = (),
) -> Iterator[OpenPage]:
    """The page at this URL while the block runs, clean at the block's end or the test fails.

    `also`: URLs of further servers that it may talk to. A block that fails tells what was found, too.
    """
    context = browser.new_context(
        viewport=PHONE if phone else DESK,
        is_mobile=phone,
        has_touch=phone,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    )
    try:
        context.set_default_timeout(WAIT_SECONDS * 1000)
        context.add_cookies(
            [{"name": name, "value": value, "url": url} for name, value in (cookies or {}).items()]
        )
        watch = Watch(context, {origin(one) for one in (url, *also)})
        opened = OpenPage(context.new_page(), watch)
        try:
            opened.page.goto(url)
            yield opened
        except BaseException as error:
            if found := watch.found():
                error.add_note(f"until then, {opened.page.url} did:{_listed(found)}")
            raise
        opened.assert_clean()
    finally:
        context.close()


def origin(url: str) -> str:
    """Scheme, host and port of a URL; a WebSocket's counts as its page's."""
    parts = urlsplit(url)
    return f"{parts.scheme.replace('ws', 'http')}://{parts.netloc}"


def check_accessibility(page: Page) -> None:
    """Fails on what axe calls serious or critical, frames included, under whatever policy the page has."""
    library = AXE.read_text(encoding="utf-8")
    for frame in page.frames:
        frame.evaluate(library)
    found: dict[str, list[dict[str, Any]]] = page.evaluate("() => axe.run()")
    wrong = [one for one in found["violations"] if one["impact"] in SERIOUS]
    assert not wrong, f"at {page.url}, expected no serious fault of accessibility:\n" + "\n".join(
        f"{one['id']} ({one['impact']}): {one['help']}\n" + "\n".join(map(_place, one["nodes"]))
        for one in wrong
    )


def check_fits(page: Page) -> None:
    """Fails when the page is wider than the window, so that a person would have to scroll sideways."""
    width = page.evaluate("() => document.documentElement.scrollWidth")
    window = page.viewport_size
    assert window is not None and width <= window["width"], (
        f"{page.url} is {width} px wide, expected {window}"
    )


@dataclass(frozen=True)
class Focus:
    """Where the keyboard is, as assistive technology is told."""

    role: str
    name: str


def focused(page: Page) -> Focus:
    """What has the keyboard's focus, by Chromium's own accessibility tree."""
    session = page.context.new_cdp_session(page)
    try:
        active = session.send("Runtime.evaluate", {"expression": "document.activeElement"})
        tree = session.send(
            "Accessibility.getPartialAXTree",
            {"objectId": active["result"]["objectId"], "fetchRelatives": False},
        )
    finally:
        session.detach()
    node = tree["nodes"][0]
    return Focus(*(str(node.get(part, {}).get("value", "")) for part in ("role", "name")))


def tab_to(page: Page, name: str, *, role: str | None = None, presses: int = 50, key: str = "Tab") -> Focus:
    """Press Tab until the element with exactly this accessible name has the focus; fails after `presses`."""
    passed: list[Focus] = []
    while len(passed) < presses:
        page.keyboard.press(key)
        passed.append(focused(page))
        if passed[-1].name == name and role in (None, passed[-1].role):
            return passed[-1]
    raise AssertionError(
        f"expected {name!r} ({role or 'of any role'}) within {presses} presses of {key}, passed {passed}"
    )


def _told(request: Request) -> Finding:
    return Finding("request", f"{request.method} {request.url} ({request.resource_type})")


def _listed(found: list[Finding]) -> str:
    return "".join(f"\n- {one}" for one in found)


def _place(node: dict[str, Any]) -> str:
    summary = str(node["failureSummary"]).replace("\n", "\n      ")
    return f"  at {' '.join(map(str, node['target']))}: {node['html'][:200]}\n      {summary}"
