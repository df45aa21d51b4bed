"""A message's revisions, and what a merge did, by comparing trees."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from understudy.conversation import ConversationRepository, UnknownMessage

FILE = "conversations/talk.md"


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Gil", "-c", "user.email=gil@example.org")
    done = subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


@pytest.fixture
def talk(repo: ConversationRepository) -> str:
    return repo.start(FILE, "Tea", "ann", "First.").message


def rewrite(repo: ConversationRepository, old: str, new: str) -> str:
    """An edit with an editor and Git alone; gives the commit."""
    path = repo.root / FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    git(repo.root, "commit", "-qam", "by hand")
    return git(repo.root, "rev-parse", "HEAD")


def bodies(repo: ConversationRepository, message: str) -> list[tuple[str, str]]:
    return [(revision.author, revision.body) for revision in repo.history(FILE, message)]


class TestRevisions:
    """history(id): oldest first, without blame."""

    def test_every_wording_once(self, repo: ConversationRepository, talk: str) -> None:
        answer = repo.reply(FILE, talk, "parrot", "Polly.")
        repo.reply(FILE, talk, "bob", "Unrelated.")
        edited = repo.edit(FILE, answer.message, "ann", "Hello.")
        repo.edit(FILE, talk, "ann", "Unrelated too.")
        hand = rewrite(repo, "Hello.", "Hello!\n\n    Well.")
        back = repo.edit(FILE, answer.message, "parrot", "Polly.")
        found = repo.history(FILE, answer.message)
        assert [revision.commit for revision in found] == [answer.commit, edited.commit, hand, back.commit]
        assert [(revision.author, revision.body) for revision in found] == [
            ("parrot", "Polly."),
            ("ann", "Hello."),
            ("Gil", "Hello!\n\nWell."),
            ("parrot", "Polly."),
        ]
        assert all(revision.time.tzinfo is UTC for revision in found)
        with pytest.raises(UnknownMessage):
            repo.history(FILE, "nope")

    def test_moves_and_renames_are_followed(self, repo: ConversationRepository, talk: str) -> None:
        answer = repo.reply(FILE, talk, "bob", "One.").message
        repo.start(FILE, "Cake", "ann", "x")
        repo.edit(FILE, answer, "bob", "Two.")
        moved = repo.move(FILE, talk, "Cake", "mo").moved
        renamed = repo.rename(FILE, "Cake", "Pie", "mo").moved
        now = renamed[moved[answer]]
        repo.edit(FILE, now, "bob", "Three.")
        rewrite(repo, "### Pie", "### Pudding")
        now = next(message.id for message in repo.read(FILE).messages if message.body == "Three.")
        assert bodies(repo, now) == [("bob", "One."), ("bob", "Two."), ("bob", "Three.")]

    def test_a_deletion_is_a_revision(self, repo: ConversationRepository, talk: str) -> None:
        repo.reply(FILE, talk, "bob", "x")
        repo.delete(FILE, talk, "ann")
        found = repo.history(FILE, talk)
        assert [(revision.body, revision.deleted) for revision in found] == [("First.", False), ("", True)]

    def test_twins_are_told_apart(self, repo: ConversationRepository) -> None:
        """Same author, second and words, in two places: the characters alone do not say which changed."""
        when = datetime(2026, 1, 1, tzinfo=UTC)
        one = repo.start(FILE, "A", "ann", "ok", created=when).message
        two = repo.start(FILE, "B", "ann", "ok", created=when).message
        repo.edit(FILE, two, "ann", "no")
        repo.edit(FILE, two, "ann", "ok")
        assert bodies(repo, one) == [("ann", "ok")]
        assert bodies(repo, two) == [("ann", "ok"), ("ann", "no"), ("ann", "ok")]

    def test_an_edit_on_a_branch_is_the_editors_not_the_mergers(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        repo.start(FILE, "Far below", "ann", "z\n\nz\n\nz")
        git(repo.root, "switch", "-qc", "side")
        repo.edit(FILE, talk, "bob", "Bob's.")
        git(repo.root, "switch", "-q", "main")
        path = repo.root / FILE
        path.write_text(path.read_text() + "\n### More\n\n- @cid [2026-01-01T00:00:00Z]: y\n")
        git(repo.root, "commit", "-qam", "x")
        git(repo.root, "merge", "-q", "--no-edit", "side")
        assert bodies(repo, talk) == [("ann", "First."), ("bob", "Bob's.")]

    def test_bytes_that_are_not_utf8(self, repo: ConversationRepository) -> None:
        repo.add(FILE, "### T\n\n- @a\udc80 [2025-01-01T00:00:00Z]: x\udc81\n", "ann")
        message = repo.read(FILE).messages[0].id
        repo.reply(FILE, message, "bob", "y")
        assert bodies(repo, message) == [("ann", "x\udc81")]


class TestActs:
    """What was done is told by the commits alone."""

    def test_no_version_of_a_file_is_read(self, repo: ConversationRepository, talk: str) -> None:
        answer = repo.reply(FILE, talk, "bob", "One.").message
        repo.edit(FILE, answer, "bob", "Two.", trailers={"Understudy-Lesson": "4"})
        rewrite(repo, "First.", "Last.")
        moved = repo.move(FILE, answer, None, "mo", title="Cake")
        repo.delete(FILE, moved.message, "bob")
        blobs = git(repo.root, "rev-list", "--objects", "--all", "--", FILE).splitlines()
        for name in (line.split()[0] for line in blobs if line.endswith(f" {FILE}")):
            (repo.root / ".git" / "objects" / name[:2] / name[2:]).unlink()
        acts = list(ConversationRepository.open(repo.root).changes())
        assert [(act.author, act.operation, act.message) for act in acts] == [
            ("ann", "start", talk),
            ("bob", "reply", answer),
            ("bob", "edit", answer),
            ("Gil", None, None),
            ("mo", "move", moved.message),
            ("bob", "delete", moved.message),
        ]
        assert acts[2].trailers["Understudy-Lesson"] == "4" and acts[4].moved == moved.moved
        assert {act.file for act in acts} == {FILE}


class TestMerges:
    """What a merge commit did is only what none of its parents had."""

    def test_both_sides_and_a_resolution(self, repo: ConversationRepository, talk: str) -> None:
        answer = repo.reply(FILE, talk, "bob", "Base.").message
        other = repo.reply(FILE, talk, "bob", "Other.").message
        git(repo.root, "switch", "-qc", "side")
        repo.edit(FILE, answer, "eve", "Theirs.")
        theirs = repo.reply(FILE, talk, "eve", "New of theirs.").message
        repo.delete(FILE, other, "bob")
        git(repo.root, "switch", "-q", "main")
        repo.edit(FILE, answer, "ann", "Ours.")
        before = repo.read(FILE).text
        subprocess.run(
            ["git", "-C", str(repo.root), "merge", "-q", "--no-commit", "-s", "ours", "side"], check=True
        )
        merged = git_show(repo, "side").replace("Theirs.", "Ours and theirs.")
        (repo.root / FILE).write_text(merged + "\n  - @mia [2026-01-01T00:00:00Z]: The merger's.\n")
        git(repo.root, "add", FILE)
        git(repo.root, "commit", "-qm", "merge")
        change = list(repo.changes())[-1]
        assert change.author == "Gil" and change.before_text == before
        assert change.after_text == (repo.root / FILE).read_text()
        assert [message.body for message in change.added] == ["The merger's."]
        assert [(old.body, new.body) for old, new in change.edited] == [("Ours.", "Ours and theirs.")]
        assert change.removed == ()
        assert theirs in {message.id for message in repo.read(FILE).messages}
        assert bodies(repo, answer)[-1] == ("Gil", "Ours and theirs.")
        assert sorted(bodies(repo, answer)[1:-1]) == [("ann", "Ours."), ("eve", "Theirs.")]


def git_show(repo: ConversationRepository, branch: str) -> str:
    return subprocess.run(
        ["git", "-C", str(repo.root), "show", f"{branch}:{FILE}"], capture_output=True, text=True, check=True
    ).stdout
