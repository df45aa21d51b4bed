"""How a trainer process comes to life."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol


class TrainerProcess(Protocol):
    """A process that someone started."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Its exit status once it has ended; the negative number of the signal that ended it."""

    def kill(self) -> None:
        """End it at once."""


Launch = Callable[[Sequence[str], int, Path | None], Awaitable[TrainerProcess]]
"""Starts a trainer with its arguments, so many threads, and a file for its output (None: the caller's)."""


async def launch_process(arguments: Sequence[str], threads: int, log_file: Path | None) -> TrainerProcess:
    """A Python process of its own."""
    with nullcontext() if log_file is None else log_file.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "understudy.training.trainer", *arguments,
            stdout=output, stderr=output, stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
