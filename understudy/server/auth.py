"""Who may do what: closed by default.

On a loopback address reading is open and everything else needs the bearer token. On any other address
everything but `/health` needs it. Requests that a foreign web page could make a browser send are refused
(DNS rebinding by the Host header, cross-origin posts by Origin).
"""

import functools
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
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
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


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


def needs_token(method: str, path: str, *, local: bool) -> bool:
    """Whether a request needs the token, on a loopback address (`local`) or another."""
    if path in ALWAYS_OPEN:
        return method not in _SAFE_METHODS
    return not (local and (method in _SAFE_METHODS or path in READING_POSTS))


def route_path(scope: Scope) -> str:
    """The path as this application's routes have it, also where it is mounted in another."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class GuardMiddleware:
    """The check every request passes before it reaches a route."""

    def __init__(self, app: ASGIApp, host: str, token: str) -> None:
        if not token:
            raise ValueError("expected a token of at least one character, got none: use new_token()")
        self._app = app
        self._host = host.lower().strip("[]")
        self._token = token
        self._local = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._check(scope["method"], route_path(scope), Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_ours(_host_name(host)):
            raise ApiError(
                403,
                f"expected a Host header that names this server ({self._host} or a loopback name), "
                f"got {host!r}",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if method not in _SAFE_METHODS and origin is not None and urlsplit(origin).netloc != host:
            raise ApiError(
                403,
                f"expected a request of this server's own pages or of no page, got Origin {origin!r}",
                code="origin_not_allowed",
            )
        if needs_token(method, path, local=self._local):
            check_token(headers, self._token)

    def _is_ours(self, name: str) -> bool:
        if is_loopback(name) or name == self._host:
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
