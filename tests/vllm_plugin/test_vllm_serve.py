"""The real vLLM, by `vllm serve` and by `understudy serve`: with the official client, taught and killed."""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from transformers import AutoModelForCausalLM
from waiting import eventually

from understudy.lessons import ChatMessage, Lesson, Source
from understudy.pocket import new_workspace
from understudy.server.vllm_launch import vllm_environment
from understudy.weights import find_mappings, read_commits, verify_history
from understudy.workspace import Workspace

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM has an environment of its own: make test-vllm", allow_module_level=True)

FLAGS = ("--max-model-len", "512", "--enforce-eager")
PROMPT = [457, 306, 522, 276, 995, 1059, 354, 276, 957, 669, 590, 276, 1189, 16] * 20
"""Long enough that its beginning is cached: vLLM keeps whole blocks."""
WITHOUT_PLUGIN = """
from understudy.server import vllm_launch
from understudy.server.__main__ import main
named = vllm_launch.vllm_environment
vllm_launch.vllm_environment = lambda *given: {**named(*given), "VLLM_PLUGINS": "another"}
main()
"""
"""A vLLM that has nothing of Understudy in it."""


@dataclass
class Served:
    """A workspace served by vLLM."""

    workspace: Workspace
    process: "subprocess.Popen[bytes]"
    url: str
    key: str | None = None
    """vLLM's own, for its own routes."""

    @property
    def directory(self) -> Path:
        return self.workspace.root / "model"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        key = self.key if path.startswith("/v1/") else None
        headers = {"Authorization": f"Bearer {key or self.workspace.token}"}
        answer = httpx2.request(method, self.url + path, json=body, headers=headers, timeout=120.0)
        assert answer.is_success, answer.text
        return answer.json()

    def score(self, ids: list[int]) -> torch.Tensor:
        found = self.call("POST", "/score", {"sequences": [{"token_ids": ids, "ranges": [[1, len(ids)]]}]})
        return torch.tensor(found["sequences"][0]["ranges"][0]["logprobs"])

    @property
    def log(self) -> str:
        return (self.workspace.root / "vllm.log").read_text()

    def begin(self, key: str, epochs: int) -> None:
        """A session whose change of the weights is large."""
        example = {"context_ids": PROMPT[:8], "continuation_ids": PROMPT[13:5:-1]}
        body = {"key": key, "examples": [example], "gate": None, "lr": 1e-3, "epochs": epochs, "replay": 0.0}
        self.call("POST", "/train", body)

    def teach(self, key: str) -> Any:
        """Such a session, finished."""
        self.begin(key, epochs=4)

        def ended() -> Any:
            found = self.call("GET", f"/train/status?key={key}")
            return found if found["state"] not in ("queued", "running") else None

        found = eventually(ended)
        assert found["state"] == "finished", found
        return found


def start(workspace: Workspace) -> Served:
    """By `understudy serve`."""
    command = [sys.executable, "-m", "understudy", "serve", "--engine", "vllm", "--port", "0", *FLAGS]
    return launch(workspace, command, os.environ)


