"""Readouts between vLLM's worker and its API server, over a real socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import zmq

from understudy.engine import EngineClosed
from understudy.engine.vllm import inbox as module
from understudy.engine.vllm.inbox import ReadoutInbox, RowReadouts
from understudy.engine.vllm.tapping import KEY, ReadoutRows, _Pass, _Place

Send = Callable[[str, int, int], None]
"""key, first position, positions: rows whose numbers are their positions."""


def with_inbox(use: Callable[[ReadoutInbox, Send], Awaitable[None]]) -> None:
    async def run() -> None:
        inbox = ReadoutInbox(layers=2, concepts=3)
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
        socket.connect(inbox.address)

        def send(key: str, first: int, positions: int) -> None:
            rows = np.repeat(np.arange(first, first + positions, dtype=np.float32), 6)
            socket.send(msgspec.msgpack.encode([ReadoutRows(key, first, rows.tobytes())]))

        folder = Path(inbox.address.removeprefix("ipc://")).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        try:
            await use(inbox, send)
        finally:
            socket.close(linger=0)
            inbox.close()
        assert not folder.exists()

    asyncio.run(run())


def numbers(rows: object) -> list[float]:
    return torch.tensor(rows)[:, 0, 0].tolist() if rows else []


def test_an_answers_rows_are_taken_as_its_tokens_come() -> None:
    async def use(inbox: ReadoutInbox, send: Send) -> None:
        with RowReadouts(inbox, prompt_tokens=4, span="answer") as readouts:
            [[key, first]] = readouts.extra_arguments.values()
            assert readouts.extra_arguments.keys() == {KEY} and first == 3
            taking = asyncio.create_task(readouts.take(2))
            send("another", 3, 1)
            send(key, 3, 1)
            send(key, 4, 2)
            found, of_prompt = await taking
            assert numbers(found) == [3, 4] and of_prompt == ()
            assert len(found[0]) == 2 and len(found[0][0]) == 3
            assert numbers((await readouts.take(1))[0]) == [5]
            assert (await readouts.take(0)) == ([], ())

    with_inbox(use)


def test_with_all_the_prompts_rows_come_with_the_first_tokens() -> None:
    async def use(inbox: ReadoutInbox, send: Send) -> None:
        with RowReadouts(inbox, prompt_tokens=4, span="all") as readouts:
            [[key, first]] = readouts.extra_arguments.values()
            assert first == 0
            send(key, 0, 2)
            send(key, 2, 3)
            send(key, 4, 1)  # computed again after it was preempted
            found, of_prompt = await readouts.take(2)
            assert numbers(of_prompt) == [0, 1, 2, 3] and numbers(found) == [3, 4]
            send(key, 5, 1)
            found, of_prompt = await readouts.take(1)
            assert numbers(found) == [5] and of_prompt == ()

    with_inbox(use)


def test_rows_that_never_come_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATE_SECONDS", 0.05)

    async def use(inbox: ReadoutInbox, send: Send) -> None:
        with (
            RowReadouts(inbox, prompt_tokens=1, span="answer") as readouts,
            pytest.raises(EngineClosed, match="expected the readouts of a token"),
        ):
            await readouts.take(1)

    with_inbox(use)


def test_a_pass_sends_only_the_rows_that_are_wanted() -> None:
    now = _Pass()
    now.add(_Place(0, 5, 0, 4), {}, ("a", 3))  # a prompt of which the last position and the next are wanted
    now.add(_Place(5, 9, 0, 3), {}, None)
    now.add(_Place(9, 10, 7, 3), {}, ("b", 3))
    now.add(_Place(10, 12, 0, 30), {}, ("c", 30))  # the beginning of a long prompt
    assert now.rows.tolist() == [3, 4, 9]
    layer = torch.arange(12.0)[now.rows, None].repeat(1, 3)
    now.found += [layer, layer]
    sent = msgspec.msgpack.decode(now.encode(), type=list[ReadoutRows])
    assert [(one.key, one.first, len(one.values) // 24) for one in sent] == [("a", 3, 2), ("b", 7, 1)]
    assert np.frombuffer(sent[1].values, np.float32).tolist() == [9.0] * 6
