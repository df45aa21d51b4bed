"""A task that waits in a loop ends when it is cancelled, also in the moment in which its event comes."""

import asyncio

import pytest

from understudy.server.waiting import set_within


async def rounds(event: asyncio.Event, seen: list[bool]) -> None:
    while True:
        seen.append(await set_within(event, 0.01))
        event.clear()


@pytest.mark.parametrize("later", range(5))
def test_a_cancellation_is_not_lost_when_the_event_is_set_with_it(later: int) -> None:
    async def run() -> None:
        event = asyncio.Event()
        task = asyncio.create_task(rounds(event, []))
        await asyncio.sleep(0.005)  # it waits
        event.set()
        for _ in range(later):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done and task.cancelled()

    asyncio.run(run())


def test_it_says_whether_the_event_was_set() -> None:
    async def run() -> tuple[bool, bool]:
        event = asyncio.Event()
        late = await set_within(event, 0.01)
        asyncio.get_running_loop().call_later(0.01, event.set)
        return late, await set_within(event, 5)

    assert asyncio.run(run()) == (False, True)


def test_a_failure_of_what_waits_is_raised() -> None:
    async def run() -> None:
        task = asyncio.create_task(rounds(asyncio.Event(), []))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