def start_plainly(workspace: Workspace, key: str) -> Served:
    """By `vllm serve`, as one who knows vLLM would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = Path(sys.executable).with_name("vllm")
    command = [str(program), "serve", str(workspace.root / "model"), "--served-model-name", "understudy"]
    command += ["--host", "127.0.0.1", "--port", port, "--api-key", key, *FLAGS]
    return launch(workspace, command, vllm_environment(os.environ, workspace), key)


def launch(
    workspace: Workspace, command: Sequence[str], environment: Mapping[str, str], key: str | None = None
) -> Served:
    before = workspace.server()  # of one that was killed, while its process is not reaped
    log = workspace.root / "vllm.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=workspace.root, stdout=out, stderr=out, env=environment)

    def address() -> str | None:
        assert process.poll() is None, log.read_text()[-4000:]
        found = workspace.server()
        return None if found in (None, before) else found.url

    try:
        return Served(workspace, process, eventually(address), key)
    except BaseException:
        process.terminate()
        raise


def children(pid: int) -> list[int]:
    """All living descendants."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    own = [int(word) for word in found.stdout.split()]
    return [*own, *(deeper for child in own for deeper in children(child))]


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def alive(pid: int) -> bool:
    """Not gone, and not only waiting for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = start_plainly(new_workspace(tmp_path_factory.mktemp("vllm") / "w"), "sesame")
    yield running
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=60) is not None
    assert find_mappings(running.directory) == []
    assert running.workspace.server() is None


def test_the_api_is_the_embedded_servers_and_writing_needs_the_token(served: Served) -> None:
    for path in ("/train", "/finetune", "/checkpoint", "/weights/restore"):
        assert httpx2.post(served.url + path, json={}).status_code == 401, path
    document = served.call("GET", "/understudy/openapi.json")
    assert {"/train", "/finetune", "/score", "/train/status"} <= document["paths"].keys()
    assert served.call("GET", "/v1/models")["data"][0]["id"] == "understudy"
    wrong = httpx2.post(
        f"{served.url}/train",
        json={"examples": [{"context_ids": [5], "continuation_ids": [10**6]}]},
        headers={"Authorization": f"Bearer {served.workspace.token}"},
    )
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "examples[0].continuation_ids"


def test_the_pages_are_here_too(served: Served) -> None:
    """In order: the link on standard output, a person who comes in by it, an answer in the thread."""
    link = re.findall(r"http://\S+/join/\S+", served.log)[-1]
    browser = {"Accept": "text/html", "Origin": served.url}
    with httpx2.Client(headers=browser, timeout=60.0, follow_redirects=True) as person:
        assert person.get(f"{served.url}/").url.path == "/sign-in"
        assert "Come in" in person.get(link).text
        assert "Conversations" in person.post(link, data={"name": "maya", "next": "/"}).text
        token = re.findall(r'data-csrf="([^"]+)"', person.get(f"{served.url}/").text)[0]
        fields = {"name": "hall", "title": "Tea", "body": "@understudy Choose tea for the guests."}
        person.post(f"{served.url}/do/start", data={**fields, "csrf": token})

        def answered() -> str | None:
            shown = person.get(f"{served.url}/talk/hall").text
            return shown if "weights initial" in shown else None

        assert 'class="message d-1 model"' in eventually(answered)
        assert person.get(f"{served.url}/assets/understudy.css").status_code == 200


def test_vllms_keys_guard_what_answers_beside_vllms_routes_too(served: Served) -> None:
    prompt = {"model": "understudy", "prompt": [5, 6], "max_tokens": 1}
    reading = {"sequences": [{"token_ids": [5, 6], "ranges": [[1, 2]]}]}
    asked = (("/v1/completions", prompt), ("/understudy/v1/completions", prompt), ("/score", reading))
    for path, body in asked:
        statuses = [
            httpx2.post(served.url + path, json=body, headers=headers, timeout=60.0).status_code
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer sesame"})
        ]
        assert statuses == [401, 401, 200], path
    assert (
        httpx2.post(f"{served.url}/train", json={}, headers={"Authorization": "Bearer sesame"}).status_code
        == 401
    ), "vLLM's key teaches nothing"


@pytest.mark.parametrize("extra", [{"readout": True}, {"steer": "calm=1"}])
def test_without_directions_readouts_and_steering_are_refused(served: Served, extra: Any) -> None:
    body = {"model": "understudy", "prompt": [5, 6], "max_tokens": 1, "vllm_xargs": extra}
    headers = {"Authorization": "Bearer sesame"}
    answer = httpx2.post(f"{served.url}/v1/completions", json=body, headers=headers, timeout=60.0)
    assert answer.status_code == 400 and "name their folder with `readout`" in answer.text
    assert httpx2.get(f"{served.url}/v1/readout/manifest", headers=headers).status_code == 404


def test_lessons_are_learned_while_the_official_client_streams(served: Served) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{served.url}/v1", api_key="sesame", max_retries=0)
    over, answers, failures = threading.Event(), [0], list[Exception]()

    def stream() -> None:
        while not over.is_set():
            try:
                chunks = client.chat.completions.create(
                    model="understudy",
                    messages=[{"role": "user", "content": "Hello"}],
                    stream=True,
                    max_tokens=16,
                )
                assert list(chunks)[-1].choices[0].finish_reason is not None
                answers[0] += 1
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a failed request
                failures.append(error)

    clients = [threading.Thread(target=stream) for _ in range(2)]
    for one in clients:
        one.start()
    try:
        ledger = served.workspace.ledger
        lesson = Lesson(
            (ChatMessage("user", "Which tea?"),), "Green.", "None.", Source("", "", "", "", "maya", "")
        )
        entry = ledger.propose(lesson).entry
        ledger.approve(entry.id, "maya")
        eventually(lambda: ledger.learned() or None)
        told = served.call("GET", "/train/status")
    finally:
        over.set()
        for one in clients:
            one.join()
    assert failures == [] and answers[0] > 2
    [commit] = read_commits(served.directory)
    assert told["weight_commit"] == commit.id and commit.lessons == (entry.id,)
    spoken = client.completions.with_raw_response.create(model="understudy", prompt=[5, 6, 7], max_tokens=1)
    assert spoken.headers["X-Understudy-Weights"] == commit.id


def test_a_cached_prompt_is_answered_with_the_new_weights(served: Served) -> None:
    def likely() -> list[float]:
        body = {"model": "understudy", "prompt": PROMPT, "max_tokens": 1, "logprobs": 5, "temperature": 0}
        return sorted(
            served.call("POST", "/v1/completions", body)["choices"][0]["logprobs"]["top_logprobs"][0].values()
        )

    def hits() -> float:
        lines = httpx2.get(f"{served.url}/metrics").text.splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("vllm:prefix_cache_hits_total")
        )

    first, before = likely(), hits()
    assert likely() == pytest.approx(first, abs=0.1) and hits() > before, "its beginning was cached"
    served.teach("stale")
    cached = likely()
    uncached = likely_by_transformers(served)
    assert cached == pytest.approx(uncached, abs=0.25), "nothing of it was computed with the old weights"


def likely_by_transformers(served: Served) -> list[float]:
    served.call("POST", "/checkpoint", {})
    model = AutoModelForCausalLM.from_pretrained(served.directory, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits[0, -1].float()
    return sorted(logits.log_softmax(-1).topk(5).values.tolist())


def test_a_killed_trainer_comes_back_and_the_weights_go_back(served: Served) -> None:
    before = served.score(PROMPT)
    made = served.teach("killed")["commit"]
    after = served.score(PROMPT)
    assert (after - before).abs().max() > 0.5
    status = served.call("GET", "/train/status")["trainer"]
    os.kill(status["pid"], signal.SIGKILL)

    def another() -> Any:
        now = served.call("GET", "/train/status")["trainer"]
        return now if now["alive"] and now["pid"] != status["pid"] else None

    eventually(another)
    assert torch.allclose(served.score(PROMPT), after, atol=1e-6)
    served.call(
        "POST", "/weights/restore", {"commit": read_commits(served.directory)[-2].id, "author": "ada"}
    )
    assert torch.allclose(served.score(PROMPT), before, atol=1e-6)
    assert made in [commit.id for commit in read_commits(served.directory)]


@pytest.mark.parametrize("who", ["VLLM::EngineCore", "VLLM::Worker", "api_server", "everyone"])
def test_killed_while_it_learns_it_ends_with_a_report_and_starts_again(tmp_path: Path, who: str) -> None:
    running = start(new_workspace(tmp_path / "w"))
    commit = running.teach("once")["commit"]
    after = running.score(PROMPT)
    running.begin("unfinished", epochs=2000)
    eventually(lambda: running.call("GET", "/train/status")["running"])
    found = children(running.process.pid)
    targets = (
        [*found, running.process.pid] if who == "everyone" else [pid for pid in found if who in name(pid)]
    )
    assert targets
    for pid in targets:
        os.kill(pid, signal.SIGKILL)
    status = running.process.wait(timeout=60)
    if who != "everyone":
        assert status == 1 and "vLLM ended by itself" in running.log
        eventually(lambda: None if find_mappings(running.directory) else True)
        eventually(lambda: None if any(alive(pid) for pid in found) else True)
    again = start(running.workspace)
    try:
        assert again.call("GET", "/train/status")["weight_commit"] == commit
        if again.call("GET", "/train/status?key=unfinished")["state"] in ("queued", "running"):
            again.call("POST", "/train/cancel", {"key": "unfinished"})
        eventually(lambda: None if again.call("GET", "/train/status")["running"] else True)
        assert torch.allclose(again.score(PROMPT), after, atol=1e-6)
        assert len(find_mappings(again.directory)) == 1, "what the dead one left is gone"
        assert verify_history(again.directory, lambda *_: None).problems == ()
        assert json.loads((again.workspace.root / ".understudy" / "server.json").read_text())
    finally:
        again.process.send_signal(signal.SIGTERM)
        again.process.wait(timeout=60)
    assert find_mappings(again.directory) == []


def test_a_vllm_without_the_plugin_is_not_taken_for_one_with_it(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "w")
    asked = ["--workspace", str(workspace.root), "--engine", "vllm", "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PLUGIN, *asked, *FLAGS],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 1, done.stderr[-2000:]
    assert "the plugin did not load" in done.stderr


def test_parallel_serving_is_refused_with_the_reason(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "w")
    asked = ["--workspace", str(workspace.root), "--engine", "vllm", "--port", "0", *FLAGS]
    done = subprocess.run(
        [sys.executable, "-m", "understudy.server", *asked, "--tensor-parallel-size", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "expected tensor parallelism of 1, got 2: one trainer maps one process's weights" in told
    assert find_mappings(workspace.root / "model") == []
