"""Clients that leave before their answer is there."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect, Request

if TYPE_CHECKING:
    from understudy.engine import Stream

T = TypeVar("T")


async def drain(request: Request, stream: "Stream[T]") -> AsyncIterator[T]:
    """The stream's items, while the client is there.

    Raises ClientDisconnect, and cancels the work, once it is not.
    """
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            continue
        left = True
        stream.cancel()

    watching = asyncio.create_task(watch())
    try:
        async for item in stream:
            yield item
    finally:
        watching.cancel()
        stream.cancel()
    if left:
        raise ClientDisconnect
