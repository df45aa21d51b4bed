"""Notes in a workspace, before a context, in a commit; and the replies that were spoken with them."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.config import ConfigError
from understudy.conversation import ConversationRepository
from understudy.lessons import (
    NOTES_TRAILER,
    WEIGHTS_TRAILER,
    ChatMessage,
    Note,
    mine,
    notes_in,
    notes_trailer,
    replies,
    with_notes,
)
from understudy.workspace import Workspace

FILE = "conversations/talk.md"
NAME = "understudy"
TEA, HOUSE = Note("tea", "Mint only.\n"), Note("house", "  The cat is called Mo.  ")
CONTEXT = (ChatMessage("user", "Which tea?"),)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    return Workspace.create(tmp_path / "w", model=model, copy_model=False, replay=(), settings="")


def write(workspace: Workspace, name: str, data: bytes) -> None:
    (workspace.root / "notes").mkdir(exist_ok=True)
    (workspace.root / "notes" / name).write_bytes(data)


def test_notes_stand_before_the_context_each_under_its_name() -> None:
    assert with_notes((HOUSE, TEA), CONTEXT) == (
        ChatMessage("system", "# house\n\nThe cat is called Mo.\n\n# tea\n\nMint only."),
        *CONTEXT,
    )
    assert with_notes((), CONTEXT) == CONTEXT


def test_notes_come_before_a_system_message_that_is_there() -> None:
    own = (ChatMessage("system", "Be brief."), *CONTEXT)
    assert with_notes((TEA,), own) == (ChatMessage("system", "# tea\n\nMint only.\n\nBe brief."), *CONTEXT)
    later = (*CONTEXT, ChatMessage("system", "Be brief."))
    assert with_notes((TEA,), later)[1:] == later


def test_a_workspace_without_a_folder_of_notes_has_none(workspace: Workspace) -> None:
    assert workspace.notes == ()


def test_a_workspace_has_its_notes_by_name(workspace: Workspace) -> None:
    for name, data in {
        "b.md": b"second",
        "a-b.md": "r\u00e9sum\u00e9\r\n".encode(),
        "a.md": b"first\n",
        "empty.md": b" \n",
        ".#a.md": b"an editor's",
        "readme.txt": b"no note",
    }.items():
        write(workspace, name, data)
    assert workspace.notes == (
        Note("a", "first\n"),
        Note("a-b", "r\u00e9sum\u00e9\r\n"),
        Note("b", "second"),
    )


def test_a_note_that_cannot_be_read_is_named(workspace: Workspace) -> None:
    write(workspace, "good.md", b"good")
    write(workspace, "bad.md", b"caf\xe9")
    with pytest.raises(ConfigError, match=r"expected a note in UTF-8 at .*bad\.md"):
        _ = workspace.notes
    (workspace.root / "notes" / "bad.md").unlink()
    (workspace.root / "notes" / "folder.md").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.md"):
        _ = workspace.notes


def test_a_note_does_not_lead_out_of_the_workspace(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a key")
    write(workspace, "tea.md", b"Mint.")
    (workspace.root / "notes" / "key.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match=r"key\.md leads out of its folder"):
        _ = workspace.notes


def test_a_digest_is_the_beginning_of_the_texts_sha256() -> None:
    assert TEA.digest == hashlib.sha256(b"Mint only.\n").hexdigest()[:12]
    assert notes_trailer((TEA,)) == {NOTES_TRAILER: f"tea {TEA.digest}"}
    assert notes_trailer(()) == {} and notes_in({}) == {}


letters = st.characters(codec="utf-8", exclude_characters="/\0")


@given(st.dictionaries(st.text(letters, min_size=1), st.text(letters), max_size=4))
def test_any_names_read_back_from_the_trailer(texts: dict[str, str]) -> None:
    notes = [Note(name, text) for name, text in texts.items()]
    assert notes_in(notes_trailer(notes)) == {note.name: note.digest for note in notes}


def test_any_name_is_a_trailer_that_git_keeps(tmp_path: Path) -> None:
    repository = ConversationRepository.create(tmp_path / "w")
    notes = [Note(f"a {'f' * 12}, b\n: \u00fc {number}", "text") for number in range(60)]
    posted = repository.start(FILE, "Tea", NAME, "Mint.", trailers=notes_trailer(notes))
    assert notes_in(repository.trailers(posted.commit)) == {note.name: note.digest for note in notes}


def said(repository: ConversationRepository, to: str, text: str, *notes: Note) -> str:
    trailers = {WEIGHTS_TRAILER: "initial", **notes_trailer(notes)}
    return repository.reply(FILE, to, NAME, text, trailers=trailers).message


def test_replies_are_what_the_model_said_and_stands(tmp_path: Path) -> None:
    repository = ConversationRepository.create(tmp_path / "w")
    root = repository.start(FILE, "Tea", "maya", "@understudy Which tea?").message
    with_one = said(repository, root, "Mint.", TEA)
    edited = said(repository, root, "Coffee.", TEA)
    deleted = said(repository, root, "Gin.", TEA)
    second = repository.reply(FILE, with_one, "maya", "Why?").message
    without = said(repository, second, "It is fresh.")
    repository.reply(FILE, root, NAME, "A person wrote this.")
    repository.edit(FILE, edited, "maya", "Lemon.")
    repository.delete(FILE, deleted, "maya")
    found = replies(repository, NAME)
    assert [(one.text, dict(one.notes)) for one in found] == [
        ("Mint.", {"tea": TEA.digest}),
        ("It is fresh.", {}),
    ]
    assert [one.source.message for one in found] == [with_one, without]
    assert found[0].context == CONTEXT, "without the note"
    assert [turn.content for turn in found[1].context] == ["Which tea?", "Mint.", "Why?"]
    assert (found[0].source.file, found[0].source.thread, found[0].source.author) == (FILE, "Tea", NAME)
    assert repository.trailers(found[0].source.commit)[NOTES_TRAILER] == f"tea {TEA.digest}"


def test_a_reply_is_found_where_it_was_moved(tmp_path: Path) -> None:
    repository = ConversationRepository.create(tmp_path / "w")
    root = repository.start(FILE, "Tea", "maya", "Which tea?").message
    said(repository, root, "Mint.", TEA)
    repository.rename(FILE, "Tea", "Drinks", "maya")
    [reply] = replies(repository, NAME)
    assert (reply.text, reply.context) == ("Mint.", CONTEXT)


def test_a_correction_of_a_reply_with_notes_is_a_lesson_without_them(tmp_path: Path) -> None:
    repository = ConversationRepository.create(tmp_path / "w")
    root = repository.start(FILE, "Tea", "maya", "Which tea?").message
    repository.edit(FILE, said(repository, root, "Coffee.", TEA), "maya", "Mint.")
    [lesson] = mine(repository, NAME)
    assert (lesson.context, lesson.rejected, lesson.chosen) == (CONTEXT, "Coffee.", "Mint.")
