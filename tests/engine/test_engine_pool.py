"""Many requests at once: limits, cancelling, consumers that do not read."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from understudy.config import ModelSettings
from understudy.engine import (
    EmbeddedEngine,
    EngineBusy,
    EngineClosed,
    GenerationRequest,
    PromptTooLong,
    Sampling,
    Score,
    ScoreRequest,
    collect,
    encode_text,
    gather_completions,
    write_miniature,
)
from understudy.engine.pool import RequestPool, Stream

DEADLINE_SECONDS = 30.0
Produce = Callable[[Callable[[], bool]], Iterator[int]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    directory = write_miniature(tmp_path_factory.mktemp("model"), "qwen3_5", context_length=4096)
    with EmbeddedEngine(ModelSettings(), directory, max_concurrent=4, max_waiting=8) as engine:
        yield engine


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():
            await asyncio.sleep(0.002)


def gated(gate: threading.Event) -> Produce:
    """Yields 1, waits for the gate, yields 2."""

    def produce(cancelled: Callable[[], bool]) -> Iterator[int]:
        yield 1
        assert gate.wait(DEADLINE_SECONDS)
        if not cancelled():
            yield 2

    return produce


def test_no_more_run_than_allowed_and_no_more_wait() -> None:
    async def scenario() -> None:
        pool, gate = RequestPool(2, 1), threading.Event()
        streams = [pool.submit(gated(gate)) for _ in range(3)]
        await until(lambda: pool.running == 2)
        assert pool.waiting == 1
        with pytest.raises(EngineBusy, match="fewer than 1 requests waiting, found 1 behind 2 running"):
            pool.submit(gated(gate))
        gate.set()
        assert [[item async for item in stream] for stream in streams] == [[1, 2]] * 3
        await until(lambda: pool.running == 0 and pool.waiting == 0)
        assert [item async for item in pool.submit(gated(gate))] == [1, 2]
        pool.close()

    asyncio.run(scenario())


def test_a_waiting_request_is_cancelled_at_once_and_makes_room() -> None:
    async def scenario() -> None:
        pool, gate = RequestPool(1, 1), threading.Event()
        first, second = pool.submit(gated(gate)), pool.submit(gated(gate))
        await until(lambda: pool.running == 1)
        second.cancel()
        assert [item async for item in second] == []
        assert pool.waiting == 0
        third = pool.submit(gated(gate))
        gate.set()
        assert [item async for item in first] == [1, 2]
        assert [item async for item in third] == [1, 2]
        pool.close()

    asyncio.run(scenario())


def test_a_failure_reaches_the_consumer_and_the_pool_goes_on() -> None:
    def fail(cancelled: Callable[[], bool]) -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("here")

    async def scenario() -> None:
        pool = RequestPool(1, 1)
        stream: Stream[int] = pool.submit(fail)
        assert await anext(stream) == 1
        with pytest.raises(ZeroDivisionError, match="here"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        done = threading.Event()
        done.set()
        assert [item async for item in pool.submit(gated(done))] == [1, 2]
        pool.close()

    asyncio.run(scenario())


def test_closing_ends_what_runs_and_refuses_what_comes() -> None:
    async def scenario() -> None:
        pool, gate = RequestPool(1, 1), threading.Event()
        running, waiting = pool.submit(gated(gate)), pool.submit(gated(gate))
        assert await anext(running) == 1
        closing = asyncio.create_task(asyncio.to_thread(pool.close))
        await until(lambda: running.cancelled)
        gate.set()
        await closing
        for stream in (running, waiting):
            with pytest.raises(EngineClosed, match="closed before the answer was complete"):
                await anext(stream)
        with pytest.raises(EngineClosed, match="expected an open engine"):
            pool.submit(gated(gate))

    asyncio.run(scenario())


def test_a_consumer_whose_loop_is_gone_ends_the_work() -> None:
    pool, gate = RequestPool(1, 1), threading.Event()

    async def leave() -> Stream[int]:
        stream = pool.submit(gated(gate))
        assert await anext(stream) == 1
        return stream

    stream = asyncio.run(leave())
    gate.set()
    pool.close()
    assert stream.cancelled
    assert pool.running == 0


def test_a_consumer_that_never_reads_holds_nobody_back(engine: EmbeddedEngine) -> None:
    prompt = encode_text(engine.tokenizer, "What")

    async def scenario() -> None:
        silent = [
            engine.submit(GenerationRequest((prompt,), Sampling(max_tokens=200, seed=i))) for i in range(4)
        ]
        read = engine.submit(GenerationRequest((prompt,), Sampling(max_tokens=20, seed=9)))
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await collect(read)
        await until(lambda: engine.running == 0)  # the unread ones end by themselves
        for stream in silent:
            assert len(await collect(stream)) > 1

    asyncio.run(scenario())


def test_cancelling_stops_a_generation_after_the_running_pass(engine: EmbeddedEngine) -> None:
    prompt = encode_text(engine.tokenizer, "What")
    request = GenerationRequest((prompt,) * 4, Sampling(max_tokens=4000, seed=1))

    async def scenario() -> int:
        stream = engine.submit(request)
        await anext(stream)
        assert engine.running == 1
        stream.cancel()
        await until(lambda: engine.running == 0)
        return len(await collect(stream))

    assert asyncio.run(scenario()) < 4 * 4000


def test_answers_side_by_side_equal_answers_alone(engine: EmbeddedEngine) -> None:
    requests = [
        GenerationRequest(
            (encode_text(engine.tokenizer, f"request {i}"), encode_text(engine.tokenizer, "x" * i)),
            Sampling(temperature=(i % 3) / 2, max_tokens=30, seed=i, top_p=0.9),
        )
        for i in range(1, 11)
    ]
    alone = [engine.complete(request) for request in requests]

    async def together() -> list[object]:
        async with asyncio.timeout(DEADLINE_SECONDS):
            streams = [engine.submit(request) for request in requests]
            return [gather_completions(await collect(stream), 2) for stream in streams]

    assert asyncio.run(together()) == alone


def test_a_prompt_that_cannot_be_answered_is_refused_before_it_waits(engine: EmbeddedEngine) -> None:
    async def scenario() -> None:
        with pytest.raises(PromptTooLong):
            engine.submit(GenerationRequest(((5,) * engine.context_length,)))
        assert engine.waiting == engine.running == 0

    asyncio.run(scenario())


def test_scores_and_other_work_run_on_the_same_pool(engine: EmbeddedEngine) -> None:
    sequences = [ScoreRequest((5, 6, 7), ((1, 3),)), ScoreRequest((8, 9), ((1, 2),))]

    async def scenario() -> tuple[dict[int, Score], str]:
        scores = dict([item async for item in engine.submit_score(sequences)])
        return scores, await engine.run(lambda: threading.current_thread().name)

    scores, thread = asyncio.run(scenario())
    assert [scores[0], scores[1]] == list(engine.score(sequences))
    assert thread.startswith("understudy-request")


def test_what_fails_in_other_work_is_raised(engine: EmbeddedEngine) -> None:
    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await engine.run(lambda: 1 // 0)

    asyncio.run(scenario())


def test_encoding_from_many_threads_at_once(engine: EmbeddedEngine) -> None:
    texts = [f"text number {i} \N{EURO SIGN}" * (i % 7 + 1) for i in range(200)]
    expected = [encode_text(engine.tokenizer, text) for text in texts]

    async def scenario() -> list[tuple[int, ...]]:
        return list(
            await asyncio.gather(*(asyncio.to_thread(encode_text, engine.tokenizer, text) for text in texts))
        )

    assert asyncio.run(scenario()) == expected
