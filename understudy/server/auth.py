"""Who may do what: closed by default.

On a loopback address reading is open and everything else needs the bearer token. On any other address
everything but `/health` needs it. Requests that a foreign web page could make a browser send are refused
(DNS rebinding by the Host header, cross-origin posts by Origin). Where a workspace has pages, a doorkeeper
knows its people: pages take a session instead of the token, and the API takes people's own tokens too.
"""

import functools
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from understudy.server.errors import ApiError

Endpoint = Callable[[Request], Awaitable[Response]]

READING_POSTS = frozenset({"/v1/chat/completions", "/v1/completions", "/score"})
"""What is posted and changes nothing."""
ALWAYS_OPEN = frozenset({"/health"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PASSED_ON = frozenset({"forwarded", "x-forwarded-for"})
"""Headers of a proxy: what carries one did not begin on this machine, whatever address it comes from."""


class Doorkeeper(Protocol):
    """Who knows the people of a workspace."""

    @property
    def public_host(self) -> str | None:
        """The name under which a proxy passes on what comes from elsewhere; None without a proxy."""

    def is_page(self, path: str) -> bool:
        """Whether this is a page's path, which a session opens and the workspace's token too."""

    async def admit(self, scope: Scope) -> Response | None:
        """Leave a page's visitor in the request's state; or the answer when it is closed to them."""

    async def opens(self, scope: Scope) -> bool:
        """Whether a route of the API is opened by a person's own token.

        Raises ApiError when such a token is shown and does not open it.
        """


def new_token() -> str:
    """A token nobody can guess."""
    return secrets.token_urlsafe(32)


def require_token(endpoint: Endpoint) -> Endpoint:
    """Close a route that would be open: a GET that tells more than the reading API does."""

    @functools.wraps(endpoint)
    async def guarded(request: Request) -> Response:
        check_token(request.headers, request.app.state.token)
        return await endpoint(request)

    return guarded


def check_token(headers: Headers, token: str) -> None:
    """Raises ApiError(401) unless the request carries the token. Compares in constant time."""
    if hmac.compare_digest(bearer(headers).encode(), token.encode()):
        return
    came = "a token that is not this server's" if headers.get("authorization") else "none"
    raise ApiError(
        401,
        f"expected the header `Authorization: Bearer <token>` with this server's token, got {came}",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def bearer(headers: Headers) -> str:
    """The credential of `Authorization: Bearer`; empty when there is none."""
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost")


def is_local(host: str, doorkeeper: Doorkeeper | None) -> bool:
    """Whether only this machine reaches a server that listens on `host`: not if a proxy passes others on."""
    return is_loopback(host) and (doorkeeper is None or doorkeeper.public_host is None)


def needs_token(method: str, path: str, *, local: bool) -> bool:
    """Whether a request needs the token, on a loopback address (`local`) or another."""
    if path in ALWAYS_OPEN:
        return method not in SAFE_METHODS
    return not (local and (method in SAFE_METHODS or path in READING_POSTS))


def route_path(scope: Scope) -> str:
    """The path as this application's routes have it, also where it is mounted in another."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class GuardMiddleware:
    """The check every request passes before it reaches a route."""

    def __init__(self, app: ASGIApp, host: str, token: str, doorkeeper: Doorkeeper | None = None) -> None:
        if not token:
            raise ValueError("expected a token of at least one character, got none: use new_token()")
        self._app = app
        self._host = host.lower().strip("[]")
        self._token = token
        self._doorkeeper = doorkeeper
        self._public_host = doorkeeper.public_host if doorkeeper else None
        self._local = is_local(host, doorkeeper)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            answer = await self._check(scope, scope["method"], route_path(scope), Headers(scope=scope))
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope, method: str, path: str, headers: Headers) -> Response | None:
        self._check_browser(method, headers)
        if self._doorkeeper is not None:
            if self._doorkeeper.is_page(path):
                return await self._doorkeeper.admit(scope)
            if await self._doorkeeper.opens(scope):
                return None
        if needs_token(method, path, local=self._local and not _PASSED_ON & set(headers)):
            check_token(headers, self._token)
        return None

    def _check_browser(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_ours(_host_name(host)):
            raise ApiError(
                403,
                f"expected a Host header that names this server ({self._host} or a loopback name), "
                f"got {host!r}",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if method not in SAFE_METHODS and origin is not None and urlsplit(origin).netloc != host:
            raise ApiError(
                403,
                f"expected a request of this server's own pages or of no page, got Origin {origin!r}",
                code="origin_not_allowed",
            )

    def _is_ours(self, name: str) -> bool:
        if is_loopback(name) or name in (self._host, self._public_host):
            return True
        if self._host not in ("0.0.0.0", "::"):
            return False
        # On all interfaces: an address cannot be rebound, a name other than this machine's can.
        return _is_address(name) or name == socket.gethostname().lower()


def _host_name(host: str) -> str:
    """The name or address in a Host header, without port and brackets; empty when it is malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
