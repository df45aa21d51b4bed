"""Real processes without the seconds it takes to load torch: forks of a process that has loaded it.

A program that kills hundreds of them cannot start each from nothing. What is forked is as real as any: it has
a process id of its own, and dies of `kill -9`.
"""

import asyncio
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

Main = Callable[[Sequence[str]], None]


class Nursery:
    """A process that forks others. Make it before there are threads; it ends with whoever made it.

    The processes it forked then have another parent, as if their own had been killed.
    """

    def __init__(self, main: Main) -> None:
        """`main` is what each of them does with its arguments."""
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _nurse(theirs, main)
            os._exit(0)
        theirs.close()
        self._talk = ours.makefile("rw")

    def fork(self, arguments: Sequence[str], log: Path | None) -> int:
        """The process id of a new process."""
        return self._ask({"arguments": list(arguments), "log": None if log is None else str(log)})

    def reap(self, pid: int) -> int:
        """The exit status of one that has ended, the negative signal if it was killed."""
        return os.waitstatus_to_exitcode(self._ask({"reap": pid}))

    async def launch(self, arguments: Sequence[str], threads: int, log_file: Path | None) -> "Forked":
        """As `understudy.training.Launch`."""
        return Forked(self, self.fork(arguments, log_file))

    def _ask(self, request: dict[str, object]) -> int:
        self._talk.write(json.dumps(request) + "\n")
        self._talk.flush()
        return int(self._talk.readline())


class Forked:
    """A process that a nursery forked, as `understudy.training.TrainerProcess`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._descriptor = os.pidfd_open(pid)

    async def wait(self) -> int:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        return self._nursery.reap(self.pid)

    def kill(self) -> None:
        os.kill(self.pid, 9)


def _nurse(socket: socket.socket, main: Main) -> None:
    talk = socket.makefile("rw")
    while line := talk.readline():
        request = json.loads(line)
        if "reap" in request:
            answer = os.waitpid(request["reap"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                talk.close()
                socket.close()
                _live(request["arguments"], request["log"], main)
        talk.write(f"{answer}\n")
        talk.flush()


def _live(arguments: Sequence[str], log: str | None, main: Main) -> None:
    if log is not None:
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
    status = 1
    try:
        main(arguments)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  (a process ends here: its log gets what it died of)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
