"""The application: routes, the checks before them, and what they share."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from understudy.config import ServerSettings
from understudy.server.auth import GuardMiddleware
from understudy.server.completions import check_model, complete_chat, complete_text
from understudy.server.messages import BodyLimitMiddleware, json_response
from understudy.server.metrics import Metrics, MetricsMiddleware, show_metrics
from understudy.server.refusals import ErrorsMiddleware, explain_http
from understudy.server.score import score_sequences

if TYPE_CHECKING:
    from understudy.engine import EmbeddedEngine

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]
Report = Callable[[], Any]
"""Adds a field to `/health`; called for every request to it."""


def create_app(
    engine: "EmbeddedEngine",
    settings: ServerSettings,
    token: str,
    *,
    extra_routes: Sequence[BaseRoute] = (),
    lifespan: Lifespan | None = None,
    health: Mapping[str, Report] | None = None,
) -> Starlette:
    """The server's ASGI application.

    Closed by default: any route in `extra_routes` that is not read with GET needs the bearer token. The
    engine belongs to the caller, who closes it after the server ended.
    """
    metrics = Metrics(engine)
    app = Starlette(
        routes=[
            Route("/health", show_health, methods=["GET"]),
            Route("/metrics", show_metrics, methods=["GET"]),
            Route("/v1/models", list_models, methods=["GET"]),
            Route("/v1/models/{model:path}", show_model, methods=["GET"]),
            Route("/v1/chat/completions", complete_chat, methods=["POST"]),
            Route("/v1/completions", complete_text, methods=["POST"]),
            Route("/score", score_sequences, methods=["POST"]),
            *extra_routes,
        ],
        middleware=[
            Middleware(MetricsMiddleware, metrics=metrics),
            Middleware(ErrorsMiddleware),
            Middleware(GuardMiddleware, host=settings.host, token=token),
            Middleware(BodyLimitMiddleware),
        ],
        exception_handlers={HTTPException: explain_http},
        lifespan=lifespan,
    )
    app.state.engine = engine
    app.state.settings = settings
    app.state.token = token
    app.state.metrics = metrics
    app.state.health = dict(health or {})
    return app


async def show_health(request: Request) -> Response:
    """`GET /health`"""
    engine: EmbeddedEngine = request.app.state.engine
    weights = engine.weights
    return json_response(
        {
            "status": "ok",
            "model": engine.settings.name,
            "running": engine.running,
            "waiting": engine.waiting,
            "weights": {"commit": weights.commit, "step": weights.step, "training": weights.training},
            **{name: report() for name, report in request.app.state.health.items()},
        }
    )


async def list_models(request: Request) -> Response:
    """`GET /v1/models`"""
    return json_response({"object": "list", "data": [_describe(request.app.state.engine)]})


async def show_model(request: Request) -> Response:
    """`GET /v1/models/{model}`"""
    engine: EmbeddedEngine = request.app.state.engine
    check_model(request.path_params["model"], engine)
    return json_response(_describe(engine))


def _describe(engine: "EmbeddedEngine") -> dict[str, Any]:
    return {
        "id": engine.settings.name,
        "object": "model",
        "created": int((engine.directory / "config.json").stat().st_mtime),
        "owned_by": "understudy",
        "max_model_len": engine.context_length,
    }
