"""The application: routes, the checks before them, and what they share."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from understudy.config import ServerSettings
from understudy.server.answer_bodies import (
    ChatCompletion,
    Health,
    ModelCard,
    ModelList,
    ReadoutManifestAnswer,
    Scores,
    TextCompletion,
)
from understudy.server.auth import Doorkeeper, GuardMiddleware, is_local
from understudy.server.bodies import ChatBody, CompletionBody, ScoreBody
from understudy.server.completions import check_model, complete_chat, complete_text
from understudy.server.errors import ApiError
from understudy.server.messages import BodyLimitMiddleware, json_response
from understudy.server.metrics import Metrics, MetricsMiddleware, show_metrics
from understudy.server.openapi import show_document
from understudy.server.operations import JSON, ApiRoute, Operation, Parameter
from understudy.server.refusals import ErrorsMiddleware, explain_http
from understudy.server.score import score_sequences

if TYPE_CHECKING:
    from understudy.engine import Engine

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]
Report = Callable[[], Any]
"""Adds a field to `/health`; called for every request to it."""


def create_app(
    engine: "Engine",
    settings: ServerSettings,
    token: str,
    *,
    extra_routes: Sequence[BaseRoute] = (),
    lifespan: Lifespan | None = None,
    health: Mapping[str, Report] | None = None,
    doorkeeper: Doorkeeper | None = None,
) -> Starlette:
    """The server's ASGI application.

    Closed by default: any route in `extra_routes` that is not read with GET needs the bearer token, but for
    the pages that the `doorkeeper` knows, which take a session. The engine belongs to the caller, who closes
    it after the server ended.
    """
    metrics = Metrics(engine)
    app = Starlette(
        routes=[
            *_own_routes(),
            *extra_routes,
        ],
        middleware=[
            Middleware(MetricsMiddleware, metrics=metrics),
            Middleware(ErrorsMiddleware),
            Middleware(GuardMiddleware, host=settings.host, token=token, doorkeeper=doorkeeper),
            Middleware(BodyLimitMiddleware),
        ],
        exception_handlers={HTTPException: explain_http},
        lifespan=lifespan,
    )
    app.state.local = is_local(settings.host, doorkeeper)
    app.state.doorkeeper = doorkeeper
    app.state.engine = engine
    app.state.settings = settings
    app.state.token = token
    app.state.metrics = metrics
    app.state.health = dict(health or {})
    return app


def _own_routes() -> list[BaseRoute]:
    """What every server answers, also one without a workspace."""
    model = Parameter("model", "path", "The served model's name.")
    generating = (404, 429, 503)
    return [
        ApiRoute("GET", "/health", show_health, Operation("server", {200: Health})),
        ApiRoute("GET", "/metrics", show_metrics, Operation("server", {200: "text/plain"})),
        ApiRoute("GET", "/openapi.json", show_document, Operation("server", {200: JSON})),
        ApiRoute("GET", "/v1/models", list_models, Operation("completions", {200: ModelList})),
        ApiRoute(
            "GET",
            "/v1/models/{model:path}",
            show_model,
            Operation("completions", {200: ModelCard}, refusals=(404,), parameters=(model,)),
        ),
        ApiRoute(
            "POST",
            "/v1/chat/completions",
            complete_chat,
            Operation("completions", {200: ChatCompletion}, ChatBody, generating, streams=True),
        ),
        ApiRoute(
            "POST",
            "/v1/completions",
            complete_text,
            Operation("completions", {200: TextCompletion}, CompletionBody, generating, streams=True),
        ),
        ApiRoute(
            "GET",
            "/v1/readout/manifest",
            show_readout_manifest,
            Operation("completions", {200: ReadoutManifestAnswer}, refusals=(404,)),
        ),
        ApiRoute(
            "POST", "/score", score_sequences, Operation("scores", {200: Scores}, ScoreBody, generating)
        ),
    ]


async def show_health(request: Request) -> Response:
    """That the server is there, how busy it is, and the weights it serves."""
    engine: Engine = request.app.state.engine
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
    """The one model that is served, as a list."""
    return json_response({"object": "list", "data": [_describe(request.app.state.engine)]})


async def show_model(request: Request) -> Response:
    """The model that is served; 404 for any other name."""
    engine: Engine = request.app.state.engine
    check_model(request.path_params["model"], engine)
    return json_response(_describe(engine))


async def show_readout_manifest(request: Request) -> Response:
    """The concepts and layers that answers can carry readouts of; 404 when no directions are loaded."""
    from understudy.engine import NoDirections

    engine: Engine = request.app.state.engine
    if engine.directions is None:
        raise ApiError(404, str(NoDirections()), code="no_readout")
    return json_response(engine.directions.manifest)


def _describe(engine: "Engine") -> dict[str, Any]:
    return {
        "id": engine.settings.name,
        "object": "model",
        "created": int((engine.directory / "config.json").stat().st_mtime),
        "owned_by": "understudy",
        "max_model_len": engine.context_length,
    }
