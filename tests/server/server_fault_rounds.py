"""A program: a workspace's server, killed at random points while people ask it to train.

`python server_fault_rounds.py FOLDER POINTS SEED` asks with keys, over and over until each request is
acknowledged, approves lessons, kills the server, its trainer or both, starts it again, and in the end looks
whether each was trained once. It prints what it did as JSON.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

import httpx2
from process_forks import Nursery
from safetensors.torch import load_file

from understudy.engine import write_miniature
from understudy.lessons import ChatMessage, Lesson, Source
from understudy.server.assembly import serve_workspace
from understudy.training.trainer import main as trainer_main
from understudy.weights import read_commits
from understudy.workspace import Rehearsal, Workspace

Victim = Literal["server", "trainer", "both"]
VICTIMS: tuple[Victim, ...] = ("server", "trainer", "server", "both")
SETTINGS = "[training]\nlr = 1e-3\nprobe_tokens = 8\n[weights]\nsync_seconds = 0.2\n"
REPLAY = tuple(
    Rehearsal((ChatMessage("user", f"Say {word}."), ChatMessage("assistant", word)), kept)
    for word, kept in [("yes", True), ("no", False)]
)
LIFE_SECONDS = 4.0
"""A server is killed at a random moment of its first so many seconds: while it starts, or works."""
PAUSE_SECONDS = 0.3
"""Between requests, so that the queue is sometimes empty and the directory can follow."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None], seconds: float = 120.0) -> Found:
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def serve(arguments: Sequence[str]) -> None:
    """What a forked server does. It forks its trainer in turn, from before it has threads."""
    nursery = Nursery(trainer_main)
    workspace = Workspace.open(Path(arguments[0]), server={"port": 0})
    serve_workspace(workspace, nursery.launch)


