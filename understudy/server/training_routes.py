"""The routes of the training API. What writes is guarded by the app: it is not part of its reading API."""

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from understudy.lessons import Example, LessonError, NoOpenQuestion
from understudy.server.adopting import check_source
from understudy.server.deciding import describe_decision
from understudy.server.errors import ApiError
from understudy.server.lesson_encoding import Criticised, Revision, encode_lessons, revise
from understudy.server.messages import json_response, parse_body, read_body
from understudy.server.operations import ApiRoute, Operation, Parameter
from understudy.server.session_settings import check_steps
from understudy.server.training import TrainingService
from understudy.server.training_answers import (
    Adopted,
    Cancelled,
    Decided,
    DecisionsAnswer,
    LessonsAnswer,
    Restored,
    SessionAnswer,
    Status,
    Synced,
)
from understudy.server.training_bodies import (
    KEY_PATTERN,
    AdoptBody,
    Asked,
    CancelBody,
    CheckpointBody,
    DecideBody,
    FinetuneBody,
    RestoreBody,
    SessionBody,
    TrainBody,
    TrainLessonsBody,
    parse_asked,
    session_key,
)

Answer = TypeVar("Answer")
Body = TypeVar("Body", bound=SessionBody)

SELF_DISTILLATION = "distillation"
"""The objective of lessons with a criticism, when the request names none."""
_KEY_HEADER = Parameter(
    "Idempotency-Key",
    "header",
    "The request's key, in place of `key` in the body.",
    {"type": "string", "pattern": KEY_PATTERN},
)
_KEY_QUERY = Parameter("key", "query", "Tell of this request alone.")
_SESSION = Operation(
    "training",
    {200: SessionAnswer, 202: SessionAnswer},
    refusals=(409, 422, 429, 503),
    parameters=(_KEY_HEADER,),
)


def training_routes(service: TrainingService) -> list[Route]:
    """All routes, bound to one service, with what the API's document says of each."""
    bound = _Endpoints(service)
    return [
        ApiRoute("POST", "/train", bound.train, replace(_SESSION, body=TrainBody)),
        ApiRoute("POST", "/finetune", bound.finetune, replace(_SESSION, body=FinetuneBody)),
        ApiRoute(
            "GET",
            "/train/status",
            bound.status,
            Operation("training", {200: Status | SessionAnswer}, refusals=(404,), parameters=(_KEY_QUERY,)),
        ),
        ApiRoute(
            "POST",
            "/train/cancel",
            bound.cancel,
            Operation("training", {200: Cancelled, 202: Cancelled}, CancelBody, refusals=(404, 409)),
        ),
        ApiRoute(
            "POST",
            "/lessons/train",
            bound.train_lessons,
            Operation("training", {200: LessonsAnswer}, TrainLessonsBody, refusals=(409, 422, 503)),
        ),
        ApiRoute(
            "GET",
            "/behaviours/decisions",
            bound.decisions,
            Operation("training", {200: DecisionsAnswer}),
        ),
        ApiRoute(
            "POST",
            "/behaviours/decide",
            bound.decide,
            Operation("training", {200: Decided}, DecideBody, refusals=(404, 422, 503)),
        ),
        ApiRoute(
            "POST",
            "/checkpoint",
            bound.checkpoint,
            Operation("weights", {200: Synced}, CheckpointBody, refusals=(422, 503), bodiless=True),
        ),
        ApiRoute(
            "POST",
            "/weights/restore",
            bound.restore,
            Operation("weights", {200: Restored}, RestoreBody, refusals=(404, 422, 503)),
        ),
        ApiRoute(
            "POST",
            "/weights/adopt",
            bound.adopt,
            Operation("weights", {200: Adopted}, AdoptBody, refusals=(422, 503)),
        ),
    ]


