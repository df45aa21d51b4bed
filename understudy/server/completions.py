"""From a completion body to an answer: `POST /v1/completions` and `POST /v1/chat/completions`."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from understudy.server.answers import (
    AnswerShape,
    Kind,
    TextOffsets,
    count_usage,
    describe_weights,
    weight_header,
)
from understudy.server.bodies import (
    COMPLETION_TOKENS,
    ChatBody,
    CompletionBody,
    ExtraArguments,
    SamplingBody,
)
from understudy.server.errors import ApiError
from understudy.server.leaving import drain
from understudy.server.messages import json_response, read_body
from understudy.server.metrics import Metrics
from understudy.server.readouts import AnswerReadouts
from understudy.server.refusals import explain

if TYPE_CHECKING:
    from understudy.config import ServerSettings
    from understudy.engine import (
        Engine,
        GenerationRequest,
        GenerationStep,
        Sampling,
        Steps,
        Stream,
        WeightState,
    )


async def complete_chat(request: Request) -> Response:
    """Answer a chat, as OpenAI's API does; with `stream`, as server-sent events."""
    body = await read_body(request, ChatBody)
    engine: Engine = request.app.state.engine
    _check_body(body, engine)

    messages = [message.spoken(f"messages[{place}]") for place, message in enumerate(body.messages)]

    def encode() -> list[tuple[int, ...]]:
        from understudy.engine import encode_chat

        return [encode_chat(engine.tokenizer, messages, body.chat_template_kwargs)]

    prompts = await to_thread.run_sync(encode)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    sampling = _sampling(body, body.max_completion_tokens or body.max_tokens, logprobs)
    return await _answer(request, body, prompts, sampling, "chat")


async def complete_text(request: Request) -> Response:
    """Continue texts or token ids, as OpenAI's API does; with `stream`, as server-sent events."""
    body = await read_body(request, CompletionBody)
    engine: Engine = request.app.state.engine
    _check_body(body, engine)

    def encode() -> list[tuple[int, ...]]:
        from understudy.engine import encode_text

        return [
            encode_text(engine.tokenizer, prompt, special_tokens=True)
            if isinstance(prompt, str)
            else tuple(prompt)
            for prompt in body.prompts()
        ]

    prompts = await to_thread.run_sync(encode)
    sampling = _sampling(body, body.max_tokens or COMPLETION_TOKENS, body.logprobs)
    return await _answer(request, body, prompts, sampling, "text")


def _check_body(body: SamplingBody, engine: "Engine") -> None:
    check_model(body.model, engine)
    body.refuse_unsupported()


def check_model(name: str, engine: "Engine") -> None:
    """Raises ApiError(404) for a model that is not the one served here."""
    if name != engine.settings.name:
        raise ApiError(
            404,
            f"expected the model {engine.settings.name!r}, the one served here, got {name!r}",
            param="model",
            code="model_not_found",
        )


def _sampling(body: SamplingBody, max_tokens: int | None, logprobs: int | None) -> "Sampling":
    from understudy.engine import Sampling

    return Sampling(
        ignore_eos=body.ignore_eos,
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        stop=body.stops(),
        seed=body.seed,
        logprobs=logprobs,
    )


async def _answer(
    request: Request,
    body: SamplingBody,
    prompts: Sequence[tuple[int, ...]],
    sampling: "Sampling",
    kind: Kind,
) -> Response:
    from understudy.engine import GenerationRequest

    engine: Engine = request.app.state.engine
    settings: ServerSettings = request.app.state.settings
    extra = body.vllm_xargs or ExtraArguments()
    asked = GenerationRequest(
        tuple(prompts), sampling, body.n or 1, extra.span(), extra.steering(), at_once=not body.stream
    )
    rows = len(asked.prompts) * asked.samples
    if rows > settings.max_batch:
        raise ApiError(
            400, f"expected at most {settings.max_batch} answers (prompts times n), got {rows}", param="n"
        )
    metrics: Metrics = request.app.state.metrics
    readouts = None
    if asked.readout is not None:
        scale, per = extra.readout_scale or "raw", extra.readout_per or "token"
        readouts = AnswerReadouts(engine.directions, scale, per, metrics.readouts.count)
    shape = AnswerShape(kind, engine.settings.name, engine.texts, sampling.logprobs is not None, readouts)
    usage_wanted = body.stream_options is not None and body.stream_options.include_usage
    before = engine.weights
    running = _Running(engine, metrics, asked, shape, before, engine.submit(asked))
    if body.stream:
        return _EventStream(running, usage_wanted)
    return await running.whole(request)


@dataclass(frozen=True, slots=True)
class _Running:
    """A request that the engine works on, and how its answer is to look."""

    engine: "Engine"
    metrics: Metrics
    request: "GenerationRequest"
    shape: AnswerShape
    before: "WeightState"
    stream: "Stream[Steps]"

    async def whole(self, request: Request) -> Response:
        """The complete answer. Raises ClientDisconnect, and cancels the work, when the client leaves."""
        from understudy.engine import gather_completions

        started = time.perf_counter()
        steps: list[GenerationStep] = []
        async for passed in drain(request, self.stream):
            if not steps:
                self.metrics.first_token_seconds.observe(time.perf_counter() - started)
            steps += passed
        completions = gather_completions(steps, len(self.request.prompts) * self.request.samples)
        usage = self._count(sum(len(completion.token_ids) for completion in completions))
        weights = describe_weights(self.before, self.engine.weights)
        return json_response(
            self.shape.whole(completions, usage, weights), headers=weight_header(self.before)
        )

    async def events(self, usage_wanted: bool) -> AsyncIterator[bytes]:
        """The answer as server-sent events; a failure on the way is the last event."""
        started = time.perf_counter()
        offsets = TextOffsets(self.engine.texts)
        tokens = 0
        for chunk in self.shape.opening(len(self.request.prompts) * self.request.samples):
            yield _event(chunk)
        try:
            async for steps in self.stream:
                if not tokens:
                    self.metrics.first_token_seconds.observe(time.perf_counter() - started)
                weights = describe_weights(self.before, self.engine.weights)
                tokens += sum(len(step.token_ids) for step in steps)
                read = [(step, self.shape.read(step.row, step)) for step in steps]
                told = [(step, fields) for step, fields in read if _tells(step) or fields]
                if told:
                    chunks = (self.shape.chunk(step, offsets, weights, fields) for step, fields in told)
                    yield b"".join(map(_event, chunks))
        except Exception as error:  # noqa: BLE001  (explain logs what nobody expected)
            yield _event(explain(error).body())
            return
        usage = self._count(tokens)
        if usage_wanted:
            yield _event(self.shape.usage_chunk(usage))
        yield b"data: [DONE]\n\n"

    def _count(self, completion_tokens: int) -> dict[str, int]:
        usage = count_usage(self.request.prompts, completion_tokens)
        self.metrics.staleness.observe(self.engine.weights.step - self.before.step)
        self.metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
        self.metrics.tokens.labels("completion").inc(usage["completion_tokens"])
        return usage


class _EventStream(StreamingResponse):
    """Server-sent events; whatever ends the answer, also a client that left, ends the work."""

    def __init__(self, running: _Running, usage_wanted: bool) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **weight_header(running.before)}
        super().__init__(running.events(usage_wanted), headers=headers, media_type="text/event-stream")
        self._stream = running.stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.cancel()


def _tells(step: "GenerationStep") -> bool:
    return bool(step.text or step.logprobs or step.finish_reason)


def _event(content: object) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"
