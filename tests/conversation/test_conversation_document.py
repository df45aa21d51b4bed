"""docs/FORMAT.md says what is so: its examples are run."""

import re
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from understudy.conversation import ConversationRepository, parse

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
