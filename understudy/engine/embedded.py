"""The engine that lives in the server's own process."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from understudy.config import ModelSettings, ServerSettings
from understudy.engine.chat import encode_chat
from understudy.engine.decoding import check_prompts, decode
from understudy.engine.detokenize import TokenTexts
from understudy.engine.directions import Directions, resolve_steering
from understudy.engine.errors import EngineClosed
from understudy.engine.loading import load_model
from understudy.engine.pool import RequestPool, Stream
from understudy.engine.request import (
    Completion,
    FinishReason,
    GenerationRequest,
    GenerationStep,
    Readout,
    Sampling,
    Score,
    ScoreRequest,
    TokenLogprob,
    WeightState,
)
from understudy.engine.scoring import score
from understudy.engine.tap import Tap
from understudy.engine.turns import Turns
from understudy.lessons import ChatMessage
from understudy.weights import SharedWeights

_ROWS_TOGETHER = 128  # prompts that `chat` decodes as one batch

T = TypeVar("T")
Steps = tuple[GenerationStep, ...]


class EmbeddedEngine:
    """A loaded model whose parameters lie in shared memory, generating on threads.

    Another process may map `shared.manifest` and train the same parameters while this one speaks.
    `weight_commit` is what the owner of the weights' history says it is; answers report it.
    """

    def __init__(
        self,
        settings: ModelSettings,
        directory: Path,
        *,
        max_concurrent: int | None = None,
        max_waiting: int | None = None,
        readout: Path | None = None,
    ) -> None:
        """Load the model in `directory`, and the directions in `readout`. The limits default to those of
        ServerSettings.

        Raises ModelNotFound, UnknownArchitecture, BrokenCheckpoint or BrokenReadout.
        """
        limits = ServerSettings()
        torch.set_num_threads(settings.threads)
        self.settings = settings
        self.directory = directory
        self.directions = None if readout is None else Directions.load(readout)
        self.loaded = load_model(directory, settings.dtype)
        self._tap = None if self.directions is None else Tap(self.loaded.model, self.directions)
        self.texts = TokenTexts(self.loaded.tokenizer)
        self.shared = SharedWeights.create(self.loaded.model, directory)
        self.weight_commit: str | None = None
        self._turns = Turns()
        self._pool = RequestPool(
            limits.max_concurrent if max_concurrent is None else max_concurrent,
            limits.max_waiting if max_waiting is None else max_waiting,
        )

    @property
    def model(self) -> Any:
        return self.loaded.model

    @property
    def tokenizer(self) -> Any:
        return self.loaded.tokenizer

    @property
    def context_length(self) -> int:
        return self.loaded.context_length

    @property
    def vocabulary(self) -> int:
        return self.loaded.vocabulary

    @property
    def manifest(self) -> Path:
        return self.shared.manifest

    @property
    def weights(self) -> WeightState:
        """The weights as they are now."""
        return WeightState(self.weight_commit, self.shared.step, self.shared.dirty)

    # ------------------------------------------------------------------ in the caller's thread

    def generate(self, request: GenerationRequest) -> Iterator[GenerationStep]:
        """Answer step by step. Raises PromptTooLong or BadRequest before the first step."""
        self._check(request)
        passes = decode(self.loaded, self.texts, request, lambda: False, self._turns, self._tap)
        return (step for steps in passes for step in steps)

    def complete(self, request: GenerationRequest) -> tuple[Completion, ...]:
        """Whole answers: prompt by prompt, for each its samples."""
        return gather_completions(self.generate(request), len(request.prompts) * request.samples)

    def chat(
        self, prompts: Sequence[Sequence[ChatMessage]], sampling: Sampling | None = None
    ) -> tuple[str, ...]:
        """One answer to each conversation, greedy unless `sampling` says otherwise."""
        chosen = sampling or Sampling(temperature=0.0)
        encoded = [encode_chat(self.tokenizer, messages) for messages in prompts]
        answers: list[str] = []
        for start in range(0, len(encoded), _ROWS_TOGETHER):
            request = GenerationRequest(tuple(encoded[start : start + _ROWS_TOGETHER]), chosen)
            answers += [completion.text for completion in self.complete(request)]
        return tuple(answers)

    def score(self, sequences: Sequence[ScoreRequest]) -> tuple[Score, ...]:
        """Log-probabilities of the chosen ranges of each sequence."""
        found = dict(score(self.loaded, sequences))
        return tuple(found[number] for number in range(len(sequences)))

    # ------------------------------------------------------------------ on the pool, for an event loop

    def submit(self, request: GenerationRequest) -> Stream[Steps]:
        """Answer on a worker thread; each item holds the steps of one pass over the batch.

        Raises EngineBusy, EngineClosed, PromptTooLong or BadRequest at once.
        """
        self._check(request)
        return self._pool.submit(
            lambda cancelled: decode(self.loaded, self.texts, request, cancelled, self._turns, self._tap)
        )

    def _check(self, request: GenerationRequest) -> None:
        check_prompts(self.loaded, request.prompts)
        resolve_steering(self.directions, request)

    def submit_score(self, sequences: Sequence[ScoreRequest]) -> Stream[tuple[int, Score]]:
        """Score on a worker thread; items are (number of the sequence, its score), in any order."""

        def produce(cancelled: Callable[[], bool]) -> Iterator[tuple[int, Score]]:
            for found in score(self.loaded, sequences):
                if cancelled():
                    return
                yield found

        return self._pool.submit(produce)

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call`, made on a worker thread under the same limits as every request."""
        stream = self._pool.submit(lambda _: (made() for made in (call,)))
        try:
            async for result in stream:
                return result
        finally:
            stream.cancel()
        raise EngineClosed("expected an open engine, this one was closed meanwhile: start it again")

    @property
    def running(self) -> int:
        return self._pool.running

    @property
    def waiting(self) -> int:
        return self._pool.waiting

    def close(self) -> None:
        """Cancel what runs, wait for it, and remove the shared weights."""
        self._pool.close()
        self.shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def gather_completions(steps: Iterable[GenerationStep], rows: int) -> tuple[Completion, ...]:
    """The whole answers of `rows` rows from all their steps."""
    texts: list[list[str]] = [[] for _ in range(rows)]
    token_ids: list[list[int]] = [[] for _ in range(rows)]
    logprobs: list[list[TokenLogprob]] = [[] for _ in range(rows)]
    readouts: list[list[Sequence[Sequence[float]]]] = [[] for _ in range(rows)]
    prompts: dict[int, Readout] = {}
    reasons: dict[int, FinishReason] = {}
    for step in steps:
        readouts[step.row] += step.readout
        if step.prompt_readout:
            prompts[step.row] = step.prompt_readout
        texts[step.row].append(step.text)
        token_ids[step.row] += step.token_ids
        logprobs[step.row] += step.logprobs
        if step.finish_reason is not None:
            reasons[step.row] = step.finish_reason
    return tuple(
        Completion(
            "".join(texts[row]),
            tuple(token_ids[row]),
            tuple(logprobs[row]),
            reasons[row],
            readouts[row],
            prompts.get(row, ()),
        )
        for row in range(rows)
    )


async def collect(stream: AsyncIterator[Steps]) -> list[GenerationStep]:
    """Every step of a stream, flattened."""
    return [step async for steps in stream for step in steps]
