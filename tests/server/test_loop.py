"""The whole loop on a real server process: answers, edits, lessons, training, death, and the way back.

The model is a miniature with random weights: what it says is gibberish, what happens to it is not.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pygit2
import pytest
from workspace_server import REPLAY, SETTINGS, Server, eventually, serving, small_workspace

from understudy.conversation import maintenance_due
from understudy.engine import write_miniature
from understudy.weights import read_commits
from understudy.workspace import Workspace

FILE = "conversations/talk.md"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return small_workspace(tmp_path)


def understudy(workspace: Workspace, *words: str) -> str:
    """The command line, as a person uses it."""
    command = [sys.executable, "-m", "understudy", *words, "-w", str(workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def answered(workspace: Workspace, message: str) -> str:
    """The id of the model's reply, once it is there."""

    def look() -> str | None:
        replies = workspace.repository.read(FILE).message(message).replies
        return replies[0].id if replies else None

    return eventually(look)


def digest(workspace: Workspace) -> str:
    return hashlib.sha256((workspace.root / "model" / "model.safetensors").read_bytes()).hexdigest()


def commits(workspace: Workspace) -> list[str | None]:
    return [commit.session for commit in read_commits(workspace.root / "model")]


def propose(workspace: Workspace, text: str = "Go with mint.") -> str:
    """A lesson from a correction made without a server: the model's message is ours here."""
    repository = workspace.repository
    asked = repository.start(FILE, f"About {text}", "maya", "Which tea?").message
    said = repository.reply(FILE, asked, "understudy", "Have you considered coffee?").message
    repository.edit(FILE, said, "maya", text)
    return understudy(workspace, "lessons", "list", "proposed").splitlines()[-1].split()[0]


def trained(workspace: Workspace, count: int) -> list[str | None]:
    entries = eventually(lambda: found if len(found := workspace.ledger.learned()) >= count else None)
    return [entry.weight_commit for entry in entries]


def test_a_correction_becomes_weights_that_the_next_reply_speaks_with(workspace: Workspace) -> None:
    with serving(workspace) as server:
        asked = understudy(workspace, "start", "talk", "Tea", "@understudy Which tea?", "--as", "maya")
        reply = answered(workspace, asked)
        spoke = workspace.repository.read(FILE).message(reply)
        assert spoke.author == "understudy"

        # A person corrects it in an editor and commits by hand.
        file = workspace.root / FILE
        text = file.read_bytes().decode()
        start = text.index("@understudy [")
        line_end = text.find("\n", start)
        head = text[start : text.index("]: ", start) + 3]
        file.write_text(text[:start] + head + "Go with mint." + (text[line_end:] if line_end > 0 else ""))
        git = ["git", "-c", "user.name=maya", "-c", "user.email=maya@example.org"]
        subprocess.run([*git, "commit", "-qam", "No coffee"], cwd=workspace.root, check=True)

        [entry] = eventually(lambda: workspace.ledger.list("proposed") or None)
        assert (entry.lesson.rejected, entry.lesson.chosen) == (spoke.body, "Go with mint.")
        assert entry.lesson.source.author == "maya"
        assert [turn.content for turn in entry.lesson.context] == ["Which tea?"]
        assert not commits(workspace), "nothing is trained that no one approved"

        assert "approved" in understudy(workspace, "lessons", "approve", entry.short, "--as", "maya")
        [commit] = trained(workspace, 1)
        held = workspace.ledger.get(entry.id)
        assert held.result is not None and held.result.loss_after is not None
        assert held.result.loss_before is not None and held.result.loss_after < held.result.loss_before
        assert "Learn 1 lesson" in understudy(workspace, "weights", "log")

        eventually(lambda: server.status()["weight_commit"] == commit or None)
        again = understudy(workspace, "start", "talk", "More tea", "@understudy And now?", "--as", "maya")
        reply = answered(workspace, again)
        posted = workspace.repository.read(FILE).message(reply)
        changes = [
            c for c in workspace.repository.changes() if c.trailers.get("Understudy-Message") == posted.id
        ]
        assert changes[-1].trailers["Understudy-Weights"] == commit

        understudy(workspace, "weights", "restore", "initial")
        assert server.call("POST", "/checkpoint").json()["files"] == []
        assert workspace.ledger.get(entry.id).state == "reverted"
        assert "Restore the model as it came" in understudy(workspace, "lessons", "show", entry.short)
        assert (
            digest(workspace)
            == hashlib.sha256(
                (workspace.root.parent / "miniature" / "model.safetensors").read_bytes()
            ).hexdigest()
        )


