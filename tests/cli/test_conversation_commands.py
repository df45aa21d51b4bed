"""The conversation on the command line: every verb, for people and (`--json`) for programs."""

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from understudy.cli import main
from understudy.conversation import ConversationRepository
from understudy.lessons import read_lessons
from understudy.workspace import Workspace

FILE = "conversations/talk.md"


@dataclass(frozen=True)
class Shell:
    """The command line in this process: the same entry point, without the wait for a new interpreter."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def status(self, *words: str, given: str = "") -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["understudy", *words, "--workspace", str(self.root)])
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        with pytest.raises(SystemExit) as left:
            main()
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err

    def __call__(self, *words: str, given: str = "") -> str:
        status, out, err = self.status(*words, given=given)
        assert status == 0, err
        return out.strip()

    def json(self, *words: str, given: str = "") -> Any:
        return json.loads(self(*words, "--json", given=given))

    def refused(self, *words: str, given: str = "") -> str:
        status, out, err = self.status(*words, given=given)
        assert status != 0 and "Traceback" not in err + out, out
        return " ".join((err + out).split())


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    root = tmp_path / "w"
    Workspace.create(root, model=tmp_path / "model", copy_model=False, replay=(), settings="")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    return Shell(root, monkeypatch, capsys)


@pytest.fixture
def repo(shell: Shell) -> ConversationRepository:
    return ConversationRepository.open(shell.root)


@pytest.fixture
def asked(shell: Shell) -> str:
    return shell("start", "talk", "Tea", "Which tea?\n\nFor all of us.", "--as", "maya")


@pytest.fixture
def answer(shell: Shell, asked: str) -> str:
    return shell("reply", "talk", "Coffee.", "--to", asked, "--as", "understudy")


def test_a_text_comes_as_argument_body_or_standard_input(shell: Shell, repo: ConversationRepository) -> None:
    one = shell("start", "talk", "Tea", "Argument", "--as", "maya")
    two = shell("reply", "talk", "--to", one, "--body", "Body", "--as", "tom")
    three = shell("post", "talk", "Tea", "--as", "tom", given="Standard\n\ninput\n")
    shell("edit", "talk", "--message", two, "--body", "Edited", "--as", "tom")
    doc = repo.read(FILE)
    assert [(m.id, m.body) for m in doc.messages] == [
        (one, "Argument"),
        (two, "Edited"),
        (three, "Standard\n\ninput"),
    ]
    assert "got both" in shell.refused("post", "talk", "Tea", "x", "--body", "y")
    assert "blanks" in shell.refused("post", "talk", "Tea", given="  \n")


def test_bytes_that_are_no_text_are_refused(shell: Shell, asked: str) -> None:
    command = [sys.executable, "-m", "understudy", "post", "talk", "Tea", "--workspace", str(shell.root)]
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=b"caf\xe9", capture_output=True, env=environment, timeout=120)
    assert done.returncode == 2 and b"expected text in UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("words", "operation"),
    [
        (("start", "talk", "More", "Hello"), "start"),
        (("post", "talk", "Tea", "Hello"), "post"),
        (("reply", "talk", "Hello", "--to", "{answer}"), "reply"),
        (("edit", "talk", "Mint.", "--message", "{answer}"), "edit"),
        (("move", "talk", "--message", "{answer}", "--title", "Cups"), "move"),
        (("split", "talk", "Aside", "--message", "{asked}", "--paragraph", "2"), "split"),
        (("delete", "talk", "--message", "{answer}"), "delete"),
        (("rename", "talk", "Tea", "Coffee"), "rename"),
    ],
)
def test_what_writes_is_one_commit_and_says_so_as_json(
    shell: Shell,
    repo: ConversationRepository,
    asked: str,
    answer: str,
    words: tuple[str, ...],
    operation: str,
) -> None:
    before = repo.head()
    given = [word.format(asked=asked, answer=answer) for word in words]
    done = shell.json(*given, "--as", "maya")
    assert set(done) == {"file", "message", "commit", "moved"} and done["file"] == FILE
    [change] = repo.changes(before)
    assert done["commit"] == repo.head() == change.commit and change.author == "maya"
    assert change.trailers["Understudy-Operation"] == operation
    assert done["moved"] == dict(change.moved)
    if operation != "delete":
        assert repo.read(FILE).message(done["message"])


def test_moving_renaming_merging_and_old_ids(
    shell: Shell, repo: ConversationRepository, asked: str, answer: str
) -> None:
    moved = shell("move", "talk", "--message", answer, "--title", "Cups", "--as", "maya")
    assert moved != answer and repo.read(FILE).message(moved).thread.title == "Cups"
    shell("reply", "talk", "Really?", "--to", answer, "--as", "tom")  # the id from before still does
    assert [m.body for m in repo.read(FILE).message(moved).replies] == ["Really?"]
    shell("rename", "talk", "Cups", "Cups and mugs", "--as", "maya")
    shell("merge", "talk", "Cups and mugs", "Tea", "--as", "maya")
    assert [thread.title for thread in repo.read(FILE).threads] == ["Tea"]
    shown = shell("show", f"{FILE}#{answer}")
    assert f"link: {FILE}#{answer}" in shown and "Coffee." in shown and "Really?" in shown
    shell("move", "talk", "--message", f"{FILE}#{answer}", "--title", "Again", "--as", "maya")
    assert "one of the two" in shell.refused("move", "talk", "--message", answer)
    assert "one of the two" in shell.refused(
        "move", "talk", "--message", answer, "--thread", "a", "--title", "b"
    )


def test_splitting_quotes_and_links(shell: Shell, repo: ConversationRepository, asked: str) -> None:
    made = shell("split", "talk", "Who", "--message", asked, "--paragraph", "2", "--as", "tom")
    body = repo.read(FILE).message(made).body
    assert body.startswith("> For all of us.") and f"(#{asked})" in body
    assert "counted from 1" in shell.refused("split", "talk", "T", "--message", asked, "--paragraph", "0")
    assert "paragraph" in shell.refused("split", "talk", "T", "--message", asked, "--paragraph", "3")


def test_deleting_keeps_the_place_of_what_was_answered(
    shell: Shell, repo: ConversationRepository, asked: str, answer: str
) -> None:
    shell("delete", "talk", "--message", asked, "--as", "maya")
    assert f"{asked}  @maya: (deleted)" in shell("threads", "talk")
    shell("delete", "talk", "--message", answer, "--as", "understudy")
    assert answer not in shell("threads", "talk")
    revisions = shell.json("history", "talk", "--message", asked)
    assert revisions[0]["body"] == "Which tea?\n\nFor all of us."


def test_a_deleted_message_comes_back(
    shell: Shell, repo: ConversationRepository, asked: str, answer: str
) -> None:
    text = repo.read(FILE).text
    shell("delete", "talk", "--message", answer, "--as", "understudy")
    commit = repo.head()
    assert shell("restore", "talk", "--message", answer, "--as", "maya") == answer
    assert repo.read(FILE).text == text
    assert [one["body"] for one in shell.json("history", "talk", "--message", answer)] == [
        *("Coffee.", "", "Coffee."),
    ]
    assert "nothing to bring back" in shell.refused(
        "restore", "talk", "--message", answer, "--commit", commit
    )
    shell("delete", "talk", "--message", asked, "--as", "maya")
    link = f"{FILE}#{asked}"
    done = shell.json("restore", "talk", "--message", link, "--commit", repo.head(), "--as", "maya")
    assert done["message"] == asked and repo.read(FILE).text == text
    assert "did not delete" in shell.refused("restore", "talk", "--message", asked, "--commit", commit)
    assert "no commit deleted" in shell.refused("restore", "talk", "--message", "0" * 12)


def test_show(shell: Shell, asked: str, answer: str) -> None:
    lines = shell("show", "talk").splitlines()
    assert lines[:5] == ["### Tea", "", lines[2], "  Which tea?", ""] and asked in lines[2]
    assert any(line.startswith("  @understudy  ") and line.endswith(answer) for line in lines)
    data = shell.json("show", "talk")
    assert [message["id"] for message in data["threads"][0]["messages"]] == [asked, answer]
    one = shell.json("show", answer)
    assert one["link"] == f"{FILE}#{answer}" and [m["body"] for m in one["messages"]] == ["Coffee."]
    assert f"there are: {FILE}" in shell.refused("show", "nothing")
    assert "never was" in shell.refused("show", "0123456789ab")


def test_history(shell: Shell, answer: str) -> None:
    shell("edit", "talk", "Mint.\n\nFresh.", "--message", answer, "--as", "maya")
    rows = shell.json("history", "talk", "--message", answer)
    assert [(row["author"], row["body"]) for row in rows] == [
        ("understudy", "Coffee."),
        ("maya", "Mint.\n\nFresh."),
    ]
    text = shell("history", "talk", "--message", answer)
    assert text.index("@understudy") < text.index("  Coffee.") < text.index("@maya") < text.index("  Fresh.")
    assert "no message" in shell.refused("history", "talk", "--message", "0123456789ab")


def test_search_unread_mentions_and_newest(shell: Shell, asked: str, answer: str) -> None:
    shell("post", "talk", "Tea", "A kettle for @maya", "--as", "tom")
    found = shell.json("search", "kettle")
    assert [(row["author"], row["link"]) for row in found] == [("tom", f"{FILE}#{found[0]['id']}")]
    assert found[0]["snippet"] == "A kettle for @maya"
    assert "@tom" in shell("search", "kettle") and shell("search", "kettle", "--by", "maya") == ""
    assert [row["author"] for row in shell.json("search", "--mentions", "--as", "maya")] == ["tom"]
    unread = shell.json("search", "--unread", "--as", "maya", "--mark-read")
    assert [row["author"] for row in unread] == ["understudy", "tom"]
    assert shell.json("search", "--unread", "--as", "maya") == []
    assert len(shell.json("search", "--newest", "--limit", "2")) == 2
    assert shell.json("search", "tea", "--since", "2200-01-01T00:00:00") == []
    assert shell.json("search", "coffee", "--until", "2200-01-01", "--file", "talk")[0]["id"] == answer
    for wrong in ((), ("x", "--unread"), ("--unread", "--mentions")):
        assert "expected a query" in shell.refused("search", *wrong)
    assert "word to look for" in shell.refused("search", "!")
    assert "there are" in shell.refused("search", "x", "--file", "nothing")


def test_threads_as_json_and_checked(shell: Shell, asked: str, answer: str) -> None:
    assert shell.json("threads") == [{"file": FILE, "threads": 1, "messages": 2}]
    assert [thread["title"] for thread in shell.json("threads", "talk")["threads"]] == ["Tea"]
    assert shell("threads", "--check") == ""
    path = shell.root / FILE
    path.write_text(path.read_text().replace("- @understudy [", "* @understudy ["))
    status, out, _ = shell.status("threads", "--check")
    assert status == 1 and f"{FILE}:7: message: this looks like a message" in out and f"{answer}" in out
    status, out, _ = shell.status("threads", "talk", "--check", "--json")
    assert status == 1 and {row["kind"] for row in json.loads(out)} == {"message", "lost"}
    assert shell.status("threads", "other", "--check")[0] == 0


def test_exports(shell: Shell, repo: ConversationRepository, asked: str, answer: str, tmp_path: Path) -> None:
    shell("edit", "talk", "Mint.", "--message", answer, "--as", "maya")
    page = shell("export", "talk")
    assert page.startswith("<!doctype html>") and asked in page and "Mint." in page
    shell("export", "--output", str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    data = shell.json("export")
    assert data["conversations"][0]["threads"][0]["messages"][1]["body"] == "Mint."
    assert data == json.loads(shell("export", "--format", "json"))
    line = json.loads(shell("export", "--format", "lessons"))
    assert line["rejected"][0]["content"] == "Coffee." and line["chosen"][0]["content"] == "Mint."
    output = tmp_path / "lessons.jsonl"
    shell("export", "talk", "--format", "lessons", "--shape", "messages", "-o", str(output))
    [lesson] = read_lessons(output)
    assert lesson.chosen == "Mint." and lesson.rejected is None and lesson.source.message == answer
    assert "there are" in shell.refused("export", "nothing")
    assert "there are" in shell.refused("export", "nothing", "--format", "lessons")


def test_imports(shell: Shell, repo: ConversationRepository, tmp_path: Path) -> None:
    chat = tmp_path / "chat.json"
    turns = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes."}, {"role": "user"}]
    chat.write_text(json.dumps({"messages": turns}))
    out = shell("import", str(chat), "old", "--as", "maya")
    assert out.splitlines() == [
        "conversations/old.md: 2 messages, 1 commits",
        "left out: 1 messages without any text",
    ]
    assert [m.author for m in repo.read("conversations/old.md").messages] == ["maya", "understudy"]
    older = tmp_path / "older"
    (older / "public/data").mkdir(parents=True)
    (older / "public/data/conversation.md").write_text("### T\n\n- @jo [2025-02-12T01:14:44Z]: Hello\n")
    (older / "participants.json").write_text('{"participants": [{"username": "jo"}]}')
    made = shell.json("import", str(older), "older", "--as", "maya")
    assert made["file"] == "conversations/older.md" and made["messages"] == 1 and made["participants"]
    assert {"jo", "maya", "understudy"} == set(repo.participants().people)
    assert "neither" in shell.refused("import", str(tmp_path / "nothing"), "x")
    assert "there already" in shell.refused("import", str(chat), "old", "--as", "maya")


def test_rights_hold_on_the_command_line(shell: Shell, repo: ConversationRepository, asked: str) -> None:
    repo.set_participants(
        '[participants.maya]\nrights = ["admin"]\n[participants.tom]\nrights = ["post"]\n'
        '[conversations."conversations/secret.md"]\naccess = "private"\nmembers = ["maya"]\n',
        "maya",
    )
    shell("start", "secret", "Plans", "A secret kettle", "--as", "maya")
    assert "tom may not" in shell.refused("delete", "talk", "--message", asked, "--as", "tom")
    assert "eve" in shell.refused("post", "talk", "Tea", "x", "--as", "eve")
    assert (
        shell.json("search", "kettle", "--as", "tom") == [] != shell.json("search", "kettle", "--as", "maya")
    )
    assert shell.json("search", "--unread", "--as", "tom")[0]["file"] == FILE
    assert len(shell.json("search", "--unread", "--as", "tom")) == 1


def in_terminal(shell: Shell, editor: Path | None, *words: str) -> "subprocess.CompletedProcess[str]":
    """A real process whose standard input is a terminal."""
    controller, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("EDITOR", "VISUAL")}
    if editor is not None:
        environment["EDITOR"] = f"{sys.executable} {editor}"
    try:
        command = [sys.executable, "-m", "understudy", *words, "--workspace", str(shell.root)]
        return subprocess.run(
            command, stdin=terminal, capture_output=True, text=True, env=environment, timeout=120
        )
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.fixture
def editor(tmp_path: Path) -> Callable[[str], Path]:
    """An editor that runs these lines of Python on the text it is given."""

    def made(lines: str) -> Path:
        path = tmp_path / "editor.py"
        opened = "import sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\ntext = path.read_text()\n"
        path.write_text(opened + lines)
        return path

    return made


def test_a_text_is_written_in_the_editor(
    shell: Shell, repo: ConversationRepository, asked: str, editor: Callable[[str], Path]
) -> None:
    write = editor("assert text == ''; path.write_text('Written.\\n\\nAt length.\\n')")
    done = in_terminal(shell, write, "reply", "talk", "--to", asked, "--as", "tom")
    assert done.returncode == 0, done.stderr
    assert repo.read(FILE).message(done.stdout.strip()).body == "Written.\n\nAt length."
    change = editor("path.write_text(text.replace('Which', 'What'))")
    done = in_terminal(shell, change, "edit", "talk", "--message", asked, "--as", "maya")
    assert done.returncode == 0 and repo.read(FILE).message(asked).body == "What tea?\n\nFor all of us."


def test_an_editor_that_writes_nothing_does_nothing(
    shell: Shell, repo: ConversationRepository, asked: str, editor: Callable[[str], Path]
) -> None:
    head = repo.head()
    words = ("reply", "talk", "--to", asked, "--as", "tom")
    assert "left empty" in in_terminal(shell, editor(""), *words).stderr
    assert "status 3" in in_terminal(shell, editor("path.write_text('x'); sys.exit(3)"), *words).stderr
    assert "set EDITOR" in in_terminal(shell, None, *words).stderr
    missing = editor("").with_name("nothing.py")
    assert in_terminal(shell, missing, *words).returncode != 0
    assert repo.head() == head


def test_what_was_written_is_kept_when_someone_was_faster(
    shell: Shell, repo: ConversationRepository, asked: str, editor: Callable[[str], Path]
) -> None:
    program = (
        "from understudy.conversation import ConversationRepository\n"
        f"ConversationRepository.open({str(shell.root)!r}).edit({FILE!r}, {asked!r}, 'maya', 'Theirs')\n"
        "path.write_text('Mine, at length')"
    )
    done = in_terminal(shell, editor(program), "edit", "talk", "--message", asked, "--as", "maya")
    assert done.returncode != 0 and "changed since" in done.stderr
    assert repo.read(FILE).message(asked).body == "Theirs"
    kept = Path(done.stderr.strip().rpartition(" ")[2])
    assert kept.read_text() == "Mine, at length"
    kept.unlink()
