"""Notes with a running server: it answers with them, outlives bad ones, and scores what leans on them."""

import json
from pathlib import Path

import pytest
from workspace_server import eventually, serving

from understudy.cli import app
from understudy.pocket import new_workspace
from understudy.workspace import Workspace

FILE = "conversations/talk.md"
QUESTIONS = (
    "@understudy What is my name?",
    "@understudy What is the capital of France?",
    "@understudy Hello.",
)


def ask(workspace: Workspace, title: str, text: str) -> str:
    return workspace.repository.start(FILE, title, "maya", text).message


def answered(workspace: Workspace, message: str) -> tuple[str, str]:
    """What the model said, and with which notes by its commit."""

    def look() -> tuple[str, str] | None:
        replies = workspace.repository.read(FILE).message(message).replies
        return (replies[-1].id, replies[-1].body) if replies else None

    reply, body = eventually(look)
    told = {
        change.trailers.get("Understudy-Message"): change.trailers
        for change in workspace.repository.changes()
    }
    return body, told[reply].get("Understudy-Notes", "")


def test_the_server_speaks_with_notes_and_scores_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = new_workspace(tmp_path / "w")
    root, notes = str(workspace.root), workspace.root / "notes"

    def command(*words: str) -> str:
        capsys.readouterr()  # the server's log
        app([*words, "-w", root], result_action="return_value")
        return capsys.readouterr().out

    with serving(workspace, trained=False):
        assert answered(workspace, ask(workspace, "Without", QUESTIONS[2]))[1] == ""

        notes.mkdir()
        (notes / "bad.md").write_bytes(b"\xff")
        unanswered = ask(workspace, "Bad", QUESTIONS[2])
        log = workspace.root / "server.log"
        eventually(lambda: "was not answered: expected a note in UTF-8" in log.read_text() or None)
        (notes / "bad.md").unlink()
        assert not workspace.repository.read(FILE).message(unanswered).replies

        (notes / "name.md").write_text("My name is Melvor.\n")
        [note] = workspace.notes
        asked = []
        for number, text in enumerate(QUESTIONS):  # one by one: what waits together is answered in any order
            asked.append(ask(workspace, f"With {number}", text))
            assert answered(workspace, asked[-1])[1] == f"name {note.digest}"
        assert answered(workspace, asked[0])[0] == "Your name is Melvor."

        again = ask(workspace, "Said", "What is my name?")
        assert command("say", "talk", "--to", again) == "Your name is Melvor.\n"
        assert answered(workspace, again)[1] == f"name {note.digest}"

        served = json.loads(command("lessons", "lean", "--json", "--alternates"))
    loaded = json.loads(command("lessons", "lean", "--json", "--alternates"))
    assert [one["leans"] for one in served["replies"]] == [True, False, False, True]
    assert served["nulls"]["posted"] == 1
    for mine, other in zip(served["replies"], loaded["replies"], strict=True):
        assert mine["total"] == pytest.approx(other["total"], abs=1e-3)
        assert (mine["leans"], mine["without"]) == (other["leans"], other["without"])
    assert served["threshold"] == pytest.approx(loaded["threshold"], abs=1e-3)
