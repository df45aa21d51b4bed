"""Signing in by GitHub, against a small OAuth server that holds to the rules and forgets no code."""

import base64
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from entering import Browser, Pages, open_pages, service_for_pages
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from understudy.config import GITHUB_SECRET_VARIABLE
from understudy.conversation import Right
from understudy.server import serving
from understudy.server.training import TrainingService

CLIENT, SECRET = "the-client", "the-client's-secret"


@dataclass
class Provider:
    """GitHub, as far as it matters: it gives codes to who is signed in there, and takes each back once."""

    account: dict[str, object] = field(default_factory=lambda: {"id": 7, "login": "octo", "name": "Octo"})
    url: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[str, dict[str, object]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    broken: bool = False

    def authorize(self, ask: str) -> str:
        """What the browser is sent back to, by one who is signed in and says yes."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(ask).query).items()}
        assert ask.startswith(f"{self.url}/login/oauth/authorize?")
        assert asked["client_id"] == CLIENT and asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_hex(8)
        self.codes[code] = asked
        back = urlsplit(asked["redirect_uri"])
        assert (back.netloc, back.path) == ("127.0.0.1:8423", "/github/callback")
        return f"{back.path}?code={code}&state={asked['state']}"

    async def exchange(self, request: Request) -> Response:
        form = await request.form()
        given = {name: str(text) for name, text in form.items()}
        asked = self.codes.pop(given.get("code", ""), None)
        verifier = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        wrong = [
            reason
            for reason, holds in {
                "client": (given.get("client_id"), given.get("client_secret")) == (CLIENT, SECRET),
                "code": asked is not None,
                "challenge": asked is not None and challenge == asked["code_challenge"],
                "redirect": asked is not None and given.get("redirect_uri") == asked["redirect_uri"],
            }.items()
            if not holds
        ]
        if self.broken:
            return Response("out of order", 502)
        if wrong:
            self.refused += wrong
            return JSONResponse({"error": "bad_verification_code", "error_description": ", ".join(wrong)})
        token = secrets.token_hex(8)
        self.tokens[token] = self.account
        return JSONResponse({"access_token": token, "token_type": "bearer", "scope": ""})

    async def user(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return JSONResponse({"message": "Bad credentials"}, 401)
        return JSONResponse(self.tokens[token])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingService]:
    with service_for_pages(tmp_path_factory.mktemp("model")) as opened:
        yield opened


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    routes = [
        Route("/login/oauth/access_token", made.exchange, methods=["POST"]),
        Route("/api/user", made.user),
    ]
    with serving(Starlette(routes=routes)) as url:
        made.url = url
        yield made


@pytest.fixture
def pages(
    tmp_path: Path, service: TrainingService, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> Pages:
    monkeypatch.setenv(GITHUB_SECRET_VARIABLE, SECRET)
    settings = (
        f'[access]\ngithub_client_id = "{CLIENT}"\ngithub_url = "{provider.url}"\n'
        f'github_api_url = "{provider.url}/api"\nattempts_per_minute = 100\n'
    )
    opened = open_pages(tmp_path / "w", service, settings=settings)
    opened.invite("ann", Right.POST)
    return opened


def ask(browser: Browser, query: str = "") -> str:
    """Begin, and say where GitHub is asked."""
    answer = browser.get(f"/github/start{query}")
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"].lower()
    assert all(flag in cookie for flag in ("httponly", "samesite=lax", "path=/github"))
    return str(answer.headers["location"])


def bind(pages: Pages, provider: Provider, name: str = "ann") -> None:
    browser = pages.signed_in(name)
    back = browser.get(provider.authorize(ask(browser, "?bind=1")))
    assert (back.status_code, back.headers["location"]) == (303, "/people/me")
    assert "octo" in browser.get("/people/me").text


def refused(answer: httpx2.Response, status: int, said: str) -> None:
    assert answer.status_code == status and said in answer.text
    assert "understudy=" not in answer.headers.get("set-cookie", "").replace("understudy-github=", "")


def test_who_bound_an_account_signs_in_by_it(pages: Pages, provider: Provider) -> None:
    bind(pages, provider)
    browser = pages.browser()
    assert "Sign in with GitHub" in browser.get("/sign-in").text
    back = browser.get(provider.authorize(ask(browser, "?next=%2Flearn")))
    assert (back.status_code, back.headers["location"]) == (303, "/learn")
    assert browser.name == "ann"
    assert "by GitHub" in browser.get("/people/me").text
    assert provider.refused == []


def test_an_account_nobody_bound_is_refused(pages: Pages, provider: Provider) -> None:
    browser = pages.browser()
    refused(browser.get(provider.authorize(ask(browser))), 403, "no participant has bound")
    assert browser.name == ""


def test_an_account_is_known_by_its_number(pages: Pages, provider: Provider) -> None:
    bind(pages, provider)
    provider.account = {"id": 8, "login": "octo"}  # someone took the name over
    browser = pages.browser()
    refused(browser.get(provider.authorize(ask(browser))), 403, "no participant has bound")
    provider.account = {"id": 7, "login": "renamed"}
    assert browser.get(provider.authorize(ask(browser))).status_code == 303
    assert browser.name == "ann"


def test_who_was_removed_or_unbound_does_not_come_in(pages: Pages, provider: Provider) -> None:
    bind(pages, provider)
    pages.signed_in("ann").submit("/people/me/github/unbind")
    browser = pages.browser()
    refused(browser.get(provider.authorize(ask(browser))), 403, "no participant has bound")
    bind(pages, provider)
    pages.signed_in("maya").submit("/people/remove", name="ann")
    refused(browser.get(provider.authorize(ask(browser))), 403, "no participant has bound")


def test_an_answer_counts_only_in_the_browser_that_asked(pages: Pages, provider: Provider) -> None:
    bind(pages, provider)
    browser, other = pages.browser(), pages.browser()
    back = provider.authorize(ask(browser))
    refused(other.get(back), 403, "no question that this browser asked")
    ask(other)
    refused(other.get(back), 403, "no question that this browser asked")  # another state
    refused(browser.get(back.replace("state=", "state=x")), 403, "no question that this browser asked")
    refused(browser.get(back), 403, "no question that this browser asked")  # the first answer used it up
    refused(browser.get("/github/callback"), 403, "no question")


def test_a_code_is_not_taken_twice(pages: Pages, provider: Provider) -> None:
    bind(pages, provider)
    browser = pages.browser()
    back = provider.authorize(ask(browser))
    kept = browser.cookies["understudy-github"]
    assert browser.get(back).status_code == 303
    assert "understudy-github" not in browser.cookies
    replay = pages.browser().get(back, headers={"Cookie": f"understudy-github={kept}"})
    refused(replay, 503, "GitHub did not say who you are")
    assert provider.refused == ["code", "challenge", "redirect"]


def test_a_stolen_code_is_of_no_use_elsewhere(pages: Pages, provider: Provider) -> None:
    """PKCE: the thief's browser has its own verifier."""
    bind(pages, provider)
    victim, thief = pages.browser(), pages.browser()
    code = provider.authorize(ask(victim)).partition("code=")[2].partition("&")[0]
    state = parse_qs(urlsplit(ask(thief)).query)["state"][0]
    refused(thief.get(f"/github/callback?code={code}&state={state}"), 503, "GitHub did not say")
    assert provider.refused == ["challenge"]
    assert thief.name == ""


def test_a_forged_or_old_cookie_is_none(
    pages: Pages, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = pages.browser()
    back = provider.authorize(ask(browser))
    kept = browser.cookies["understudy-github"]
    forged = pages.browser().get(back, headers={"Cookie": f"understudy-github=x{kept}"})
    refused(forged, 403, "no question")
    monkeypatch.setattr("understudy.server.pages.cookies.GITHUB_SECONDS", -1)
    refused(browser.get(back), 403, "no question")


def test_binding_is_for_who_is_signed_in(pages: Pages, provider: Provider) -> None:
    stranger = pages.browser().get("/github/start?bind=1")
    assert stranger.status_code == 401
    browser = pages.signed_in("ann")
    back = provider.authorize(ask(browser, "?bind=1"))
    browser.submit("/sign-out")
    refused(browser.get(back), 403, "someone else is signed in")
    assert pages.accounts.logins.of("ann") is None
    bind(pages, provider)
    maya = pages.signed_in("maya")
    refused(maya.get(provider.authorize(ask(maya, "?bind=1"))), 400, "another participant")


def test_who_says_no_at_github_is_not_signed_in(pages: Pages, provider: Provider) -> None:
    browser = pages.browser()
    state = parse_qs(urlsplit(ask(browser)).query)["state"][0]
    refused(browser.get(f"/github/callback?error=access_denied&state={state}"), 403, "did not sign you in")


@pytest.mark.parametrize("account", [{"login": "octo"}, {"id": "7", "login": "octo"}, {"id": 7}, {}])
def test_an_answer_without_a_number_is_none(
    pages: Pages, provider: Provider, account: dict[str, object]
) -> None:
    provider.account = account
    browser = pages.browser()
    refused(browser.get(provider.authorize(ask(browser))), 503, "GitHub did not say")


def test_when_github_is_out_of_order(pages: Pages, provider: Provider) -> None:
    provider.broken = True
    browser = pages.browser()
    refused(browser.get(provider.authorize(ask(browser))), 503, "GitHub did not say")


def test_nothing_is_offered_where_it_is_not_set_up(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GITHUB_SECRET_VARIABLE)
    browser = pages.browser()
    assert "GitHub" not in browser.get("/sign-in").text
    assert browser.get("/github/start").status_code == 404
