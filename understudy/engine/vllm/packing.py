"""On processors: matrices repacked for the processor's kernels, as a cache of the weights that are taught.

vLLM multiplies with a packed copy of each matrix; on this path a plain row-major matrix costs up to 2.4 times
as much (docs/LOG.md). The copies are made again from the live weights when those have moved, before the next
pass: a small model's at once, a large one's over several passes, so that none waits long.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

PASS_SECONDS = 0.1
"""How long one pass may be held up."""
TRAINING_SHARE = 0.1
"""How much of the time goes into packing while a session moves the weights at each step."""


class PackedMatrix:
    """oneDNN's packed copy of one layer's weight, [rows, columns]."""

    def __init__(self, weight: torch.nn.Parameter, make: Callable[[torch.Tensor], Any]) -> None:
        """`make` is vLLM's: it packs a [columns, rows] matrix and returns the handler."""
        self._weight, self._make = weight, make
        self.handler = make(weight.t())

    def pack(self) -> None:
        """Pack what the weight is now. The handler stays the same object: compiled graphs hold its tensor."""
        fresh = self._make(self._weight.t())
        held, made = self.handler.handler_tensor, fresh.handler_tensor
        address = held.clone()
        held.copy_(made)
        made.copy_(address)  # so that `fresh` releases the old copy


class PackedMatrices:
    """All packed copies of a model, and which generation of the weights they hold."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._matrices: list[PackedMatrix] = []
        self._left: Iterator[PackedMatrix] | None = None
        self._target = 0
        self._spent = 0.0
        self._rest_until = 0.0
        self.generation = 0
        """That of the weights that every copy is at least as new as."""

    def add(self, matrix: PackedMatrix) -> None:
        self._matrices.append(matrix)

    def follow(self, generation: int, training: bool) -> None:
        """Before a pass: bring the copies up to the weights' generation, as far as one pass may wait."""
        if self._left is None:
            if generation == self.generation or (training and self._clock() < self._rest_until):
                return
            self._left, self._target, self._spent = iter(self._matrices), generation, 0.0
        began = self._clock()
        for matrix in self._left:
            matrix.pack()
            if self._clock() - began >= PASS_SECONDS:
                break
        else:
            self._left, self.generation = None, self._target
        ended = self._clock()
        self._spent += ended - began
        self._rest_until = ended + self._spent * (1 / TRAINING_SHARE - 1)
