"""Signing in with an account at GitHub, for participants who bound one: OAuth 2 with PKCE.

The answer is taken only in the browser that asked: the state and the PKCE verifier lie in a signed cookie of
that browser's, for a few minutes, and are dropped with the first answer.
"""

import os
from dataclasses import dataclass

import msgspec
import requests
from anyio import to_thread
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from understudy.access import new_secret, reachable
from understudy.config import GITHUB_SECRET_VARIABLE, AccessSettings
from understudy.conversation import plain_line
from understudy.server.errors import ApiError
from understudy.server.pages.devices import device_of
from understudy.server.pages.doorkeeper import doorkeeper_of, local_path
from understudy.server.pages.rendering import SECURITY
from understudy.server.pages.routing import refusal_of, show_refusal
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import same, visitor_of

ANSWER_SECONDS = 10.0
"""How long GitHub may take for one answer."""


class Account(msgspec.Struct, frozen=True):
    """Who GitHub says it is. The number stays; the login can change hands."""

    id: int
    login: str


@dataclass(frozen=True, slots=True)
class GitHub:
    """The OAuth app at GitHub that this server is."""

    client_id: str
    secret: str
    url: str
    api_url: str
    redirect: str

    def ask_url(self, state: str, verifier: str) -> str:
        """Where the browser goes to be asked."""
        url, _ = self._session().create_authorization_url(
            f"{self.url}/login/oauth/authorize", state=state, code_verifier=verifier
        )
        return str(url)

    def account(self, code: str, verifier: str) -> Account:
        """Whose the code is. Blocks. Raises ApiError when GitHub does not say."""
        try:
            with self._session() as session:
                session.fetch_token(
                    f"{self.url}/login/oauth/access_token",
                    code=code,
                    code_verifier=verifier,
                    grant_type="authorization_code",
                )
                answer = session.get(f"{self.api_url}/user", headers={"Accept": "application/json"})
                answer.raise_for_status()
                return msgspec.json.decode(answer.content, type=Account)
        except (AuthlibBaseError, requests.RequestException, msgspec.MsgspecError, ValueError) as error:
            raise ApiError(
                503,
                f"GitHub did not say who you are ({type(error).__name__}): try again",
                code="github_failed",
            ) from error

    def _session(self) -> OAuth2Session:
        return OAuth2Session(
            self.client_id,
            self.secret,
            token_endpoint_auth_method="client_secret_post",
            code_challenge_method="S256",
            redirect_uri=self.redirect,
            default_timeout=ANSWER_SECONDS,
        )


def is_configured(settings: AccessSettings) -> bool:
    """Whether there is an OAuth app, and its secret."""
    return bool(settings.github_client_id and os.environ.get(GITHUB_SECRET_VARIABLE))


async def start_github(request: Request) -> Response:
    """Send the browser to GitHub: to sign in, or with `?bind=1` to bind the account to who is signed in."""
    keeper, visitor = doorkeeper_of(request), visitor_of(request)
    keeper.limiter.attempt(request)
    github = _github(request)
    bind = request.query_params.get("bind") == "1"
    if bind and visitor.session is None:
        raise ApiError(401, "sign in first: an account is bound to someone who is here", code="sign_in")
    payload = {
        "state": new_secret(),
        "verifier": new_secret(),
        "bind": visitor.name if bind else "",
        "next": local_path(request.query_params.get("next", "/")),
    }
    response = RedirectResponse(
        github.ask_url(payload["state"], payload["verifier"]), 303, headers=dict(SECURITY)
    )
    keeper.cookies.keep_github(response, request, payload)
    return response


async def return_from_github(request: Request) -> Response:
    """What GitHub sent the browser back with. Whatever comes of it, the cookie is used up."""
    keeper = doorkeeper_of(request)
    keeper.limiter.attempt(request)
    try:
        response = await _returned(request)
    except Exception as error:  # noqa: BLE001  (explain logs what nobody expected)
        response = show_refusal(request, refusal_of(error))
    keeper.cookies.drop_github(response, request)
    return response


async def _returned(request: Request) -> Response:
    keeper, visitor, site = doorkeeper_of(request), visitor_of(request), _site(request)
    github, asked = _github(request), keeper.cookies.take_github(request)
    given = request.query_params
    if asked is None or not same(given.get("state", ""), asked["state"]):
        raise ApiError(
            403,
            "this answer of GitHub's is to no question that this browser asked: start again",
            code="state",
        )
    if not given.get("code"):
        raise ApiError(403, "GitHub did not sign you in", code="github_refused")
    account = await to_thread.run_sync(github.account, given["code"], asked["verifier"])
    if asked["bind"]:
        if visitor.session is None or visitor.name != asked["bind"]:
            raise ApiError(403, "someone else is signed in by now: start again", code="state")
        await to_thread.run_sync(
            keeper.accounts.logins.bind, visitor.name, account.id, plain_line(account.login)
        )
        return RedirectResponse("/people/me", 303, headers=dict(SECURITY))

    def enter() -> str:
        name = keeper.accounts.logins.find(account.id)
        if name is None or not keeper.takes_part(site.repository.participants(), name):
            raise ApiError(
                403,
                "no participant has bound this account: come in by a link first, and bind it under your name",
                code="unknown_login",
            )
        device = device_of(request.headers.get("user-agent", ""))
        return keeper.accounts.sessions.open(name, device, "GitHub")

    secret = await to_thread.run_sync(enter)
    response = RedirectResponse(asked["next"], 303, headers=dict(SECURITY))
    keeper.cookies.open_session(response, request, secret)
    return response


def _github(request: Request) -> GitHub:
    """Raises ApiError(404) where no OAuth app is set up."""
    settings = _site(request).workspace.settings.access
    secret = os.environ.get(GITHUB_SECRET_VARIABLE)
    if not settings.github_client_id or not secret:
        raise ApiError(404, "signing in by GitHub is not set up here: see docs/access.md", code="no_github")
    base = settings.public_url or reachable(str(request.base_url))
    return GitHub(
        settings.github_client_id,
        secret,
        settings.github_url.rstrip("/"),
        settings.github_api_url.rstrip("/"),
        f"{base}/github/callback",
    )


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site
