"""Before vLLM's routes and the workspace's: who may ask, what is Understudy's, which weights speak."""

import hmac
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.access import TOKEN_PREFIX
from understudy.server.answers import weight_header
from understudy.server.auth import READING_POSTS, bearer, route_path
from understudy.server.bodies import ExtraArguments
from understudy.server.errors import ApiError
from understudy.server.messages import convert
from understudy.server.refusals import explain, refuse

if TYPE_CHECKING:
    from understudy.engine import Engine

PREFIX = "/understudy"
"""Where all of the workspace's routes are found, those too that vLLM has of its own (/openapi.json)."""
COMPLETIONS = frozenset({"/v1/chat/completions", "/v1/completions"})
_READING = READING_POSTS | {"/v1/readout/manifest"}
"""What a key of vLLM's opens of the workspace's routes: what vLLM guards by path, and its likes."""


class _Extra(msgspec.Struct):
    """What is looked for in a body of vLLM's; the rest is vLLM's to check."""

    vllm_xargs: dict[str, Any] | None = None


class ExtraArgumentsMiddleware:
    """What Understudy takes of `vllm_xargs` on vLLM's completion routes.

    A request that asks for readouts is answered by the workspace's route of the same name, since vLLM's
    answers have no place for them. Steering is checked here and done by the worker.
    """

    def __init__(self, app: ASGIApp, engine: "Callable[[], Engine | None]") -> None:
        self._app, self._engine = app, engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in COMPLETIONS:
            await self._app(scope, receive, send)
            return
        body, receive = await _hold(receive)
        if b'"vllm_xargs"' in body:
            try:
                if self._is_read(body):
                    scope = {**scope, "path": PREFIX + scope["path"]}
            except Exception as error:  # noqa: BLE001  (explain logs what nobody expected)
                await refuse(explain(error))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_read(self, body: bytes) -> bool:
        """Whether readouts are asked for. Raises ApiError or an EngineError for what cannot be done."""
        from understudy.engine import NoDirections

        given = convert(body, _Extra, "").vllm_xargs or {}
        ours = {name: given[name] for name in ExtraArguments.__struct_fields__ if name in given}
        extra = convert(msgspec.json.encode(ours), ExtraArguments, "vllm_xargs")
        extra.refuse_unsupported()
        steering, engine = extra.steering(), self._engine()
        directions = engine.directions if engine else None
        if directions is not None:
            directions.steering(steering)
        elif steering or extra.span():
            raise NoDirections
        return extra.span() is not None


class WeightHeaderMiddleware:
    """Adds the header that names the weights to what is answered under /v1."""

    def __init__(self, app: ASGIApp, engine: "Callable[[], Engine | None]") -> None:
        self._app, self._engine = app, engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        engine = self._engine()
        if scope["type"] != "http" or not scope["path"].startswith("/v1/") or engine is None:
            await self._app(scope, receive, send)
            return
        weights = engine.weights

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(weight_header(weights))
            await send(message)

        await self._app(scope, receive, named)


class KeyMiddleware:
    """Where vLLM has API keys, they guard the workspace's reading routes as they guard vLLM's own.

    vLLM looks only at paths that begin with /v1. The workspace's token opens everything; what a person's own
    token opens, the workspace's application looks at.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], token: str) -> None:
        self._app, self._keys, self._token = app, tuple(keys), token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys and route_path(scope) in _READING:
            given = bearer(Headers(scope=scope))
            known = [hmac.compare_digest(given.encode(), key.encode()) for key in (*self._keys, self._token)]
            if not any(known) and given.startswith(TOKEN_PREFIX):
                await self._app(scope, receive, send)
                return
            if not any(known):
                refusal = ApiError(
                    401,
                    "expected the header `Authorization: Bearer <key>` with an API key of this vLLM's",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await refuse(refusal)(scope, receive, send)
                return
            MutableHeaders(scope=scope)["Authorization"] = f"Bearer {self._token}"
        await self._app(scope, receive, send)


async def _hold(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, and a `receive` that gives it once more."""
    messages: list[Message] = []
    while not messages or messages[-1].get("more_body", False):
        messages.append(await receive())
        if messages[-1]["type"] == "http.disconnect":
            break
    body = b"".join(message.get("body", b"") for message in messages)
    waiting = iter(messages)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return body, again