@dataclass
class Stage:
    """A workspace, the process that serves it, and what was acknowledged."""

    workspace: Workspace
    nursery: Nursery
    pid: int = 0
    acknowledged: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        log = self.workspace.root / "server.log"
        self.pid = self.nursery.fork([str(self.workspace.root)], log)

    def ask(self, method: str, path: str, body: Any = None) -> httpx2.Response | None:
        """One request; None when there is no server to answer it."""
        address = self.workspace.server()
        if address is None or address.pid != self.pid:
            return None
        headers = {"Authorization": f"Bearer {self.workspace.token}"}
        try:
            return httpx2.request(method, address.url + path, json=body, headers=headers, timeout=60.0)
        except httpx2.HTTPError:
            return None

    def status(self) -> dict[str, Any] | None:
        answer = self.ask("GET", "/train/status")
        return answer.json() if answer is not None and answer.status_code == 200 else None

    def keep_asking(self) -> None:
        """Requests with keys, one after the other, each until it is acknowledged."""
        number = 0
        while not self.over.is_set():
            answer = self.ask("POST", "/train", request(number))
            if answer is None or answer.status_code not in (200, 202):
                time.sleep(0.05)
                continue
            self.acknowledged.append(f"key-{number}")
            number += 1
            time.sleep(PAUSE_SECONDS)

    def kill(self, victim: Victim) -> int:
        """Kill, and say how many processes died of it."""
        status = self.status() if victim != "server" else None
        trainer = status["trainer"]["pid"] if status else None
        killed = 0
        for pid in ([trainer] if victim != "server" and trainer else []) + (
            [self.pid] if victim != "trainer" else []
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        return killed


def request(number: int) -> dict[str, object]:
    start = 5 + number % 200
    example = {"context_ids": [5, 6, 7, start], "continuation_ids": [start + 1, start + 2, start + 3]}
    return {"key": f"key-{number}", "examples": [example], "gate": None, "rank": 8}


def lesson(number: int) -> Lesson:
    text = f"Take {number}."
    return Lesson((ChatMessage("user", "Which tea?"),), text, "None.", Source("", "", "", "", "maya", ""))


def check_directory(workspace: Workspace, base: dict[str, str]) -> None:
    """What any reader finds at this moment is the model of one commit, whole."""
    directory = workspace.root / "model"
    found = hashes(directory)
    assert found in [base, *(dict(commit.tensors) for commit in read_commits(directory))]


def hashes(directory: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in load_file(directory / "model.safetensors").items()
    }


@contextlib.contextmanager
def asking(stage: Stage) -> Iterator[None]:
    thread = threading.Thread(target=stage.keep_asking)
    thread.start()
    try:
        yield
    finally:
        stage.over.set()
        thread.join()


def disturb(stage: Stage, points: int, random: Random, base: dict[str, str]) -> Counter[Victim]:
    """Kill so many times; a server that died is started again at once."""
    killed: Counter[Victim] = Counter()
    lessons = 0
    while killed.total() < points:
        victim = VICTIMS[killed.total() % len(VICTIMS)]
        if victim != "server":
            eventually(lambda: (stage.status() or {"trainer": {"pid": None}})["trainer"]["pid"])
        time.sleep(random.uniform(0.0, LIFE_SECONDS))
        if not stage.kill(victim):
            continue
        check_directory(stage.workspace, base)
        killed[victim] += 1
        if victim != "trainer":
            stage.nursery.reap(stage.pid)
            stage.start()
        ledger = stage.workspace.ledger
        ledger.approve(ledger.propose(lesson(lessons)).entry.id, "maya")
        lessons += 1
    return killed


def check(stage: Stage, killed: Counter[Victim], base: dict[str, str]) -> dict[str, object]:
    """Everything that was acknowledged is there, once; the weights are those of the newest commit."""
    ledger, directory = stage.workspace.ledger, stage.workspace.root / "model"
    lessons = killed.total()
    eventually(lambda: True if len(ledger.learned()) == lessons else None)
    for key in stage.acknowledged:
        ended = eventually(lambda key=key: _ended(stage, key))  # type: ignore[misc]
        assert ended["state"] == "finished", ended
        [commit] = [commit for commit in read_commits(directory) if commit.session == key]
        assert commit.id == ended["commit"]
        number = int(key.removeprefix("key-"))
        again = stage.ask("POST", "/train", request(number))
        assert again is not None and again.json()["commit"] == commit.id
    commits = read_commits(directory)
    assert not ledger.open_sessions()
    taught = Counter(lesson for commit in commits for lesson in commit.lessons)
    assert taught == Counter(entry.id for entry in ledger.learned())
    sessions = Counter(commit.session for commit in commits)
    assert max(sessions.values()) == 1
    assert {s for s in sessions if s and s.startswith("key-")} == set(stage.acknowledged)
    synced = stage.ask("POST", "/checkpoint")
    assert synced is not None and synced.json()["commit"] == commits[-1].id, synced
    assert hashes(directory) == dict(commits[-1].tensors)
    return {
        "killed": killed,
        "requests": len(stage.acknowledged),
        "lessons": lessons,
        "lesson_sessions": sum(bool(commit.lessons) for commit in commits),
        "commits": len(commits),
    }


def _ended(stage: Stage, key: str) -> dict[str, Any] | None:
    answer = stage.ask("GET", f"/train/status?key={key}")
    if answer is None:
        return None
    found: dict[str, Any] = answer.json()
    return found if found["state"] not in ("queued", "running") else None


def play(folder: Path, points: int, seed: int) -> None:
    """The whole program. The nursery comes first: it is forked before there are threads."""
    nursery = Nursery(serve)
    model = write_miniature(folder / "miniature", "qwen3")
    base = hashes(model)
    workspace = Workspace.create(folder / "w", model=model, copy_model=True, replay=REPLAY, settings=SETTINGS)
    stage = Stage(workspace, nursery)
    stage.start()
    try:
        with asking(stage):
            killed = disturb(stage, points, Random(seed), base)
        print(json.dumps(check(stage, killed, base)))
    except BaseException:
        print((workspace.root / "server.log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        os.kill(stage.pid, signal.SIGTERM)
        nursery.reap(stage.pid)
    newest = read_commits(workspace.root / "model")[-1]
    assert hashes(workspace.root / "model") == dict(newest.tensors)


if __name__ == "__main__":
    play(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
