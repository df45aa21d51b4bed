"""Turns: requests decode token by token, one pass at a time, each in its turn."""

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A fair lock: whoever has waited longest goes next.

    Threads that run small passes at once fight over the interpreter and lose more than they share: four
    streams together were slower than one. Taking turns keeps the throughput of one, split evenly.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()  # opened by whoever hands the turn over

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