def test_the_server_packs_the_conversations_when_that_is_due(workspace: Workspace) -> None:
    repository = workspace.repository
    asked = repository.start(FILE, "Tea", "maya", "Which tea?").message
    git = pygit2.Repository(str(workspace.root))
    tree = git.TreeBuilder(git.head.peel(pygit2.Tree))
    for number in range(4000):  # more loose objects than a repository should have
        tree.insert(f"file-{number}", git.create_blob(f"{number}".encode()), pygit2.enums.FileMode.BLOB)
    someone = pygit2.Signature("maya", "maya@example.org")
    git.create_commit("HEAD", someone, someone, "Many files", tree.write(), [git.head.target])
    assert maintenance_due(repository)
    with serving(workspace):
        eventually(lambda: None if maintenance_due(repository) else True)
    assert repository.read(FILE).message(asked).body == "Which tea?"


def test_say_asks_the_running_server_or_loads_the_model(workspace: Workspace) -> None:
    asked = understudy(workspace, "start", "talk", "Tea", "Which tea?", "--as", "maya")
    alone = understudy(workspace, "say", "talk", "--to", asked)
    with serving(workspace):
        assert understudy(workspace, "say", "talk", "--to", asked) == alone
    bodies = [m.body for m in workspace.repository.read(FILE).message(asked).replies]
    assert bodies == [alone, alone]


def test_training_does_not_stop_a_stream_or_fail_a_request(workspace: Workspace) -> None:
    with serving(workspace) as server:
        body = {
            "model": "understudy",
            "prompt": "Which tea?",
            "max_tokens": 400,
            "stream": True,
            "ignore_eos": True,
        }
        example = {"context_ids": [5, 6, 7], "continuation_ids": [8, 9, 10, 11]}
        with httpx2.stream("POST", f"{server.url}/v1/completions", json=body, timeout=120.0) as stream:
            pieces = (line for line in stream.iter_lines() if line.startswith("data: {"))
            for _ in range(5):
                next(pieces)
            before = server.status()["weight_commit"]
            asked = {"examples": [example], "epochs": 5, "replay": 0.0, "wait": True}
            done = server.call("POST", "/train", asked)
            assert done.status_code == 200, done.text
            short = server.call("POST", "/v1/completions", {**body, "stream": False, "max_tokens": 3})
            assert short.status_code == 200
            assert short.json()["understudy"]["weight_commit"] == done.json()["commit"] != before
            assert sum(1 for _ in pieces) > 0, "the stream that ran before the session goes on after it"
        ids = [*example["context_ids"], *example["continuation_ids"]]
        score = server.call("POST", "/score", {"sequences": [{"token_ids": ids, "ranges": [[3, 7]]}]}).json()
        mean = -score["sequences"][0]["ranges"][0]["sum"] / 4
        assert mean == pytest.approx(done.json()["outcomes"][0]["loss_after"], abs=1e-4)


def test_training_needs_the_token(workspace: Workspace) -> None:
    body = {"examples": [{"context_ids": [5], "continuation_ids": [6]}]}
    with serving(workspace) as server:
        before = digest(workspace)
        for path in ("/train", "/lessons/train", "/weights/restore"):
            bare = httpx2.post(server.url + path, json=body)
            assert bare.status_code == 401, path
            assert server.call("POST", path, body, token="wrong").status_code == 401
        assert digest(workspace) == before
        assert not commits(workspace)


