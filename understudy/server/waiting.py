"""Waiting for an event, so long and no longer."""

import asyncio


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set within so many seconds.

    Not by `asyncio.wait_for`: until Python 3.12 it loses a cancellation that comes in the moment in which the
    event is set, and a task that is to end then goes on for ever (bpo-37658).
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
