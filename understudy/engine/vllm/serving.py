"""vLLM's client in the API server's process, as an engine of Understudy."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self, TypeVar

from understudy.config import ModelSettings
from understudy.engine.detokenize import TokenTexts
from understudy.engine.directions import Directions, resolve_steering
from understudy.engine.embedded import gather_completions
from understudy.engine.errors import EngineClosed, PromptTooLong
from understudy.engine.loading import load_tokenizer
from understudy.engine.pool import Stream
from understudy.engine.request import (
    Completion,
    FinishReason,
    GenerationRequest,
    GenerationStep,
    Score,
    ScoreRequest,
    TokenLogprob,
    WeightState,
)
from understudy.engine.vllm.inbox import ReadoutInbox, RowReadouts
from understudy.engine.vllm.tapping import directions_of_workspace
from understudy.weights import SharedWeights

T = TypeVar("T")
Steps = tuple[GenerationStep, ...]


class VllmEngine:
    """Answers by vLLM's own scheduler. Belongs to the event loop of vLLM's API server."""

    @classmethod
    async def open(cls, client: Any, settings: ModelSettings) -> Self:
        """The engine of vLLM's EngineClient. Raises MappingBroken, BrokenCheckpoint or BrokenReadout."""
        [manifest] = await client.collective_rpc("understudy_manifest")
        engine = cls(client, settings, Path(client.model_config.model), Path(manifest))
        if engine._inbox is not None:
            await client.collective_rpc("understudy_send_readouts", args=(engine._inbox.address,))
        return engine

    def __init__(self, client: Any, settings: ModelSettings, directory: Path, manifest: Path) -> None:
        """`manifest` is that of the mapping that vLLM's worker made; see `open`."""
        self.settings = settings
        self.directory = directory
        self.tokenizer = load_tokenizer(directory)
        self.texts = TokenTexts(self.tokenizer)
        self.context_length: int = client.model_config.max_model_len
        self.vocabulary: int = client.model_config.get_vocab_size()
        self.shared = SharedWeights.attach(manifest)
        self.weight_commit: str | None = self.shared.commit
        self.directions = directions_of_workspace()
        self._inbox = None if self.directions is None else _inbox_for(self.directions)
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._running = 0

    @property
    def manifest(self) -> Path:
        return self.shared.manifest

    @property
    def weights(self) -> WeightState:
        """The weights as they are now."""
        return WeightState(self.weight_commit, self.shared.step, self.shared.dirty)

    @property
    def running(self) -> int:
        """Requests of this engine's callers; vLLM's own routes are counted by vLLM's metrics."""
        return self._running

    @property
    def waiting(self) -> int:
        """None that is known here: vLLM queues by itself."""
        return 0

    def submit(self, request: GenerationRequest) -> Stream[Steps]:
        """Answer; an item for each output of a row. Raises PromptTooLong or BadRequest at once."""
        for prompt in request.prompts:
            self._check_length(len(prompt))
        resolve_steering(self.directions, request)
        rows = [prompt for prompt in request.prompts for _ in range(request.samples)]

        async def answer(stream: Stream[Steps]) -> None:
            await _together(self._answer(stream, row, prompt, request) for row, prompt in enumerate(rows))

        return self._start(answer)

    def submit_score(self, sequences: Sequence[ScoreRequest]) -> Stream[tuple[int, Score]]:
        """Score; vLLM reads each sequence as a prompt. Raises PromptTooLong at once."""
        for sequence in sequences:
            self._check_length(len(sequence.token_ids))

        async def answer(stream: Stream[tuple[int, Score]]) -> None:
            await _together(
                self._score(stream, number, sequence) for number, sequence in enumerate(sequences)
            )

        return self._start(answer)

    def complete(self, request: GenerationRequest) -> tuple[Completion, ...]:
        """Whole answers, for a caller on another thread than the event loop's."""

        async def all_steps() -> list[GenerationStep]:
            return [step async for steps in self.submit(request) for step in steps]

        steps = asyncio.run_coroutine_threadsafe(all_steps(), self._loop).result()
        return gather_completions(steps, len(request.prompts) * request.samples)

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call`, made on a worker thread."""
        return await asyncio.to_thread(call)

    def close(self) -> None:
        """No readouts come any more. vLLM ends by itself."""
        if self._inbox is not None:
            self._inbox.close()

    # ------------------------------------------------------------------ parts

    def _check_length(self, tokens: int) -> None:
        if tokens >= self.context_length:
            raise PromptTooLong(tokens, self.context_length)

    def _start(self, work: Callable[[Stream[T]], Coroutine[Any, Any, None]]) -> Stream[T]:
        stream: Stream[T] = Stream(self._loop)

        async def counted() -> None:
            self._running += 1
            try:
                await work(stream)
            finally:
                self._running -= 1

        stream.attach(asyncio.run_coroutine_threadsafe(counted(), self._loop))
        return stream

    async def _answer(
        self, stream: Stream[Steps], row: int, prompt: Sequence[int], request: GenerationRequest
    ) -> None:
        with self._readouts(request, len(prompt)) as readouts:
            async for made in self._generate(prompt, self._sampling_params(request, row, prompt, readouts)):
                [delta] = made.outputs
                _check_finish(delta.finish_reason)
                logprobs = tuple(
                    _token_logprob(token, found, request.sampling.logprobs or 0)
                    for token, found in zip(delta.token_ids, delta.logprobs or (), strict=False)
                )
                read, read_of_prompt = await readouts.take(len(delta.token_ids)) if readouts else ((), ())
                reason = _finish_reason(delta.finish_reason)
                step = GenerationStep(
                    row, delta.text, tuple(delta.token_ids), logprobs, reason, read, read_of_prompt
                )
                stream.put((step,))

    def _readouts(
        self, request: GenerationRequest, prompt_tokens: int
    ) -> AbstractContextManager[RowReadouts | None]:
        if request.readout is None or self._inbox is None:
            return nullcontext()
        return RowReadouts(self._inbox, prompt_tokens, request.readout)

    def _sampling_params(
        self, request: GenerationRequest, row: int, prompt: Sequence[int], readouts: RowReadouts | None
    ) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        room = self.context_length - len(prompt)
        extra: dict[str, Any] = {} if readouts is None else readouts.extra_arguments
        if request.steering:
            extra["steer"] = [str(steer) for steer in request.steering]
        return SamplingParams(
            max_tokens=min(sampling.max_tokens or room, room),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            stop=list(sampling.stop),
            seed=None if sampling.seed is None else sampling.seed + row,
            logprobs=sampling.logprobs,
            ignore_eos=sampling.ignore_eos,
            output_kind=RequestOutputKind.FINAL_ONLY if request.at_once else RequestOutputKind.DELTA,
            extra_args=extra or None,
            # Positions that come from the cache are not computed, so nothing could be read there.
            skip_reading_prefix_cache=True if readouts else None,
        )

    async def _score(self, stream: Stream[tuple[int, Score]], number: int, sequence: ScoreRequest) -> None:
        from vllm import SamplingParams

        ids = sequence.token_ids
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        async for made in self._generate(ids, params):
            _check_finish(made.outputs[0].finish_reason)
            if made.finished:
                known = zip(ids[1:], made.prompt_logprobs[1:], strict=True)  # nothing predicts token 0
                found = [each[token].logprob for token, each in known]
                spans = tuple(tuple(found[start - 1 : end - 1]) for start, end in sequence.ranges)
                stream.put((number, Score(spans)))

    def _generate(self, prompt: Sequence[int], params: Any) -> AsyncIterator[Any]:
        made: AsyncIterator[Any] = self._client.generate(
            {"prompt_token_ids": list(prompt)}, params, f"understudy-{uuid.uuid4().hex}"
        )
        return made


def _check_finish(reason: str | None) -> None:
    if reason not in (None, "stop", "length"):
        raise EngineClosed(f"vLLM gave the request up ({reason}): its log tells why")


def _finish_reason(reason: str | None) -> FinishReason | None:
    return None if reason is None else ("length" if reason == "length" else "stop")


def _inbox_for(directions: Directions) -> ReadoutInbox:
    return ReadoutInbox(len(directions.layers), len(directions.concepts))


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of it at once; the first failure ends the rest and is raised as itself, for callers who know it."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(one)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def _token_logprob(token: int, found: Any, alternatives: int) -> TokenLogprob:
    ranked = sorted(found.items(), key=lambda entry: entry[1].rank)[:alternatives]
    return TokenLogprob(token, found[token].logprob, tuple((other, each.logprob) for other, each in ranked))