def examples(context: object, continuation: object) -> list[dict[str, object]]:
    return [{"context_ids": context, "continuation_ids": continuation}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"examples": []}, "examples"),
        ({"examples": examples([1], [])}, "examples[0].continuation_ids"),
        ({"examples": examples([1], [10**7])}, "expected token ids from 0 to"),
        ({"examples": examples([1] * 5000, [1])}, "got 5001: shorten"),
        ({"examples": examples(["a"], [1])}, "examples[0].context_ids[0]"),
        ({"examples": examples([1], [1]), "lr": 0}, "lr"),
        ({"examples": examples([1], [1]), "settings": {}}, "settings"),
        ({"exmaples": []}, "examples"),
        ([], "object"),
    ],
)
def test_a_bad_request_is_explained_and_changes_nothing(bad_server: Server, body: Any, expected: str) -> None:
    answer = bad_server.call("POST", "/train", body)
    assert answer.status_code == 400, answer.text
    assert expected in answer.json()["error"]["message"]
    assert not commits(bad_server.workspace)


@pytest.fixture(scope="module")
def bad_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bad")
    model = write_miniature(folder / "miniature", "llama")
    made = Workspace.create(folder / "w", model=model, copy_model=True, replay=REPLAY, settings=SETTINGS)
    with serving(made) as server:
        yield server


def test_a_session_is_cancelled_and_undone_by_request(workspace: Workspace) -> None:
    with serving(workspace) as server:
        before = digest(workspace)
        body = {"examples": examples([5, 6], [7, 8]), "epochs": 5000, "key": "mine"}
        assert server.call("POST", "/train", body).status_code == 202
        eventually(lambda: server.status()["trainer"]["step"] >= 2 or None)
        assert server.call("POST", "/train/cancel", {"key": "another"}).status_code == 404
        assert server.call("POST", "/train/cancel", {"key": "mine"}, token="wrong").status_code == 401
        assert server.call("POST", "/train/cancel", {"key": "mine"}).status_code == 202
        last = eventually(lambda: server.status()["last"])
        assert last["state"] == "cancelled" and "was cancelled" in last["error"]
        again = server.call("POST", "/train", body)
        assert (again.status_code, again.json()["state"]) == (200, "cancelled"), "a key has one answer"
        assert digest(workspace) == before and not commits(workspace)


def test_a_message_for_which_there_is_no_room_now_is_answered_later(workspace: Workspace) -> None:
    toml = workspace.root / "understudy.toml"
    toml.write_text(toml.read_text() + "[server]\nmax_concurrent = 1\nmax_waiting = 0\n")
    log, asked = workspace.root / "server.log", list[str]()
    body = {"model": "understudy", "prompt": "Tea?", "max_tokens": 400, "stream": True, "ignore_eos": True}
    with serving(workspace) as server:

        def refused_once() -> bool | None:
            """Fill the engine's only place, and ask for an answer meanwhile."""
            with httpx2.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60.0) as stream:
                if stream.status_code == 200:
                    title = f"Tea {len(asked)}"
                    posted = workspace.repository.start(FILE, title, "maya", "@understudy Which tea?")
                    asked.append(posted.message)
                stream.read()
            return " waits: expected fewer than 0 requests waiting" in log.read_text() or None

        eventually(refused_once)
        for message in asked:
            answered(workspace, message)


def test_a_killed_trainer_leaves_the_server_answering_and_the_ledger_true(workspace: Workspace) -> None:
    (workspace.root / "understudy.toml").write_text(
        (workspace.root / "understudy.toml").read_text() + "epochs = 300\n"
    )
    lesson = propose(workspace)
    with serving(workspace) as server:
        victim = server.trainer()
        understudy(workspace, "lessons", "approve", lesson)
        eventually(lambda: server.status()["trainer"]["step"] >= 2 or None)
        os.kill(victim, signal.SIGKILL)
        prompt = {"model": "understudy", "prompt": "Tea?", "max_tokens": 4}
        assert server.call("POST", "/v1/completions", prompt).status_code == 200
        assert [e.short for e in workspace.ledger.list("approved")] in ([lesson], [])
        assert not commits(workspace), "a session cut off leaves no commit"
        [commit] = trained(workspace, 1)
        assert server.trainer() != victim
        assert len(commits(workspace)) == 1
        assert server.status()["weight_commit"] == commit
        assert [e.state_to for e in workspace.ledger.history(lesson)].count("trained") == 1


