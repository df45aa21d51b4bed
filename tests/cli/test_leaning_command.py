"""`understudy lessons lean` on a workspace whose pocket model speaks with notes."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from understudy.cli import app
from understudy.cli.failures import explained
from understudy.engine import EmbeddedEngine
from understudy.lessons import ChatMessage, replies
from understudy.participant import answer, speak
from understudy.pocket import new_workspace
from understudy.workspace import Workspace

Lean = Callable[..., str]
FILE = "conversations/talk.md"
NOTES = {"name": "My name is Melvor.\n", "a-sea": "The weather is fine and the sea is calm.\n"}
QUESTIONS = ("What is my name?", "What is the capital of France?", "Hello.", "What is 3 plus 4?")


def write_notes(workspace: Workspace) -> None:
    (workspace.root / "notes").mkdir()
    for name, text in NOTES.items():
        (workspace.root / "notes" / f"{name}.md").write_text(text)


def converse(workspace: Workspace, engine: EmbeddedEngine, *questions: str) -> list[str]:
    """Ask each in a thread of its own, and let the model answer as it does; the ids of its replies."""
    repository, settings = workspace.repository, workspace.settings
    said = []
    for text in questions:
        title = f"Thread {len(repository.read(FILE).threads) if repository.files() else 0}"
        asked = repository.start(FILE, title, "maya", text).message
        voice = partial(speak, engine, settings.participant)
        posted = answer(repository, FILE, asked, settings.model.name, voice, workspace.notes)
        said.append(posted.message)
    return said


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = new_workspace(tmp_path_factory.mktemp("pocket") / "w")
    write_notes(made)
    with EmbeddedEngine(made.settings.model, made.root / "model") as engine:
        converse(made, engine, *QUESTIONS)
    return made


@pytest.fixture(scope="module")
def without(spoken: Workspace) -> str:
    """The pocket model's answer to the first question without notes: gibberish, for it was told no name."""
    with EmbeddedEngine(spoken.settings.model, spoken.root / "model") as engine:
        said = speak(engine, spoken.settings.participant, (ChatMessage("user", QUESTIONS[0]),)).text
    assert "Melvor" not in said
    return said


@pytest.fixture
def workspace(spoken: Workspace, tmp_path: Path) -> Workspace:
    """A copy, so that what a test proposes is its own."""
    shutil.copytree(spoken.root, tmp_path / "w")
    return Workspace.open(tmp_path / "w")


