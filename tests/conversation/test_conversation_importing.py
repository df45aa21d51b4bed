"""Imports: chat exports as threads, and the older layout with its whole history."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from understudy.conversation import (
    ConversationRepository,
    FileThere,
    InvalidImport,
    InvalidPath,
    NotAllowed,
    import_chats,
    import_older,
    parse,
)
from understudy.conversation.importing import valid_as_name

FILE = "conversations/talk.md"
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
NAMES = {"user": "ann", "assistant": "parrot"}


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


def export(tmp_path: Path, data: Any, name: str = "chat.json") -> Path:
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def said(repo: ConversationRepository) -> list[tuple[str, str, int]]:
    return [(message.author, message.body, message.depth) for message in repo.read(FILE).messages]


CHAT = {
    "title": "Tea",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Which tea?"},
        {
            "role": "assistant",
            "content": "Mint.\n\n- @eve [2026-01-01T00:00:00Z]: forged\n\n### Forged\n\n```\nopen",
        },
        {"role": "user", "name": "Bob B.", "content": [{"type": "text", "text": "Thanks"}]},
    ],
}


def test_a_chat_becomes_a_thread_in_which_each_answers_the_one_before(
    repo: ConversationRepository, tmp_path: Path
) -> None:
    made = import_chats(repo, export(tmp_path, CHAT), FILE, "ann", names=NAMES, started=NOON)
    assert (made.file, made.messages, made.left_out, made.commits) == (FILE, 4, 0, 1)
    assert made.commit == repo.head() and repo.trailers(made.commit)["Understudy-Operation"] == "add"
    doc = repo.read(FILE)
    assert [thread.title for thread in doc.threads] == ["Tea"]
    assert said(repo) == [
        ("system", "Be brief.", 0),
        ("ann", "Which tea?", 1),
        ("parrot", CHAT["messages"][2]["content"] + "\n```", 2),  # type: ignore[index]
        ("Bob-B.", "Thanks", 3),
    ]
    assert [message.created for message in doc.messages] == [f"2026-11-20T12:00:0{n}Z" for n in range(4)]


def test_many_chats_and_their_times_and_titles(repo: ConversationRepository, tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": "Hello\nthere", "created_at": "2025-01-02T03:04:05+01:00"}
            ]
        },
        {"messages": [{"role": "user", "content": "Hello there", "timestamp": 1735783445}]},
        {"title": " ", "messages": [{"role": "user", "content": "x" * 100, "create_time": 1735783445000}]},
    ]
    text = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    import_chats(repo, export(tmp_path, text, "chats.jsonl"), FILE, "ann", started=NOON)
    doc = repo.read(FILE)
    assert [thread.title for thread in doc.threads] == ["Hello there", "Hello there (2)", "x" * 59 + "…"]
    times = ["2025-01-02T02:04:05Z"] + ["2025-01-02T02:04:05Z"] * 2
    assert [message.created for message in doc.messages] == times
    second = "conversations/again.md"
    import_chats(repo, export(tmp_path, rows), second, "ann", started=NOON)
    assert repo.read(second).text == doc.text


def test_tools_parts_and_empty_messages(repo: ConversationRepository, tmp_path: Path) -> None:
    call = {"id": "1", "function": {"name": "look", "arguments": '{"a": "```"}'}}
    messages = [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "u"}}, "and text"]},
    ]
    made = import_chats(repo, export(tmp_path, {"messages": messages}), FILE, "ann", names=NAMES)
    assert (made.messages, made.left_out) == (3, 1)
    bodies = [message.body for message in repo.read(FILE).messages]
    assert bodies[1].startswith("````json\n") and json.loads(bodies[1].strip("`")[5:])[0] == call
    assert bodies[2].endswith("\n\nand text") and '"image_url"' in bodies[2]


def test_a_long_chat_keeps_its_path(repo: ConversationRepository, tmp_path: Path) -> None:
    messages = [{"role": ("user", "assistant")[n % 2], "content": f"Turn {n}"} for n in range(300)]
    import_chats(repo, export(tmp_path, {"messages": messages}), FILE, "ann", names=NAMES, started=NOON)
    doc = repo.read(FILE)
    assert [message.body for message in doc.path(doc.messages[-1].id)] == [f"Turn {n}" for n in range(300)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", "no chat"),
        ("not json", "line 1: JSON was expected"),
        ('{"messages": []}\nnot json', "line 2"),
        ([], "no chat"),
        ({"text": "x"}, 'chat 1: an object with a list "messages"'),
        ([CHAT, 3], "chat 2"),
        ({"messages": []}, "no message has any text"),
        ({"messages": [{"role": "user", "content": " "}]}, "no message has any text"),
        ({"messages": ["hello"]}, 'message 1: an object with a "role"'),
        ({"messages": [{"content": "x"}]}, 'a "role"'),
        ({"messages": [{"role": "user", "content": 3}]}, "content is a text"),
        ({"messages": [{"role": "user", "content": "x", "time": "soon"}]}, "a time was expected; got 'soon'"),
    ],
)
def test_what_is_no_chat_export_is_said(
    repo: ConversationRepository, tmp_path: Path, data: Any, expected: str
) -> None:
    head = repo.head()
    with pytest.raises(InvalidImport) as caught:
        import_chats(repo, export(tmp_path, data), FILE, "ann")
    assert expected in str(caught.value)
    assert repo.head() == head


def test_nothing_is_imported_over_a_conversation(repo: ConversationRepository, tmp_path: Path) -> None:
    repo.start(FILE, "Tea", "ann", "Here.")
    with pytest.raises(FileThere):
        import_chats(repo, export(tmp_path, CHAT), FILE, "ann")
    with pytest.raises(InvalidPath):
        import_chats(repo, export(tmp_path, CHAT), "talk.md", "ann")


def test_names_that_can_stand_in_a_message_line() -> None:
    assert [valid_as_name(name) for name in ("Zoë", "a b", "x[y]", "@@", "gpt-4.1_mini")] == [
        "Zoë", "a-b", "x-y", "someone", "gpt-4.1_mini",
    ]  # fmt: skip


# The older layout

BEGUN = "### Plans\n\n- @jo [2025-02-12T01:14:44Z]: First\n"
ANSWERED = BEGUN + "\n  - @parrot [2025-02-13T15:37:50]: Answer\n\n"
EDITED = ANSWERED.replace("Answer", "Better answer")
PEOPLE = {
    "participants": [
        {"username": "jo", "displayName": 'Jo "J" Lee', "avatarUrl": "https://example.org/jo.png"},
        {"username": "sam", "displayName": "Sam"},
    ],
    "settings": {"allow_public_view": True},
}


def commit(root: Path, text: str | None, who: str, when: str, message: str) -> str:
    git = ["git", "-C", str(root), "-c", f"user.name={who}", "-c", f"user.email={who}@example.org"]
    if text is not None:
        path = root / "public/data/conversation.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    subprocess.run([*git, "add", "-A"], check=True)
    environment = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when, "PATH": "/usr/bin:/bin"}
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", message], check=True, env=environment)
    return subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def older(tmp_path: Path) -> Path:
    root = tmp_path / "older"
    root.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)
    (root / "index.html").write_text("<html>")
    commit(root, None, "jo", "2025-02-12T01:00:00Z", "site")
    commit(root, BEGUN, "jo", "2025-02-12T01:14:44Z", "first message")
    forged = "answer\n\nUnderstudy-Key: k1\nUnderstudy-Moved: a b\nUnderstudy-Operation: forged"
    commit(root, ANSWERED, "parrot", "2025-02-13T15:37:50Z", forged)
    (root / "participants.json").write_text(json.dumps(PEOPLE))
    commit(root, None, "jo", "2025-02-14T00:00:00Z", "people")
    commit(root, EDITED, "jo", "2025-02-15T17:30:14+02:00", "a correction")
    return root


def test_the_older_layout_comes_with_its_history(repo: ConversationRepository, older: Path) -> None:
    repo.start("conversations/here.md", "Ours", "ann", "We were here.")
    before = repo.head()
    made = import_older(repo, older, FILE, "ann", model_name="parrot")
    assert (made.messages, made.commits, made.participants) == (2, 3, True)
    assert repo.read(FILE).text == EDITED and (repo.root / FILE).read_bytes() == EDITED.encode()
    assert repo.read("conversations/here.md").threads[0].title == "Ours"
    changes = list(repo.changes(file=FILE))
    assert [(change.author, change.time) for change in changes] == [
        ("jo", datetime(2025, 2, 12, 1, 14, 44, tzinfo=UTC)),
        ("parrot", datetime(2025, 2, 13, 15, 37, 50, tzinfo=UTC)),
        ("jo", datetime(2025, 2, 15, 15, 30, 14, tzinfo=UTC)),
    ]
    assert [[message.body for message in change.added] for change in changes] == [["First"], ["Answer"], []]
    assert [(old.body, new.body) for old, new in changes[2].edited] == [("Answer", "Better answer")]
    answer = repo.read(FILE).messages[1].id
    assert [revision.body for revision in repo.history(FILE, answer)] == ["Answer", "Better answer"]
    for change in changes:  # what the other commits said is no trailer of ours
        assert set(repo.trailers(change.commit)) == {"Understudy-Imported-From"} and not change.moved
    git = ["git", "-C", str(repo.root)]
    assert subprocess.run([*git, "fsck", "--strict"], capture_output=True, check=True).returncode == 0
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert status.stdout == ""
    merge = subprocess.run([*git, "rev-list", "--parents", "-1", made.commit], capture_output=True, text=True)
    assert merge.stdout.split()[1] == before and len(merge.stdout.split()) == 3


def test_its_participants_become_ours(repo: ConversationRepository, older: Path) -> None:
    import_older(repo, older, FILE, "ann", model_name="parrot")
    people = repo.participants()
    assert set(people.people) == {"jo", "sam", "ann", "parrot"}
    jo, model = people.people["jo"], people.people["parrot"]
    assert jo.display == 'Jo "J" Lee' and model.kind == "model"
    assert people.may("ann", "admin") and people.may("jo", "post", FILE) and not people.may("jo", "admin")
    repo.reply(FILE, repo.read(FILE).messages[0].id, "sam", "Hello")
    with pytest.raises(NotAllowed):
        import_older(repo, older, "conversations/second.md", "sam")
    again = import_older(repo, older, "conversations/second.md", "ann")
    assert not again.participants and repo.participants().people == people.people


def test_a_talk_that_was_not_public_is_private(repo: ConversationRepository, older: Path) -> None:
    people = {**PEOPLE, "settings": {"allow_public_view": False}}
    (older / "participants.json").write_text(json.dumps(people))
    import_older(repo, older, FILE, "jo")
    assert repo.participants().may_read("sam", FILE) and not repo.participants().may_read("eve", FILE)


def test_branches_and_merges_stay_what_they_were(repo: ConversationRepository, older: Path) -> None:
    git = ["git", "-C", str(older), "-c", "user.name=jo", "-c", "user.email=jo@example.org"]
    subprocess.run([*git, "switch", "-q", "-c", "side", "HEAD~1"], check=True)
    side = ANSWERED + "### Side\n\n- @sam [2025-02-16T00:00:00Z]: Beside\n"
    commit(older, side, "sam", "2025-02-16T00:00:00Z", "beside")
    subprocess.run([*git, "switch", "-q", "main"], check=True)
    subprocess.run([*git, "merge", "-q", "--no-edit", "side"], check=True)
    made = import_older(repo, older, FILE, "ann")
    assert made.commits == 5 and repo.read(FILE).text == side.replace("Answer", "Better answer")
    added = {message.body: change.author for change in repo.changes(file=FILE) for message in change.added}
    assert added == {"First": "jo", "Answer": "parrot", "Beside": "sam"}


def test_a_folder_without_git_gives_its_text(repo: ConversationRepository, tmp_path: Path) -> None:
    root = tmp_path / "plain"
    (root / "public/data").mkdir(parents=True)
    text = b"\xef\xbb\xbf### Old\r\n\r\n- @jo [2025-02-12T01:14]: caf\xe9\r\n"
    (root / "public/data/conversation.md").write_bytes(text)
    made = import_older(repo, root, FILE, "ann")
    assert (made.messages, made.commits, made.participants) == (1, 1, False)
    assert (repo.root / FILE).read_bytes() == text


def test_what_is_not_in_the_older_layout(repo: ConversationRepository, older: Path, tmp_path: Path) -> None:
    head = repo.head()
    with pytest.raises(InvalidImport, match="public/data/conversation"):
        import_older(repo, tmp_path, FILE, "ann")
    (older / "participants.json").write_text('{"people": []}')
    with pytest.raises(InvalidImport, match="participants"):
        import_older(repo, older, FILE, "ann")
    (older / "participants.json").write_text('{"participants": [{"username": "a b"}]}')
    with pytest.raises(InvalidImport, match="'a b'"):
        import_older(repo, older, FILE, "ann")
    (older / "participants.json").unlink()
    (older / ".git/HEAD").write_text("broken")
    with pytest.raises(InvalidImport, match="does not open"):
        import_older(repo, older, FILE, "ann")
    assert repo.head() == head
    repo.start(FILE, "Tea", "ann", "Here.")
    with pytest.raises(FileThere):
        import_older(repo, older, FILE, "ann")
    assert [change.author for change in repo.changes(head)] == ["ann"]
    assert parse((repo.root / FILE).read_text()).threads[0].title == "Tea"
