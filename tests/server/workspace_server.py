"""A running `understudy serve` of a workspace with a miniature, for tests over HTTP."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from understudy.engine import Architecture, write_miniature
from understudy.lessons import ChatMessage
from understudy.server import open_engine
from understudy.server.training import TrainingService
from understudy.training import TrainerHandle
from understudy.workspace import Rehearsal, Workspace

Found = TypeVar("Found")
SETTINGS = "[participant]\nmax_tokens = 8\n[gate]\nmax_kl = 1000\n[training]\nlr = 1e-3\ngate = 0.0\n"
REPLAY = tuple(
    Rehearsal((ChatMessage("user", f"Say {word}."), ChatMessage("assistant", word)), kept)
    for word, kept in [("yes", True), ("no", False)]
)


def eventually(look: Callable[[], Found | None], seconds: float = 90.0) -> Found:
    """What `look` finds, as soon as it finds something; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


@dataclass
class Server:
    """A running `understudy serve`."""

    workspace: Workspace
    process: "subprocess.Popen[bytes]"
    url: str

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """One request, with the workspace's token unless another is given."""
        given = {"Authorization": f"Bearer {self.workspace.token if token is None else token}"}
        return httpx2.request(
            method, self.url + path, json=body, headers={**given, **(headers or {})}, timeout=120.0
        )

    def status(self) -> dict[str, Any]:
        """`GET /train/status`"""
        found: dict[str, Any] = self.call("GET", "/train/status").json()
        return found

    def trainer(self) -> int:
        """The trainer's process id, once it is there."""
        return int(eventually(lambda: self.status()["trainer"]["pid"]))


@contextlib.contextmanager
def serving(workspace: Workspace, *, trained: bool = True, port: int = 0) -> Iterator[Server]:
    """The server while the block runs, on a free port unless one is named; with `trained` it has its trainer
    when the block begins.
    """
    log = workspace.root / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "understudy", "serve", "-w", str(workspace.root), "--port", str(port)],
            stdout=output,
            stderr=output,
        )

    def announced() -> str | None:
        assert process.poll() is None, log.read_text()
        address = workspace.server()
        return address.url if address is not None and address.pid == process.pid else None

    try:
        server = Server(workspace, process, eventually(announced))
        if trained:
            server.trainer()
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
        print(log.read_text(), workspace.trainer_log.read_text())


def small_workspace(
    folder: Path, architecture: Architecture = "qwen3_5", *, context_length: int = 2048
) -> Workspace:
    """A workspace with a miniature of its own and two rehearsals."""
    model = write_miniature(folder / "miniature", architecture, context_length=context_length)
    return Workspace.create(
        folder / "workspace", model=model, copy_model=True, replay=REPLAY, settings=SETTINGS
    )


@contextlib.contextmanager
def idle_service(workspace: Workspace) -> Iterator[TrainingService]:
    """The training service of a workspace in this process, its trainer never started."""
    with open_engine(workspace) as engine:
        trainer = TrainerHandle(engine.shared.manifest, engine.directory)
        yield TrainingService(workspace, engine, trainer)
        asyncio.run(trainer.close())
