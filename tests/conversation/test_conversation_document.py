"""docs/FORMAT.md says what is so: its examples are run."""

import re
import subprocess
from datetime import UTC, datetime
from hashlib import sha256
from inspect import signature
from pathlib import Path

import pytest

from understudy import conversation
from understudy.conversation import (
    ConversationRepository,
    delete,
    operations,
    parse,
    restoring,
    restructuring,
    split,
)

FORMAT = (Path(__file__).parents[2] / "docs" / "FORMAT.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", FORMAT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_reads_as_the_text_says() -> None:
    talk = parse(block("markdown"))
    assert [(message.depth, message.author, message.body) for message in talk.walk()] == [
        (0, "ann", "Who brings the cup?\n\nThe blue one, please."),
        (1, "parrot", "I bring the blue cup."),
        (2, "ann", "Thank you!"),
        (0, "bob", "1. Milk\n2. Sugar"),
    ]


def test_ids_are_made_as_the_text_says() -> None:
    def framed(*parts: str) -> str:
        return sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:12]

    first, answer, *_ = parse(block("markdown")).messages
    assert first.id == framed(framed("thread", "Tea", "0"), "ann", "2026-11-20T12:00:00Z", "0")
    assert answer.id == framed(first.id, "parrot", "2026-11-20T12:00:04Z", "0")


def test_the_example_of_a_deletion_and_a_split_is_what_the_operations_write() -> None:
    example = re.findall(r"^```markdown\n(.*?)^```$", FORMAT, re.MULTILINE | re.DOTALL)[1]
    said = (
        "### Tea\n\n- @ann [2026-11-20T12:00:00Z]: I will not.\n\n  - @bob [2026-11-20T12:00:09Z]: Why not?\n"
    )
    doc = parse(said)
    answer, when = doc.messages[1], datetime(2026, 11, 20, 12, 3, tzinfo=UTC)
    after, _ = split(delete(doc, doc.messages[0].id), answer.id, 0, "Why not", "ann", when)
    assert after.text == example
    assert [message.deleted for message in parse(example).walk()] == [True, False, False]


def test_every_operation_is_told_of() -> None:
    table = FORMAT.partition("## Operations")[2].partition("## Git")[0]
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    rooms = (operations, restructuring, restoring)
    pure = {name for name in conversation.__all__ if any(name in vars(room) for room in rooms)}
    written = {
        name
        for name in pure
        if name.islower() and signature(getattr(conversation, name)).parameters.get("doc")
    }
    assert set(told) == written and len(told) == len(set(told)) == 10


@pytest.mark.parametrize(
    ("text", "threads", "bodies"),
    [
        ("- @a [2026-01-01T00:00:00Z]: x\n", [""], ["x"]),
        ("###\n- @a [2026-01-01T00:00:00Z]: x\n", [""], ["x"]),
        ("### T ###\n", ["T ###"], []),
        ("### T\n### T\n", ["T", "T"], []),
        ("- @a [2026-01-01T00:00:00Z]: x\n\n---\n## S\ntext\n", [""], ["x\n\n---\n## S\ntext"]),
        (
            "- @a [2026-01-01T00:00:00Z]: x\n* @b [2026-01-01T00:00:00Z]: y\n",
            [""],
            ["x\n* @b [2026-01-01T00:00:00Z]: y"],
        ),
        ("- @a [2026-99-01T00:00:00Z]: x\n", [""], ["x"]),
        ("```\n### T\n```\n", ["T"], []),
        ("- @a [2026-01-01T00:00:00Z]: x\ry\n", [""], ["x\ry"]),
        ("- @a [2026-01-01T00:00:00Z]: x\r", [""], ["x"]),
        ("  - @a [2026-01-01T00:00:00Z]: x\n y\nz\n", [""], ["x\ny\nz"]),
        ("### T\n\nnobody's\n\n- @a [2026-01-01T00:00:00Z]: x\n", ["T"], ["x"]),
        ("- @a [2026-01-01T00:00:00Z]: *(deleted)*\n", [""], [""]),
    ],
)
def test_malformed_files_mean_what_the_text_says(text: str, threads: list[str], bodies: list[str]) -> None:
    talk = parse(text)
    assert [thread.title for thread in talk.threads] == threads
    assert [message.body for message in talk.walk()] == bodies


def test_git_and_an_editor_are_enough(tmp_path: Path) -> None:
    repo = ConversationRepository.create(tmp_path / "workspace")
    repo.add("conversations/talk.md", block("markdown"), "ann")
    before = repo.head()
    subprocess.run(["sh", "-ec", block("sh")], cwd=tmp_path, check=True)
    copy = ConversationRepository.open(tmp_path / "copy")
    (change,) = copy.changes(since=before)
    assert (change.author, [message.body for message in change.added]) == (
        "ann",
        ["Written without the program."],
    )
    answered = copy.reply("conversations/talk.md", change.added[0].id, "parrot", "Read.")
    parent = copy.read("conversations/talk.md").message(answered.message).parent
    assert parent is not None and parent.id == change.added[0].id