class _Endpoints:
    """The endpoints. Their docstrings are the API's document."""

    def __init__(self, service: TrainingService) -> None:
        self._service = service

    async def train(self, request: Request) -> Response:
        """Train on token ids.

        Without `wait` the answer is 202 as soon as the request is stored; it then survives a restart of the
        server, and `GET /train/status?key=` tells the rest.
        """
        asked, key = await _asked(request, TrainBody)
        examples = await to_thread.run_sync(lambda: [one.example() for one in asked.body.examples])
        return await self._submit(request, asked, key, examples, dict(asked.settings), {})

    async def finetune(self, request: Request) -> Response:
        """Train on lessons as messages, encoded with the model's chat template.

        A lesson with a criticism is answered anew by the model, with the criticism in view, and the new
        answer is what it learns to say without; it stands in `revised`.
        """
        asked, key = await _asked(request, FinetuneBody)
        overrides = dict(asked.settings)
        settings = await self._service.settings(overrides)  # wrong ones cost no generation
        if self._service.known(key, asked.content) is not None:
            return await self._submit(request, asked, key, (), overrides, {})
        body, preparation = asked.body, self._service.preparation
        lessons = await to_thread.run_sync(encode_lessons, preparation, body.lessons, body.supervise)
        criticised = [one for one in lessons if isinstance(one, Criticised)]
        if criticised:
            overrides.setdefault("objective", SELF_DISTILLATION)
        revisions = await self._revise(request, body, criticised, settings.seed)
        anew = iter(revisions)
        examples = [next(anew).example if isinstance(one, Criticised) else one for one in lessons]
        revised = [{"lesson": one.where, "rejected": one.rejected, "answer": one.answer} for one in revisions]
        return await self._submit(
            request, asked, key, examples, overrides, {"revised": revised} if revised else {}
        )

    async def status(self, request: Request) -> Response:
        """What the trainer is doing: queue, running session, step, loss, speed, what came last."""
        return json_response(self._service.status(request.query_params.get("key")))

    async def cancel(self, request: Request) -> Response:
        """Call off a request that waits, or undo the session that runs; the weights are as before it."""
        body = await read_body(request, CancelBody)
        result = await carried_out(self._service.cancel(body.key))
        return json_response(result, status=202 if result["state"] == "cancelling" else 200)

    async def train_lessons(self, request: Request) -> Response:
        """Train the approved lessons, and answer when it is done."""
        asked = await to_thread.run_sync(parse_asked, await request.body(), TrainLessonsBody)
        running = self._service.train_lessons(None, dict(asked.settings), dry_run=asked.body.dry_run)
        return json_response(await carried_out(running))

    async def decisions(self, request: Request) -> Response:
        """What was decided about sessions, by the gate and by people, with the evidence."""
        found = await to_thread.run_sync(self._service.decider.gatekeeper.decisions.list)
        told = [
            {**describe_decision(one), "session": one.session, "commit": one.weight_commit} for one in found
        ]
        return json_response({"decisions": told})

    async def decide(self, request: Request) -> Response:
        """Keep or revert a session that the gate asks about; training goes on then."""
        body = await read_body(request, DecideBody)
        deciding = self._service.answer(
            body.session, body.decision, author_of(request, body.author), body.why
        )
        return json_response(await carried_out(deciding))

    async def checkpoint(self, request: Request) -> Response:
        """Bring the model directory's files up to date with the weights that are served, now."""
        raw = await request.body()
        if raw.strip():
            parse_body(raw, CheckpointBody)
        return json_response(await carried_out(self._service.sessions.checkpoint()))

    async def restore(self, request: Request) -> Response:
        """Bring earlier weights back, bit for bit, while they are served. That is a commit too."""
        body = await read_body(request, RestoreBody)
        if body.commit is not None:
            await to_thread.run_sync(check_commit, self._service.engine.directory, body.commit)
        commit = await carried_out(
            self._service.sessions.restore(body.commit, author_of(request, body.author))
        )
        return json_response({"commit": commit, "restores": body.commit})

    async def adopt(self, request: Request) -> Response:
        """Take the weights of a safetensors file or a model directory on this machine, as a commit.

        Names, shapes and types must be those of the served weights. Nothing is executed: only safetensors
        files are read.
        """
        body = await read_body(request, AdoptBody)
        source = await to_thread.run_sync(check_source, body.source)
        adopting = self._service.sessions.adopt(
            source, body.message, author_of(request, body.author), body.parent
        )
        return json_response(await carried_out(adopting))

    # ------------------------------------------------------------------ parts

    async def _submit(
        self,
        request: Request,
        asked: Asked[Body],
        key: str,
        examples: Sequence[Example],
        overrides: dict[str, Any],
        extra: dict[str, Any],
    ) -> Response:
        check_steps(len(examples), await self._service.settings(overrides))
        body = asked.body
        result = await carried_out(
            self._service.submit(
                tuple(examples),
                settings=overrides,
                key=key,
                message=body.message,
                author=author_of(request, body.author),
                dry_run=body.dry_run,
                wait=body.wait or body.dry_run,
                content=asked.content,
                extra=extra,
            )
        )
        return json_response(result, status=202 if result["state"] in ("queued", "running") else 200)

    async def _revise(
        self, request: Request, body: FinetuneBody, lessons: Sequence[Criticised], seed: int
    ) -> list[Revision]:
        from understudy.engine import Sampling

        if not lessons:
            return []
        settings = self._service.workspace.settings
        speaks = settings.participant
        sampling = Sampling(
            max_tokens=body.max_tokens or speaks.max_tokens,
            temperature=speaks.temperature if body.temperature is None else body.temperature,
            seed=seed,
        )
        return await revise(
            request,
            self._service.preparation,
            self._service.engine,
            lessons,
            sampling,
            settings.server.max_batch,
        )


def author_of(request: Request, given: str) -> str:
    """Whom a change of the weights is by: a person's own token speaks for nobody else."""
    visitor = getattr(request.state, "visitor", None)
    return visitor.name if visitor is not None and visitor.name else given


def check_commit(directory: Path, commit: str) -> None:
    """Raises ApiError(404) unless `commit` is the id of one weight commit, or the beginning of one."""
    from understudy.weights import read_commits

    found = [one.id for one in read_commits(directory) if one.id.startswith(commit)]
    if len(found) != 1:
        raise ApiError(
            404,
            f"commit: expected the id of one weight commit, {commit!r} fits {len(found)}: see "
            "`understudy weights log`",
            param="commit",
            code="unknown_commit",
        )


async def _asked(request: Request, kind: type[Body]) -> tuple[Asked[Body], str]:
    """The request's body, settings and key. A large body is read off the event loop."""
    asked = await to_thread.run_sync(parse_asked, await request.body(), kind)
    return asked, session_key(asked.body, request.headers.get("idempotency-key"))


async def carried_out(work: Awaitable[Answer]) -> Answer:
    """The trainer's and the ledger's refusals as answers a client can act on."""
    from understudy.training import TrainerUnavailable, TrainingFailed

    try:
        return await work
    except TrainingFailed as error:
        raise ApiError(422, str(error), code="training_failed") from error
    except TrainerUnavailable as error:
        raise ApiError(503, str(error), code="trainer_unavailable") from error
    except NoOpenQuestion as error:
        raise ApiError(404, str(error.args[0]), param="session", code="no_open_decision") from error
    except LessonError as error:
        raise ApiError(409, str(error), code="lesson_state") from error
