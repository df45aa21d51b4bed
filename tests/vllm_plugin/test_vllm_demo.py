"""The main job, whole, by vLLM, with OpenAI's client streaming all the while."""

import importlib.util
import threading
import time
from pathlib import Path

import pytest

from understudy.demo import run_demo
from understudy.workspace import Workspace

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM has an environment of its own: make test-vllm", allow_module_level=True)


class Streamer(threading.Thread):
    """Streams one chat after another from when the server is there until it goes."""

    def __init__(self, root: Path) -> None:
        super().__init__(name="streamer", daemon=True)
        self.root = root
        self.answers = 0
        self.failures: list[Exception] = []
        self.over = threading.Event()

    def run(self) -> None:
        from openai import OpenAI

        while not (found := self._server()):
            if self.over.wait(0.2):
                return
        with OpenAI(base_url=f"{found}/v1", api_key="none", max_retries=0) as client:
            while not self.over.is_set() and self._server():
                try:
                    chunks = client.chat.completions.create(
                        model="understudy",
                        messages=[{"role": "user", "content": "How are you today?"}],
                        stream=True,
                        max_tokens=24,
                    )
                    assert list(chunks)[-1].choices[0].finish_reason is not None
                    self.answers += 1
                except Exception as error:  # noqa: BLE001  # whatever it is, it is a failed request
                    time.sleep(0.5)
                    if self._server():
                        self.failures.append(error)

    def _server(self) -> str | None:
        try:
            found = Workspace.open(self.root).server()
        except ValueError:  # not made yet
            return None
        return None if found is None else found.url


def test_the_demo_meets_its_bars_on_vllm(tmp_path: Path) -> None:
    streamer = Streamer(tmp_path / "workspace")
    streamer.start()
    try:
        findings = run_demo(None, tmp_path / "workspace", 10, engine="vllm")
    finally:
        streamer.over.set()
        streamer.join()
    assert [row.label for row in findings.rows() if not row.met] == []
    assert findings.before.rates["accepts"].value <= 0.05 and findings.before.rates["accepts"].n >= 60
    assert findings.serving.failures == () and findings.serving.tokens_while_training > 0
    assert findings.restored_exactly
    assert streamer.failures == [] and streamer.answers > 10
