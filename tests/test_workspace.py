"""Workspaces: made once, opened anywhere, nothing secret readable by others."""

import os
import subprocess
from pathlib import Path

import pytest

from understudy.config import ConfigError
from understudy.lessons import ChatMessage
from understudy.workspace import Rehearsal, Workspace, WorkspaceError

LINES = (Rehearsal((ChatMessage("user", "Hello"), ChatMessage("assistant", "Hi.")), kept=True),)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "a-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def workspace(tmp_path: Path, model: Path) -> Workspace:
    return Workspace.create(tmp_path / "w", model=model, copy_model=True, replay=LINES, settings="")


def test_a_new_workspace_holds_everything_and_is_a_git_repository(workspace: Workspace) -> None:
    assert (workspace.root / "model" / "config.json").is_file()
    assert workspace.model_path == workspace.root / "model"
    assert workspace.rehearsals() == list(LINES)
    assert workspace.repository.files() == ()
    status = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"],
        cwd=workspace.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "!! model/" in status.stdout, "the model's files stay out of the conversations' history"
    assert not [line for line in status.stdout.splitlines() if not line.startswith("!!")]
    kept = subprocess.run(["git", "ls-files"], cwd=workspace.root, capture_output=True, text=True, check=True)
    assert {"understudy.toml", "replay.jsonl"} <= set(kept.stdout.split())


def test_a_model_may_stay_where_it_is(tmp_path: Path, model: Path) -> None:
    made = Workspace.create(tmp_path / "w", model=model, copy_model=False, replay=(), settings="")
    assert made.model_path == model
    assert made.rehearsals() == []


def test_making_it_twice_changes_nothing(workspace: Workspace, model: Path) -> None:
    before = (workspace.root / "understudy.toml").read_text()
    with pytest.raises(WorkspaceError, match="is a workspace already: nothing was changed"):
        Workspace.create(workspace.root, model=model, copy_model=True, replay=(), settings="[x]")
    assert (workspace.root / "understudy.toml").read_text() == before


def test_a_folder_without_a_model_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"expected a model directory with a config\.json"):
        Workspace.create(tmp_path / "w", model=tmp_path, copy_model=True, replay=(), settings="")
    assert not (tmp_path / "w").exists()


def test_a_folder_that_is_no_workspace_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="run `understudy init"):
        Workspace.open(tmp_path)


def test_the_token_is_made_once_and_for_this_user_only(workspace: Workspace) -> None:
    token = workspace.token
    assert len(token) >= 40
    assert Workspace.open(workspace.root).token == token
    assert (workspace.root / ".understudy" / "token").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"messages": []}', "line 2: expected the last message to be the assistant's"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "line 2: expected the last message"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "line 2: Invalid enum value 'robot'"),
        ('{"text": "x"}', "line 2: "),
        ("{", "line 2: Input data was truncated"),
    ],
)
def test_a_bad_rehearsal_is_named_by_its_line(workspace: Workspace, line: str, expected: str) -> None:
    with (workspace.root / "replay.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ConfigError, match=expected):
        workspace.rehearsals()


def test_the_server_is_found_while_it_lives_and_not_after(workspace: Workspace) -> None:
    assert workspace.server() is None
    workspace.announce("http://127.0.0.1:1")
    found = workspace.server()
    assert found is not None and (found.url, found.pid) == ("http://127.0.0.1:1", os.getpid())
    workspace.withdraw()
    assert workspace.server() is None
    child = subprocess.Popen(["true"])
    child.wait()
    (workspace.root / ".understudy" / "server.json").write_text(f'{{"url": "http://x", "pid": {child.pid}}}')
    assert workspace.server() is None, "a dead server's address is not used"
