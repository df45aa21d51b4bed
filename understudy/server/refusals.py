"""Whatever a route raises becomes an answer a client can act on."""

import logging
import uuid

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.server.errors import ApiError
from understudy.server.messages import json_response

log = logging.getLogger(__name__)


def explain(error: Exception) -> ApiError:
    """The ApiError that stands for any exception.

    What an engine refuses is the client's to mend. What nobody expected is logged with its traceback
    under an id; the client is told the id and nothing else.
    """
    from understudy.engine import EngineBusy, EngineClosed, EngineError, PromptTooLong

    if isinstance(error, ApiError):
        return error
    if isinstance(error, PromptTooLong):
        return ApiError(400, str(error), code="context_length_exceeded")
    if isinstance(error, EngineBusy):
        return ApiError(429, str(error), code="engine_busy", headers={"Retry-After": "1"})
    if isinstance(error, EngineClosed):
        return ApiError(503, str(error), code="engine_closed")
    if isinstance(error, EngineError) and isinstance(error, ValueError):
        return ApiError(400, str(error))
    number = uuid.uuid4().hex
    log.error("error %s", number, exc_info=error)
    return ApiError(
        500, f"the server failed at this request; its log tells why under {number}", code=f"error_{number}"
    )


async def explain_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such route, wrong method) in OpenAI's shape."""
    assert isinstance(error, HTTPException)
    message = {
        404: f"expected a route of this server, got {request.url.path}: see GET /v1/models, docs/api.md",
        405: f"{request.url.path} does not take {request.method}",
    }.get(error.status_code, error.detail)
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
    return refuse(ApiError(error.status_code, message, code=code, headers=error.headers))


class ErrorsMiddleware:
    """Turns what a route raises into an answer, or ends the connection when one has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:
            refusal = explain(error)
            if started:
                raise
            await refuse(refusal)(scope, receive, send)


def refuse(refusal: ApiError) -> Response:
    """The answer that says it."""
    return json_response(refusal.body(), status=refusal.status, headers=refusal.headers)
