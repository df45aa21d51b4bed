"""The demo's stage: a fresh workspace, its server as a real process, and a client."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2

from understudy.lessons import ChatMessage
from understudy.workspace import Workspace


class DemoError(RuntimeError):
    """The demo cannot go on; the message says at which point and why."""


EngineName = Literal["embedded", "vllm"]
SERVER = (sys.executable, "-m", "understudy.server")
START_SECONDS = 300.0
WAIT_SECONDS = 120.0
POLL_SECONDS = 0.1
MAX_TOKENS = 40

Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found | None], seconds: float = WAIT_SECONDS) -> Found:
    """Look until there is something; raises DemoError naming `what` when it does not come in time."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise DemoError(f"expected {what} within {seconds:.0f} s, it did not come")
        time.sleep(POLL_SECONDS)
    return found


@contextmanager
def served(
    workspace: Workspace, engine: EngineName = "embedded", flags: Sequence[str] = ()
) -> Iterator["Client"]:
    """Serve the workspace on a free port, as `understudy serve` does, until the block ends."""
    log = workspace.root / ".understudy" / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*SERVER, "--workspace", str(workspace.root), "--port", "0", "--engine", engine, *flags],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:

        def ready() -> Client | None:
            if process.poll() is not None:
                raise DemoError(
                    f"the server ended with status {process.returncode}:\n{log.read_text()[-2000:]}"
                )
            address = workspace.server()
            return None if address is None else Client(workspace, address.url, engine)

        client = wait_for("the server", ready, START_SECONDS)
        wait_for("the trainer", lambda: client.status()["trainer"]["alive"] or None, START_SECONDS)
        yield client
        client.close()
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Client:
    """What the demo asks of the server, over HTTP like anyone else."""

    def __init__(self, workspace: Workspace, url: str, engine: EngineName) -> None:
        from understudy.engine import load_tokenizer

        assert isinstance(workspace.model_path, Path)
        self.workspace = workspace
        self.url = url
        self._engine = engine
        self.tokenizer = load_tokenizer(workspace.model_path)
        self._http = httpx2.Client(
            base_url=url,
            timeout=httpx2.Timeout(None, connect=5.0),
            headers={"Authorization": f"Bearer {workspace.token}"},
        )

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; raises DemoError with the server's words when it refuses."""
        answer = self._http.request(method, path, json=body)
        if answer.is_error:
            raise DemoError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", "/train/status")
        return found

    def answer(
        self, prompts: Sequence[tuple[ChatMessage, ...]], temperature: float = 0.0, seed: int = 0
    ) -> list[str]:
        """The served model's answers, all prompts in one request."""
        from understudy.engine import encode_chat

        body = {
            "model": self.workspace.settings.model.name,
            "prompt": [list(encode_chat(self.tokenizer, prompt)) for prompt in prompts],
            "max_tokens": MAX_TOKENS,
            "temperature": temperature,
            # vLLM gives every prompt of a request the same noise for the same seed.
            "seed": None if self._engine == "vllm" else seed,
        }
        choices = self.call("POST", "/v1/completions", body)["choices"]
        return [choice["text"].strip() for choice in sorted(choices, key=lambda choice: choice["index"])]

    def token_log_probabilities(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural log-probabilities of every token but the first of each sequence."""
        body = {"sequences": [{"token_ids": list(ids), "ranges": [[1, len(ids)]]} for ids in sequences]}
        scored = self.call("POST", "/score", body)["sequences"]
        return [one["ranges"][0]["logprobs"] for one in scored]


@dataclass(slots=True)
class Listener:
    """A client that keeps one stream open, and notes when each piece of it came."""

    client: Client
    arrivals: list[float] = field(default_factory=list)
    streams: int = 0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, and return once the first piece is there."""
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()
        wait_for("the first token of the stream", lambda: True if self.arrivals or self.failures else None)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def gaps(self, since: float, until: float) -> list[float]:
        """Seconds between neighbouring pieces that came in a span of `time.monotonic`."""
        inside = [at for at in self.arrivals if since <= at <= until]
        return [later - earlier for earlier, later in pairwise(inside)]

    def _listen(self) -> None:
        body = {
            "model": self.client.workspace.settings.model.name,
            "messages": [{"role": "user", "content": "Tell me about a time when you felt proud."}],
            "stream": True,
            "max_tokens": 1500,
            "temperature": 1.0,
            "ignore_eos": True,
        }
        with httpx2.Client(base_url=self.client.url, timeout=30.0) as http:
            while not self._stop.is_set():
                try:
                    self._follow(http, body)
                except httpx2.HTTPError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")

    def _follow(self, http: httpx2.Client, body: dict[str, Any]) -> None:
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.is_error:
                self.failures.append(f"status {answer.status_code}")
                return
            self.streams += 1
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    self.arrivals.append(time.monotonic())
                if self._stop.is_set():
                    return