def test_a_killed_server_finishes_the_open_session_when_it_is_back(workspace: Workspace) -> None:
    (workspace.root / "understudy.toml").write_text(
        (workspace.root / "understudy.toml").read_text() + "epochs = 300\n"
    )
    lesson = propose(workspace)
    with serving(workspace) as server:
        understudy(workspace, "lessons", "approve", lesson)
        eventually(lambda: server.status()["trainer"]["step"] >= 2 or None)
        server.process.kill()
        server.process.wait()
    [session] = workspace.ledger.open_sessions()
    with serving(workspace):
        assert len(trained(workspace, 1)) == 1
    assert commits(workspace) == [session.id]
    assert not workspace.ledger.open_sessions()


def test_a_model_without_rehearsals_can_be_taught(tmp_path: Path) -> None:
    model = write_miniature(tmp_path / "miniature", "qwen3")
    made = Workspace.create(tmp_path / "w", model=model, copy_model=False, replay=(), settings=SETTINGS)
    lesson = propose(made)
    with serving(made):
        understudy(made, "lessons", "approve", lesson)
        assert len(trained(made, 1)) == 1
    assert len(read_commits(model)) == 1


def test_a_model_that_can_be_served_but_not_taught_says_so(tmp_path: Path) -> None:
    """Sliding windows: the frozen context does not know their cache."""
    model = write_miniature(tmp_path / "miniature", "llama")
    config = {**json.loads((model / "config.json").read_text()), "architectures": ["MistralForCausalLM"]}
    config.update(model_type="mistral", sliding_window=8)
    (model / "config.json").write_text(json.dumps(config))
    made = Workspace.create(tmp_path / "w", model=model, copy_model=False, replay=(), settings=SETTINGS)
    with serving(made, trained=False) as server:
        stopped = eventually(lambda: server.status()["stopped"])
        assert "FrozenContextUnsupported" in stopped and "SlidingWindow" in stopped
        prompt = {"model": "understudy", "prompt": "Tea?", "max_tokens": 4}
        assert server.call("POST", "/v1/completions", prompt).status_code == 200
        refused = server.call("POST", "/train", {"examples": examples([5], [6])})
        assert refused.status_code == 503
        assert "SlidingWindow" in refused.json()["error"]["message"]


def test_rehearsals_that_cannot_be_used_stop_training_not_serving(workspace: Workspace) -> None:
    with (workspace.root / "replay.jsonl").open("a") as stream:
        stream.write("{}\n")
    with serving(workspace) as server:
        stopped = eventually(lambda: server.status()["stopped"])
        assert "replay.jsonl, line 3" in stopped
        prompt = {"model": "understudy", "prompt": "Tea?", "max_tokens": 4}
        assert server.call("POST", "/v1/completions", prompt).status_code == 200
        refused = server.call("POST", "/train", {"examples": examples([5], [6])})
        assert refused.status_code == 503 and "line 3" in refused.json()["error"]["message"]
        trainer = server.trainer()
    assert not Path(f"/proc/{trainer}").exists(), "the trainer ends with its server"
    assert "Application shutdown complete" in (workspace.root / "server.log").read_text()


def test_a_model_is_served_once_at_a_time(workspace: Workspace) -> None:
    command = [sys.executable, "-m", "understudy", "serve", "-w", str(workspace.root), "--port", "0"]
    with serving(workspace) as server:
        second = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert second.returncode != 0
        assert f"served and taught by process {server.process.pid}" in second.stderr
        assert server.call("GET", "/health").status_code == 200
    with serving(workspace) as server:
        assert server.call("GET", "/health").status_code == 200


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda model: (model / "config.json").unlink(), "config.json"),
        (lambda model: (model / "model.safetensors").unlink(), "safetensors"),
        (lambda model: (model / "config.json").write_text('{"model_type": "abacus"}'), "abacus"),
    ],
)
def test_a_model_that_cannot_be_served_is_explained(
    workspace: Workspace, broken: Callable[[Path], object], expected: str
) -> None:
    broken(workspace.root / "model")
    command = [sys.executable, "-m", "understudy", "serve", "-w", str(workspace.root), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