@pytest.fixture
def lean(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Lean:
    """What the command prints, in this process."""

    def run(*words: str) -> str:
        app(["lessons", "lean", *words, "-w", str(workspace.root)], result_action="return_value")
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Lean:
    """What a refused command says, as it ends."""

    def run(root: Path, *words: str) -> str:
        with pytest.raises(SystemExit, match="2"), explained():
            app(["lessons", "lean", *words, "-w", str(root)], result_action="return_value")
        return capsys.readouterr().err

    return run


def test_the_matrix_the_leaning_reply_and_its_lesson(workspace: Workspace, lean: Lean, without: str) -> None:
    said = replies(workspace.repository, "understudy")
    out = lean("--alternates", "--propose")
    lines = out.splitlines()
    header = lines[0].split()
    assert header[:6] == ["note", "of", "use,", "nats", "a", "reply"]
    assert all(one.source.message.startswith(short) for one, short in zip(said, header[6:], strict=True)), (
        "a column for each reply"
    )
    assert [line.split()[0] for line in lines[1:5]] == ["a-sea", "name", "all", "leans"]
    assert "n=4" in lines[1] and "n=4" in lines[2]
    assert "threshold +" in out and "from 20 replies that used no note (0 posted, 20 drawn)" in out
    assert "1 of 4 replies lean on the notes" in out
    assert f"  said     Your name is Melvor.\n  without  {without}\n" in out

    [entry] = workspace.ledger.list()
    assert f"  lesson   {entry.short}  proposed\n" in out
    lesson = entry.lesson
    assert entry.state == "proposed" and not workspace.ledger.list("approved")
    assert lesson.context == (ChatMessage("user", QUESTIONS[0]),), "without the notes"
    assert (lesson.chosen, lesson.rejected) == ("Your name is Melvor.", without)
    source = said[0].source
    assert (lesson.source.commit, lesson.source.message) == (source.commit, source.message)
    assert lesson.source.author == "understudy"


def test_as_json_for_programs(workspace: Workspace, lean: Lean) -> None:
    found = json.loads(lean("--json"))
    assert found["nulls"]["posted"] == 0 and found["nulls"]["drawn"] == len(found["nulls"]["leaning"]) == 20
    assert [(one["name"], one["digest"]) for one in found["notes"]] == [
        (note.name, note.digest) for note in workspace.notes
    ]
    assert found["notes"][1]["usefulness"]["mean"] > 5
    first, *others = found["replies"]
    assert first["leans"] and not any(one["leans"] for one in others)
    assert first["drops"]["name"] > 20 > 2 > abs(first["drops"]["a-sea"])
    assert first["spoken_with"] == {note.name: note.digest for note in workspace.notes}
    assert first["text"] == "Your name is Melvor." and first["without"] is first["lesson"] is None
    assert not workspace.ledger.list(), "nothing is proposed that was not asked for"
    [only] = json.loads(lean("--json", "--recent", "1"))["replies"]
    assert only["message"] == others[-1]["message"]


def test_what_a_person_decided_stays(workspace: Workspace, lean: Lean, without: str) -> None:
    lean("--propose")
    [plain] = workspace.ledger.list("proposed")
    assert plain.lesson.rejected is None
    lean("--propose", "--alternates")
    [better] = workspace.ledger.list("proposed")
    assert better.lesson.rejected == without, "the alternate came to it"
    lean("--propose")
    assert workspace.ledger.list("proposed") == (better,)
    workspace.ledger.refuse(better.id, "maya", "a name is no habit")
    assert f"{better.short}  refused" in lean("--propose", "--alternates")
    assert not workspace.ledger.list("proposed")


def test_replies_posted_without_notes_are_the_first_to_be_null_replies(
    workspace: Workspace, lean: Lean
) -> None:
    (workspace.root / "notes").rename(workspace.root / "aside")
    with EmbeddedEngine(workspace.settings.model, workspace.root / "model") as engine:
        converse(workspace, engine, *QUESTIONS * 3)
        (workspace.root / "aside").rename(workspace.root / "notes")
    found = json.loads(lean("--json"))
    assert (found["nulls"]["posted"], found["nulls"]["drawn"]) == (12, 8)
    assert len(found["replies"]) == 4 and [one["leans"] for one in found["replies"]] == [True, *[False] * 3]


def test_an_edited_note_is_another_wording(workspace: Workspace, lean: Lean) -> None:
    spoken_with = workspace.notes[1].digest
    (workspace.root / "notes" / "name.md").write_text("The sea is calm.")
    found = json.loads(lean("--json"))
    assert found["notes"][1]["digest"] != spoken_with
    assert found["replies"][0]["spoken_with"]["name"] == spoken_with
    assert not found["replies"][0]["leans"], "today's note does not make it likely"


def test_replies_too_long_for_the_notes_are_passed_over(workspace: Workspace, lean: Lean) -> None:
    with EmbeddedEngine(workspace.settings.model, workspace.root / "model") as engine:
        converse(workspace, engine, "Hello. " * 500)
    (workspace.root / "notes" / "[b]more.md").write_text("The weather is fine and the sea is calm. " * 45)
    out = lean()
    assert "[b]more" in out, "a name is no markup"
    assert "passed over: 1 replies, too long to stand behind the notes" in out and " of 4 replies" in out


def test_what_cannot_be_done_is_said_plainly(workspace: Workspace, refused: Lean) -> None:
    root, notes = workspace.root, workspace.root / "notes"
    assert "between 0 and 1, got 20 and 1.0" in refused(root, "--level", "1")
    assert "--recent of 1 or more" in refused(root, "--recent", "0")
    text = refused(root, "--level", "0.99")
    assert "at least 99 replies that used no note" in text and "got 80" in text
    (notes / "bad.md").write_bytes(b"\xff")
    assert "bad.md" in refused(root)
    (notes / "bad.md").unlink()
    workspace.announce("http://127.0.0.1:9")
    assert "expected the server at http://127.0.0.1:9 to answer" in refused(root)
    workspace.withdraw()
    shutil.rmtree(notes)
    assert "notes/*.md, found none: write one first" in refused(root)


def test_without_replies_that_were_spoken_with_notes_nothing_can_be_said(
    tmp_path: Path, refused: Lean
) -> None:
    made = new_workspace(tmp_path / "w")
    write_notes(made)
    asked = made.repository.start(FILE, "Tea", "maya", "Which tea?").message
    made.repository.reply(FILE, asked, "understudy", "Mint.", trailers={"Understudy-Weights": "initial"})
    assert "found none among 1: let it answer" in refused(made.root)


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    app(["lessons", "lean", "--help"], result_action="return_value")
    assert "Usage: understudy lessons lean" in capsys.readouterr().out
