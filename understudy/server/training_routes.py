"""The routes of the training API. What writes is guarded by the app: it is not part of its reading API."""

import uuid
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from understudy.lessons import Example, LessonError
from understudy.server.errors import ApiError
from understudy.server.messages import json_response, read_body
from understudy.server.training import TrainingService

Answer = TypeVar("Answer")


class TrainBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /train`: examples as token ids. Settings that are not given are the workspace's."""

    examples: tuple[Example, ...]
    settings: dict[str, Any] = {}
    message: str = "Trained by request"
    author: str = "api"
    session: str | None = None
    replay: bool = True
    dry_run: bool = False
    wait: bool = False


class LessonsBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /lessons/train`: train what is approved, now."""

    settings: dict[str, Any] = {}
    dry_run: bool = False


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /train/cancel`: the running session to undo."""

    session: str


class RestoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /weights/restore`: the commit to go back to; null is the model as it came."""

    commit: str | None
    author: str = "api"


def training_routes(service: TrainingService) -> list[Route]:
    """All routes, bound to one service."""

    async def train(request: Request) -> Response:
        from understudy.training import RunSession

        body = await read_body(request, TrainBody)
        session = RunSession(
            session=body.session or uuid.uuid4().hex,
            examples=body.examples,
            replay=(),
            settings={},
            message=body.message,
            author=body.author,
            dry_run=body.dry_run,
        )
        running = service.train_examples(
            session, body.settings, replay=body.replay, wait=body.wait or body.dry_run
        )
        result = await _explained(running)
        return json_response(result, status=202 if result["state"] == "queued" else 200)

    async def train_lessons(request: Request) -> Response:
        body = await read_body(request, LessonsBody)
        running = service.train_lessons(None, body.settings, dry_run=body.dry_run)
        return json_response(await _explained(running))

    async def cancel(request: Request) -> Response:
        session = (await read_body(request, CancelBody)).session
        if service.trainer.status.session != session:
            raise ApiError(404, f"expected the id of the running session, {session!r} is not running")
        await service.trainer.cancel(session)
        return json_response({"session": session, "state": "cancelling"}, status=202)

    async def status(request: Request) -> Response:
        return json_response(service.status())

    async def restore(request: Request) -> Response:
        body = await read_body(request, RestoreBody)
        commit = await _explained(service.restore(body.commit, body.author))
        return json_response({"commit": commit, "restores": body.commit})

    return [
        Route("/train", train, methods=["POST"]),
        Route("/train/cancel", cancel, methods=["POST"]),
        Route("/train/status", status, methods=["GET"]),
        Route("/lessons/train", train_lessons, methods=["POST"]),
        Route("/weights/restore", restore, methods=["POST"]),
    ]


async def _explained(work: Awaitable[Answer]) -> Answer:
    """The trainer's and the ledger's refusals as answers a client can act on."""
    from understudy.training import TrainerUnavailable, TrainingFailed

    try:
        return await work
    except TrainingFailed as error:
        raise ApiError(422, str(error), code="training_failed") from error
    except TrainerUnavailable as error:
        raise ApiError(503, str(error), code="trainer_unavailable") from error
    except LessonError as error:
        raise ApiError(409, str(error), code="lesson_state") from error
