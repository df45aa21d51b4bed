"""Corrections found in the history, whatever program made the commits, and their context."""

import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from understudy.conversation import ConversationRepository, Posted, parse
from understudy.lessons import ChatMessage, Lesson, Source, chat_context, digest, mine

FILE = "conversations/talk.md"
MODEL = "parrot"


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


@pytest.fixture
def answer(repo: ConversationRepository) -> Posted:
    """The model's answer to a direction."""
    asked = repo.start(FILE, "Tea", "ann", "@parrot Bring the cup.")
    return repo.reply(FILE, asked.message, MODEL, "Perhaps a walk instead?")


def by_hand(repo: ConversationRepository, old: str, new: str, author: str) -> None:
    path = repo.root / FILE
    path.write_text(path.read_text().replace(old, new))
    identity = ("-c", f"user.name={author}", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", str(repo.root), *identity, "commit", "-qam", "by hand"], check=True)


def test_an_edit_of_the_models_message_is_a_lesson(repo: ConversationRepository, answer: Posted) -> None:
    edited = repo.edit(FILE, answer.message, "bob", "I bring the cup.")
    (lesson,) = mine(repo, MODEL)
    assert lesson.context == (ChatMessage("user", "Bring the cup."),)
    assert (lesson.rejected, lesson.chosen) == ("Perhaps a walk instead?", "I bring the cup.")
    assert replace(lesson.source, time="") == Source(FILE, "Tea", answer.message, edited.commit, "bob", "")
    (change,) = repo.changes(since=answer.commit)
    assert lesson.source.time == change.time.isoformat()


def test_what_is_no_correction_gives_no_lesson(repo: ConversationRepository, answer: Posted) -> None:
    question = repo.read(FILE).message(answer.message).parent
    assert question is not None
    repo.edit(FILE, question.id, "ann", "@parrot Bring the blue cup.")
    repo.reply(FILE, answer.message, "bob", "No.")
    repo.edit(FILE, answer.message, "bob", "Perhaps  a walk\n\ninstead?")
    assert mine(repo, MODEL) == []
    repo.edit(FILE, answer.message, MODEL, "Perhaps a swim instead?")
    assert mine(repo, MODEL) == []


def test_several_edits_are_one_lesson_for_the_newest_text(
    repo: ConversationRepository, answer: Posted
) -> None:
    repo.edit(FILE, answer.message, "ann", "The cup is here.")
    repo.edit(FILE, answer.message, "bob", "Here is the cup.")
    (lesson,) = mine(repo, MODEL)
    assert (lesson.rejected, lesson.chosen) == ("Perhaps a walk instead?", "Here is the cup.")
    assert lesson.source.author == "bob"
    repo.edit(FILE, answer.message, "bob", "Perhaps a walk instead?")
    assert mine(repo, MODEL) == []


def test_the_models_own_edit_moves_what_is_rejected(repo: ConversationRepository, answer: Posted) -> None:
    repo.edit(FILE, answer.message, MODEL, "Perhaps a swim?")
    repo.edit(FILE, answer.message, "ann", "The cup.")
    (lesson,) = mine(repo, MODEL)
    assert (lesson.rejected, lesson.chosen) == ("Perhaps a swim?", "The cup.")
    repo.edit(FILE, answer.message, MODEL, "A nap?")
    assert mine(repo, MODEL) == []


def test_commits_made_in_an_editor_are_understood(repo: ConversationRepository, answer: Posted) -> None:
    by_hand(repo, "Perhaps a walk instead?", "I bring it.", "Jane Doe")
    (lesson,) = mine(repo, MODEL)
    assert (lesson.chosen, lesson.source.author) == ("I bring it.", "Jane Doe")


def test_an_edit_left_uncommitted_is_found_once_it_is_claimed(
    repo: ConversationRepository, answer: Posted
) -> None:
    path = repo.root / FILE
    path.write_text(path.read_text().replace("Perhaps a walk instead?", "I bring it."))
    assert mine(repo, MODEL) == []
    repo.commit_hand_edits("ann")
    assert [lesson.source.author for lesson in mine(repo, MODEL)] == ["ann"]


def test_a_removed_message_or_file_gives_none(repo: ConversationRepository, answer: Posted) -> None:
    repo.edit(FILE, answer.message, "ann", "The cup.")
    source = repo.read(FILE).message(answer.message).source
    by_hand(repo, source, "", "ann")
    assert mine(repo, MODEL) == []
    by_hand(repo, "Bring the cup.\n", "Bring the cup.\n\n" + source, "ann")
    assert [lesson.chosen for lesson in mine(repo, MODEL)] == ["The cup."]
    (repo.root / FILE).unlink()
    repo.commit_hand_edits("ann")
    assert mine(repo, MODEL) == []


def test_since_gives_the_newer_ones_with_what_the_model_said_long_before(
    repo: ConversationRepository, answer: Posted
) -> None:
    other = repo.start("conversations/b.md", "B", "ann", "Sit.")
    second = repo.reply("conversations/b.md", other.message, MODEL, "Why?")
    first = repo.edit(FILE, answer.message, "ann", "One.")
    assert mine(repo, MODEL, since=first.commit) == []
    last = repo.edit("conversations/b.md", second.message, "ann", "I sit.")
    assert [lesson.chosen for lesson in mine(repo, MODEL, since=first.commit)] == ["I sit."]
    assert [lesson.chosen for lesson in mine(repo, MODEL)] == ["One.", "I sit."]
    repo.edit(FILE, answer.message, "ann", "Two.")
    (lesson,) = mine(repo, MODEL, since=last.commit)
    assert (lesson.rejected, lesson.chosen) == ("Perhaps a walk instead?", "Two.")
    own = repo.edit(FILE, answer.message, MODEL, "Perhaps a swim?")
    layout = "Perhaps a swim?", "\n\n    Perhaps a swim?"
    by_hand(repo, *layout, "ann")
    before = repo.head()
    repo.edit(FILE, answer.message, "ann", "Three.")
    (lesson,) = mine(repo, MODEL, since=before)
    assert (lesson.rejected, lesson.chosen) == ("Perhaps a swim?", "Three.")
    assert mine(repo, MODEL, since=own.commit) == [lesson]
    assert mine(repo, MODEL)[-1] == lesson


def test_an_imported_conversation_can_be_corrected(repo: ConversationRepository) -> None:
    repo.add(FILE, "### T\n- @ann [2025-01-01T00:00:00Z]: x\n  - @parrot [2025-01-01T00:00:01Z]: y\n", "ann")
    model = repo.read(FILE).messages[1]
    repo.edit(FILE, model.id, "ann", "z")
    assert [(lesson.rejected, lesson.chosen) for lesson in mine(repo, MODEL)] == [("y", "z")]


def test_a_root_message_of_the_models_has_no_context(repo: ConversationRepository) -> None:
    said = repo.start(FILE, "T", MODEL, "x")
    repo.edit(FILE, said.message, "ann", "y")
    assert mine(repo, MODEL)[0].context == ()


PATH = """### T
- @ann [2025-01-01T00:00:00Z]: @parrot, first.
  - @ann [2025-01-01T00:00:01Z]: Second, @parrot too.
    - @parrot [2025-01-01T00:00:02Z]: Third.
      - @parrot [2025-01-01T00:00:03Z]: Fourth.
        - @ann [2025-01-01T00:00:04Z]: @parrot-two is someone else.
          - @ann [2025-01-01T00:00:05Z]: @parrot
            - @bob [2025-01-01T00:00:06Z]: Last.
"""


def test_chat_context_of_one_person() -> None:
    assert chat_context(parse(PATH).messages[:5], MODEL) == (
        ChatMessage("user", "first.\n\nSecond, @parrot too."),
        ChatMessage("assistant", "Third.\n\nFourth."),
        ChatMessage("user", "@parrot-two is someone else."),
    )


def test_chat_context_names_people_where_there_are_two() -> None:
    context = chat_context(parse(PATH).messages, MODEL)
    assert context[0] == ChatMessage("user", "ann: first.\n\nann: Second, @parrot too.")
    assert context[1] == ChatMessage("assistant", "Third.\n\nFourth.")
    assert context[2].content == "ann: @parrot-two is someone else.\n\nann: @parrot\n\nbob: Last."
    assert chat_context((), MODEL) == ()


def test_digest_is_of_the_content_alone() -> None:
    lesson = Lesson((ChatMessage("user", "a"),), "b", None, Source("f", "t", "m", "c", "ann", "now"))
    assert digest(lesson) == digest(replace(lesson, source=Source("", "", "", "", "", "")))
    variants = [
        replace(lesson, chosen="c"),
        replace(lesson, rejected=""),
        replace(lesson, rejected="None"),
        replace(lesson, context=()),
        replace(lesson, context=(ChatMessage("system", "a"),)),
        replace(lesson, context=(ChatMessage("user", "a"), ChatMessage("user", ""))),
    ]
    assert len({digest(one) for one in [lesson, *variants]}) == 7
    written = '[[{"content": "a", "role": "user"}], "b", null]'
    assert digest(lesson) == sha256(written.encode()).hexdigest()


@pytest.mark.parametrize("since", [False, True])
def test_a_lesson_survives_moves_and_renames(
    repo: ConversationRepository, answer: Posted, since: bool
) -> None:
    repo.edit(FILE, answer.message, "bob", "I bring the cup.")
    repo.start(FILE, "Crockery", "ann", "All about cups.")
    root = repo.read(FILE).threads[0].messages[0].id
    moved = repo.move(FILE, root, "Crockery", "ann")
    repo.rename(FILE, "Crockery", "Cups", "ann")
    (lesson,) = mine(repo, MODEL)
    assert (lesson.rejected, lesson.chosen) == ("Perhaps a walk instead?", "I bring the cup.")

    [standing] = [m for m in repo.read(FILE).walk() if m.author == MODEL]
    repo.edit(FILE, standing.id, "ann", "The cup is here.")
    (again,) = mine(repo, MODEL, moved.commit if since else None)
    assert (again.rejected, again.chosen) == ("Perhaps a walk instead?", "The cup is here.")
    assert again.context == (ChatMessage("user", "Bring the cup."),)


def test_a_commit_that_only_claims_a_move_moves_no_lesson(
    repo: ConversationRepository, answer: Posted
) -> None:
    repo.edit(FILE, answer.message, "bob", "I bring the cup.")
    other = repo.start(FILE, "Else", "ann", "Else.")
    repo.post(FILE, "Else", "eve", "Nothing.", trailers={"Understudy-Claim": "x"})
    path = repo.root / FILE
    path.write_text(path.read_text() + "\n")
    identity = ("-c", "user.name=eve", "-c", "user.email=x@example.org")
    message = f"hm\n\nUnderstudy-Moved: {answer.message} {other.message}\n"
    subprocess.run(["git", "-C", str(repo.root), *identity, "commit", "-qam", message], check=True)
    (lesson,) = mine(repo, MODEL)
    assert (lesson.source.message, lesson.chosen) == (answer.message, "I bring the cup.")
