"""What a hand edit broke is found, with its line; what is in order is left in peace."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.conversation import (
    ConversationError,
    ConversationRepository,
    Finding,
    check,
    delete,
    move,
    parse,
    rename,
    reply,
    start,
)
from understudy.conversation.checking import check_text

FILE = "conversations/talk.md"
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
HEAD = "### Tea\n\n- @ann [2026-11-20T12:00:00Z]: Hello\n"


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


def kinds(text: str) -> list[tuple[str, int]]:
    return sorted((finding.kind, finding.line) for finding in check_text(FILE, parse(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD, []),
        ("", []),
        ("\ufeff" + HEAD, []),
        (HEAD.replace("\n", "\r\n"), []),
        ("Preface\n\n" + HEAD, [("nobody", 1)]),
        ("### Tea\n\nlost words\n\n- @ann [2026-11-20T12:00:00Z]: Hello\n", [("nobody", 3)]),
        ("- @ann [2026-11-20T12:00:00Z]: Hello\n", [("title", 1)]),
        ("###\n\n- @ann [2026-11-20T12:00:00Z]: Hello\n", [("title", 1)]),
        (HEAD + "\n" + HEAD, [("title", 5)]),
        (HEAD + "\n* @bob [2026-11-20T12:01:00Z]: Hi\n", [("message", 5)]),
        (HEAD + "\n-@bob [2026-11-20T12:01:00Z]: Hi\n", [("message", 5)]),
        (HEAD + "\n- @bob [20.11.2026]: Hi\n", [("message", 5)]),
        (HEAD + "\n- @bob [2026-11-20T12:01:00Z] Hi\n", [("message", 5)]),
        (HEAD + "\n  1. @bob [2026-11-20T12:01:00Z]: Hi\n", [("message", 5)]),
        (HEAD + "\n- @bob [2026-11-31T12:01:00Z]: Hi\n", [("time", 5)]),
        (HEAD + "\n- @bob,carl [2026-11-20T12:01:00Z]: Hi\n", [("name", 5)]),
        (HEAD + "\n- @bob [2026-11-20T12:01:00Z]:\n", [("empty", 5)]),
        (HEAD + "\n      - @bob [2026-11-20T12:01:00Z]: Hi\n", [("indent", 5)]),
        (HEAD + "\n## Plans\n", [("heading", 5)]),
        (HEAD + "\n  ```\n  code\n", [("open", 3)]),
        (HEAD + "\n  <!-- hidden\n", [("open", 3)]),
        (
            "<<<<<<< ours\n" + HEAD + "=======\n>>>>>>> theirs\n",
            [("conflict", 1), ("conflict", 6), ("nobody", 1)],
        ),
        (HEAD + "\ncaf\udce9 \0\n", [("encoding", 5), ("encoding", 5)]),
    ],
)
def test_each_kind_of_damage_is_found_with_its_line(text: str, expected: list[tuple[str, int]]) -> None:
    assert kinds(text) == expected


@pytest.mark.parametrize(
    "body",
    [
        "- @bob [2026-11-20T12:01:00Z]: quoted",
        "```\n- @bob [2026-11-20T12:01:00Z]: shown\n* @bob [2026-11-20]: shown\n```",
        "### A heading\n\nof my own",
        "- a list\n- of things\n\n=======\n\nunderlined",
        "@bob, see [1] and [2026]",
    ],
)
def test_what_the_program_wrote_is_in_order(body: str) -> None:
    doc, message = start(parse(""), "Tea", "ann", body, NOON)
    doc, _ = reply(doc, message.id, "bob", body, NOON)
    assert list(check_text(FILE, doc)) == []


@given(st.text(alphabet="`~<>!-#@[]ab \n\t*:0123456789TZ", max_size=80))
@settings(max_examples=400, deadline=None)
def test_only_what_looks_like_a_message_is_ever_said_of_a_submitted_body(body: str) -> None:
    try:
        doc, _ = start(parse(""), "Tea", "ann", body, NOON)
    except ConversationError:
        return
    assert {finding.kind for finding in check_text(FILE, doc)} <= {"message"}


@given(st.text(max_size=100))
@settings(max_examples=300, deadline=None)
def test_any_text_can_be_checked(text: str) -> None:
    lines = text.count("\n") + 1
    assert all(1 <= finding.line <= lines for finding in check_text(FILE, parse(text)))


def test_what_was_lost_is_told_committed_or_not(repo: ConversationRepository) -> None:
    tea = repo.start(FILE, "Tea", "ann", "Who brings the cup?").message
    cup = repo.reply(FILE, tea, "parrot", "I do.").message
    repo.reply(FILE, cup, "ann", "Thank you.")
    assert check(repo) == ()
    lines = (repo.root / FILE).read_text().splitlines(keepends=True)
    (repo.root / FILE).write_text("".join(line for line in lines if "@parrot" not in line))
    [finding] = [one for one in check(repo) if one.kind == "lost"]
    assert (finding.file, finding.kind) == (FILE, "lost")
    assert "an edit that is not committed lost @parrot's message" in finding.text
    assert cup in finding.text and "which 1 answered" in finding.text and "'I do.'" in finding.text
    repo.commit_hand_edits("eve")
    [finding] = [one for one in check(repo) if one.kind == "lost"]
    assert "eve's commit" in finding.text and cup in finding.text
    (repo.root / FILE).write_text("".join(lines))  # put back
    repo.commit_hand_edits("eve")
    assert check(repo) == ()


def test_what_moved_is_not_lost(repo: ConversationRepository) -> None:
    tea = repo.start(FILE, "Tea", "ann", "Who brings the cup?").message
    cup = repo.reply(FILE, tea, "parrot", "I do.").message
    for text in (
        move(repo.read(FILE), cup, title="Cups")[0].text,
        rename(repo.read(FILE), "Tea", "Coffee")[0].text,
    ):
        (repo.root / FILE).write_text(text)
        assert check(repo) == ()
    repo.commit_hand_edits("eve")
    assert check(repo) == ()
    repo.delete(FILE, repo.read(FILE).messages[-1].id, "parrot")  # by the program: meant
    assert check(repo) == ()


def test_a_deletion_by_hand_in_the_programs_manner_keeps_its_place(repo: ConversationRepository) -> None:
    tea = repo.start(FILE, "Tea", "ann", "Who brings the cup?").message
    repo.reply(FILE, tea, "parrot", "I do.")
    (repo.root / FILE).write_text(delete(repo.read(FILE), tea).text)
    assert check(repo) == ()


def test_a_removed_and_a_new_file(repo: ConversationRepository) -> None:
    repo.start(FILE, "Tea", "ann", "Who brings the cup?")
    (repo.root / FILE).unlink()
    (repo.root / "conversations/new.md").write_text("###\n")
    assert check(repo) == (
        Finding(
            "conversations/new.md", 1, "title", "a thread without a title: put a line '### Title' above it"
        ),
        Finding(FILE, 0, "removed", "the file is gone, not committed, with 1 messages"),
    )
