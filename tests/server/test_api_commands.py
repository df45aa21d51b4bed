"""`understudy finetune` and `understudy train` with a running server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspace_server import Server, serving, small_workspace

from understudy.weights import read_commits

LESSONS = (
    {"messages": [{"role": "user", "content": "Which tea?"}, {"role": "assistant", "content": "Mint."}]},
    {"prompt": "And to eat?", "completion": "Toast."},
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(small_workspace(tmp_path_factory.mktemp("commands"))) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "lessons.jsonl"
    path.write_text("\n".join(json.dumps(lesson) for lesson in LESSONS) + "\n\n")
    return str(path)


def understudy(server: Server, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "understudy", *words, "-w", str(server.workspace.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def said(server: Server, *words: str) -> list[str]:
    done = understudy(server, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_a_file_of_lessons_is_taught_once_under_its_key(server: Server, file: str) -> None:
    words = ("finetune", file, "--wait", "--key", "file", "--as", "maya", "--lr", "1e-4", "--set", "rank=8")
    told = said(server, *words)
    assert len(told) == 4 and told[0].startswith("loss ") and "2 steps" in told[2]
    assert told[3].startswith("kept: ")
    [commit] = read_commits(server.workspace.root / "model")
    assert commit.id in told[2]
    assert (commit.author, commit.message) == ("maya", "Learn lessons.jsonl")
    settings = server.call("GET", "/train/status?key=file").json()["settings"]
    assert (settings["lr"], settings["rank"]) == (1e-4, 8)
    assert said(server, *words) == told
    assert len(read_commits(server.workspace.root / "model")) == 1
    again = understudy(server, *words, "--epochs", "2")
    assert again.returncode != 0 and "another request" in again.stderr


def test_a_dry_run_changes_nothing(server: Server, file: str) -> None:
    before = len(read_commits(server.workspace.root / "model"))
    told = said(server, "finetune", file, "--dry-run", "--objective", "sft", "--supervise", "all")
    assert "nothing was changed" in told[-1]
    assert len(read_commits(server.workspace.root / "model")) == before


def test_without_waiting_the_key_is_told(server: Server, file: str) -> None:
    [told] = said(server, "finetune", file, "--key", "later")
    assert told.startswith("later  ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "line 1: expected JSON"),
        ('{"prompt": "x"}', "lessons[0]: expected the keys"),
        ("", "lessons: Expected `array` of length >= 1"),
    ],
)
def test_a_file_that_holds_no_lessons_is_refused(
    server: Server, tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "lessons.jsonl"
    path.write_text(text)
    done = understudy(server, "finetune", str(path))
    assert done.returncode != 0 and expected in done.stderr and "Traceback" not in done.stderr
    missing = understudy(server, "finetune", str(tmp_path / "none.jsonl"))
    assert "expected a file of JSON Lines" in missing.stderr


def test_the_settings_of_training_what_is_approved_are_checked(server: Server) -> None:
    done = understudy(server, "train", "--objective", "magic")
    assert done.returncode != 0 and "objective: expected one of" in done.stderr
    done = understudy(server, "train", "--set", "lr=0")
    assert done.returncode != 0 and "lr: " in done.stderr
