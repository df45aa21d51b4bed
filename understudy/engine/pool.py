"""Requests on worker threads, their results in an event loop. No torch here."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from understudy.engine.errors import EngineBusy, EngineClosed

T = TypeVar("T")
Produce = Callable[[Callable[[], bool]], Iterator[T]]
"""Yields a request's results; asks the callable it is given whether to stop."""


class _End:
    """The mark behind a stream's last item."""


class Stream(AsyncIterator[T], Generic[T]):
    """What one request yields, for one consumer in one event loop.

    Items wait in a queue without a bound: a consumer that is slow, or never reads, holds back no worker.
    A request yields a bounded number of items, so the queue is bounded too.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: asyncio.Queue[T | _End | BaseException] = asyncio.Queue()
        self._cancelled = threading.Event()
        self._future: Future[None] | None = None
        self._reason: Exception | None = None

    def cancel(self, reason: Exception | None = None) -> None:
        """Stop the work: at once when it waits, after the running pass when it runs. Any thread may call.

        The consumer then sees the stream end, or `reason` raised.
        """
        self._reason = self._reason or reason
        self._cancelled.set()
        if self._future is not None:
            self._future.cancel()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    async def __anext__(self) -> T:
        item = await self._items.get()
        if isinstance(item, _End):
            self._items.put_nowait(item)  # whoever asks again is told again
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            self._items.put_nowait(_End())
            raise item
        return item

    def attach(self, future: "Future[None]") -> None:
        """Follow the worker's future: its end, failure or cancellation ends the stream."""
        self._future = future
        future.add_done_callback(self._finish)
        if self._cancelled.is_set():
            future.cancel()

    def put(self, item: T) -> None:
        """Hand an item over from a worker thread."""
        self._put(item)

    def _finish(self, future: "Future[None]") -> None:
        failure = None if future.cancelled() else future.exception()
        self._put(failure or self._reason or _End())

    def _put(self, item: T | _End | BaseException) -> None:
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._cancelled.set()  # nobody is left to read


class RequestPool:
    """At most `max_concurrent` requests work at once, at most `max_waiting` more wait their turn."""

    def __init__(self, max_concurrent: int, max_waiting: int) -> None:
        self._max_concurrent = max_concurrent
        self._max_waiting = max_waiting
        self._threads = ThreadPoolExecutor(max_concurrent, thread_name_prefix="understudy-request")
        self._lock = threading.Lock()
        self._open: set[Stream[object]] = set()
        self._running = 0
        self._closed = False

    @property
    def running(self) -> int:
        """Requests that are being worked on."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        with self._lock:
            return len(self._open) - self._running

    def submit(self, produce: Produce[T]) -> Stream[T]:
        """Start or queue a request. Call it in a running event loop: the stream's items go there.

        Raises EngineBusy when `max_waiting` requests wait already, EngineClosed after `close`.
        """
        stream: Stream[T] = Stream(asyncio.get_running_loop())
        with self._lock:
            if self._closed:
                raise EngineClosed("expected an open engine, this one was closed: start it again")
            if len(self._open) >= self._max_concurrent + self._max_waiting:
                raise EngineBusy(
                    f"expected fewer than {self._max_waiting} requests waiting, found "
                    f"{len(self._open) - self._running} behind {self._running} running: try again later"
                )
            self._open.add(stream)  # type: ignore[arg-type]  # a set of streams of anything
            future = self._threads.submit(self._work, stream, produce)
        future.add_done_callback(lambda _: self._forget(stream))
        stream.attach(future)
        return stream

    def close(self) -> None:
        """Cancel everything and wait until no worker runs."""
        with self._lock:
            self._closed = True
            streams = list(self._open)
        for stream in streams:
            stream.cancel(EngineClosed("the engine was closed before the answer was complete: ask again"))
        self._threads.shutdown(wait=True)

    def _work(self, stream: Stream[T], produce: Produce[T]) -> None:
        with self._lock:
            self._running += 1
        try:
            for item in produce(lambda: stream.cancelled):
                stream.put(item)
        finally:
            with self._lock:
                self._running -= 1
                self._open.discard(stream)

    def _forget(self, stream: Stream[T]) -> None:
        with self._lock:
            self._open.discard(stream)
