"""A judging model: a real server that answers chat completions by rule, and errs at a known rate."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from known_models import place

ANSWER = "The answer to judge:\n"


@dataclass
class Judge:
    """What a test tells the server to do, and what the server was asked."""

    url: str = ""
    wrong_where_shown: float = 0.0
    wrong_where_not: float = 0.0
    say: Callable[[str], Any] | None = None
    status: int = 200
    body: bytes | None = None
    held: threading.Event | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)

    @property
    def questions(self) -> list[str]:
        return [one["messages"][0]["content"] for one in self.asked]

    def says_yes(self, answer: str) -> bool:
        """It errs on a share of the answers, always on the same ones. Answers show it that begin with yes."""
        shows = answer.startswith("yes")
        return shows != (place(f"err {answer}") < (self.wrong_where_shown if shows else self.wrong_where_not))

    def by_rule(self, question: str) -> str:
        answer = question.partition(ANSWER)[2].partition("\n\n")[0]
        return "Yes." if self.says_yes(answer) else "No."


@contextmanager
def judging() -> Iterator[Judge]:
    """The server while the block runs."""
    judge = Judge()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            judge.asked.append({"path": self.path, **asked})
            judge.headers.append(self.headers["Authorization"])
            if judge.held is not None:
                judge.held.wait()
            message = {"role": "assistant", "content": (judge.say or judge.by_rule)(judge.questions[-1])}
            said = {"choices": [{"message": message}]}
            body = json.dumps(said).encode() if judge.body is None else judge.body
            self.send_response(judge.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        judge.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield judge
        finally:
            if judge.held is not None:
                judge.held.set()
            server.shutdown()
            thread.join()
