"""The command line as people use it: real processes, plain errors."""

import subprocess
import sys
from pathlib import Path

import pytest

from understudy.engine import write_miniature
from understudy.lessons import ChatMessage
from understudy.workspace import Rehearsal, Workspace

FILE = "conversations/talk.md"
COMMANDS = (
    *("init", "serve", "threads", "start", "reply", "edit", "say", "train", "finetune", "status", "demo"),
    *("study", "report", "pull", "push", "merge-driver"),
    *("show", "post", "move", "split", "delete", "restore", "rename", "merge", "search", "history"),
    *("export", "import"),
    *("lessons list", "lessons show", "lessons approve", "lessons reject", "lessons lean"),
    *("weights log", "weights restore", "dream"),
    *(f"behaviours {verb}" for verb in ("list", "check", "certify", "decisions", "keep", "revert")),
    *(f"people {verb}" for verb in ("list", "invite", "link", "revoke")),
    *(f"concepts {verb}" for verb in ("check", "collect", "train", "report", "read", "steer", "export")),
    *(f"weights {verb}" for verb in ("commit", "show", "diff", "checkout", "revert", "verify", "gc")),
    *(f"weights {verb}" for verb in ("diagnose", "sync", "vector", "apply", "negate", "merge", "conflicts")),
)


def understudy(*words: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "understudy", *words]
    return subprocess.run(command, capture_output=True, text=True, input=given, timeout=120)


def said(*words: str, given: str | None = None) -> str:
    done = understudy(*words, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused(*words: str) -> str:
    """What a refused command says; it never shows a traceback."""
    done = understudy(*words)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr + done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature(tmp_path_factory.mktemp("models") / "miniature", "qwen3")


@pytest.fixture
def root(tmp_path: Path, model: Path) -> str:
    folder = tmp_path / "w"
    line = Rehearsal((ChatMessage("user", "Hello"), ChatMessage("assistant", "Hi.")))
    Workspace.create(folder, model=model, copy_model=False, replay=(line,), settings="")
    return str(folder)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command: str) -> None:
    text = said(*command.split(), "--help")
    assert f"Usage: understudy {command}".strip() in text


def test_a_conversation_from_the_first_message_to_an_approved_lesson(root: str) -> None:
    asked = said("start", "talk", "Tea", "Which tea?", "--as", "maya", "-w", root)
    answer = said(
        "reply", "talk", "--to", asked, "--as", "understudy", "-w", root, given="Coffee,\n\nI think.\n"
    )
    said("edit", "talk", "Mint.", "--message", answer, "--as", "maya", "-w", root)
    shown = said("threads", "talk", "-w", root)
    assert shown.splitlines() == [
        "### Tea",
        f"  {asked}  @maya: Which tea?",
        f"    {answer}  @understudy: Mint.",
    ]
    assert said("threads", "-w", root) == f"{FILE}\t1 threads\t2 messages"

    lesson, state = said("lessons", "list", "-w", root).split()[:2]
    assert state == "proposed"
    details = said("lessons", "show", lesson, "-w", root)
    assert "rejected Coffee,\n\nI think." in details and "chosen   Mint." in details
    assert said("lessons", "approve", "--all", "--as", "maya", "-w", root) == f"{lesson}  approved"
    assert "approved  by maya" in said("lessons", "show", lesson[:5], "-w", root)
    assert said("lessons", "list", "proposed", "-w", root) == ""
    assert "approved" in refused("lessons", "approve", lesson, "-w", root)
    assert said("weights", "log", "-w", root) == ""


def test_a_refused_lesson_stays_refused(root: str) -> None:
    asked = said("start", "talk", "Tea", "Which tea?", "--as", "maya", "-w", root)
    answer = said("reply", "talk", "Coffee.", "--to", asked, "--as", "understudy", "-w", root)
    said("edit", "talk", "Gin.", "--message", answer, "--as", "tom", "-w", root)
    lesson = said("lessons", "list", "-w", root).split()[0]
    assert said("lessons", "reject", lesson, "--reason", "not at work", "-w", root) == f"{lesson}  refused"
    assert said("lessons", "list", "-w", root).split()[1] == "refused"
    assert "not at work" in said("lessons", "show", lesson, "-w", root)


def test_making_a_workspace_with_a_model_of_ones_own(tmp_path: Path, model: Path) -> None:
    out = said("init", str(tmp_path / "mine"), "--model", str(model))
    assert f"model: {model}" in out
    copied = said("init", str(tmp_path / "copied"), "--model", str(model), "--copy")
    assert f"model: {tmp_path / 'copied' / 'model'}" in copied
    assert (tmp_path / "copied" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("threads",), "expected understudy.toml in the workspace"),
        (("init", "{root}"), "is a workspace already"),
        (("init", "{root}/new", "--model", "{root}/nowhere"), "nowhere"),
        (("threads", "other", "-w", "{root}"), "conversations/other.md"),
        (("threads", "../../etc/passwd", "-w", "{root}"), "conversations/"),
        (("reply", "talk", "hello", "--to", "abc", "-w", "{root}"), "conversations/talk.md"),
        (("start", "talk", "two\nlines", "hello", "-w", "{root}"), "title"),
        (("start", "talk", "Tea", "hello", "--as", "no one", "-w", "{root}"), "'no one'"),
        (("lessons", "show", "abc", "-w", "{root}"), "abc"),
        (("lessons", "approve", "-w", "{root}"), "expected lesson ids or --all"),
        (("lessons", "list", "unheard", "-w", "{root}"), "unheard"),
        (("train", "-w", "{root}"), "expected a running server"),
        (("status", "-w", "{root}"), "expected a running server"),
        (("finetune", "{root}/replay.jsonl", "-w", "{root}"), "expected a running server"),
        (("finetune", "{root}/understudy.toml", "-w", "{root}"), "line 1: expected JSON"),
        (("weights", "restore", "initial", "-w", "{root}"), "nothing to restore"),
        (("demo", "--conversation", "{root}/nothing.md"), "expected a conversation file at"),
        (("demo", "--lessons", "0"), "expected 1 to 100 lessons, got 0"),
        (("dance",), "dance"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(root: str, words: tuple[str, ...], expected: str) -> None:
    given = [word.replace("{root}", root) for word in words]
    if "-w" not in given and given[0] == "threads":
        given += ["-w", str(Path(root).parent)]
    assert expected in " ".join(refused(*given).split())
