"""Every operation is one commit that says what it did; asked twice it happens once; what was seen counts."""

import subprocess
import sys
from pathlib import Path

import pytest

from understudy.conversation import (
    Conflict,
    ConversationRepository,
    InvalidTrailer,
    KeyReused,
    Posted,
    Unchanged,
    UnknownMessage,
)

FILE = "conversations/talk.md"


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    ).stdout


def commits(repo: ConversationRepository) -> int:
    return int(git(repo.root, "rev-list", "--count", "HEAD"))


def trailer_lines(repo: ConversationRepository, commit: str) -> list[str]:
    return git(repo.root, "log", "-1", "--format=%(trailers:only,unfold)", commit).split("\n")[:-2]


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


@pytest.fixture
def talk(repo: ConversationRepository) -> Posted:
    """A thread 'Tea' with one message of ann's and a reply of bob's, and a thread 'Cake'."""
    first = repo.start(FILE, "Tea", "ann", "First.\n\nSecond.")
    repo.reply(FILE, first.message, "bob", "An answer.")
    repo.start(FILE, "Cake", "cid", "Crumbs.")
    return first


class TestEachIsOneCommit:
    """With the trailers that say what it did, and the ids that it changed."""

    def test_delete(self, repo: ConversationRepository, talk: Posted) -> None:
        answer = repo.read(FILE).message(talk.message).replies[0].id
        before = commits(repo)
        gone = repo.delete(FILE, answer, "bob", trailers={"Understudy-Lesson": "42"})
        assert commits(repo) == before + 1 and gone.message == answer
        assert trailer_lines(repo, gone.commit) == [
            "Understudy-Operation: delete",
            f"Understudy-Message: {answer}",
            f"Understudy-Parent: {talk.message}",
            "Understudy-Lesson: 42",
        ]
        assert not repo.read(FILE).message(talk.message).replies
        with pytest.raises(UnknownMessage):
            repo.delete(FILE, answer, "bob")

    def test_delete_where_others_replied_keeps_the_replies(
        self, repo: ConversationRepository, talk: Posted
    ) -> None:
        repo.delete(FILE, talk.message, "ann")
        left = repo.read(FILE).message(talk.message)
        assert left.deleted and left.body == ""
        assert [reply.body for reply in left.replies] == ["An answer."]

    def test_move(self, repo: ConversationRepository, talk: Posted) -> None:
        before = commits(repo)
        moved = repo.move(FILE, talk.message, "Cake", "mia")
        doc = repo.read(FILE)
        message = doc.message(moved.message)
        assert commits(repo) == before + 1
        assert message.thread.title == "Cake" and message.replies[0].body == "An answer."
        assert moved.moved[talk.message] == moved.message and len(moved.moved) == 2
        assert set(moved.moved.values()) <= {other.id for other in doc.messages}
        lines = trailer_lines(repo, moved.commit)
        assert lines[:2] == ["Understudy-Operation: move", f"Understudy-Message: {moved.message}"]
        assert sorted(lines[2:]) == sorted(f"Understudy-Moved: {a} {b}" for a, b in moved.moved.items())
        change = list(repo.changes())[-1]
        assert change.moved == moved.moved
        assert change.trailers == repo.trailers(moved.commit) and "Understudy-Moved" not in change.trailers

    def test_move_to_a_new_thread(self, repo: ConversationRepository, talk: Posted) -> None:
        answer = repo.read(FILE).message(talk.message).replies[0].id
        moved = repo.move(FILE, answer, None, "mia", title="Biscuits")
        message = repo.read(FILE).message(moved.message)
        assert (message.thread.title, message.author, message.depth) == ("Biscuits", "bob", 0)

    def test_split(self, repo: ConversationRepository, talk: Posted) -> None:
        before = repo.read(FILE).message(talk.message).body
        new = repo.split(FILE, talk.message, 1, "On the second", "mia")
        doc = repo.read(FILE)
        opened = doc.message(new.message)
        assert (opened.thread.title, opened.author) == ("On the second", "mia")
        assert "> Second." in opened.body and f"#{talk.message}" in opened.body
        assert doc.message(talk.message).body == before
        assert repo.trailers(new.commit)["Understudy-Operation"] == "split"

    def test_rename(self, repo: ConversationRepository, talk: Posted) -> None:
        renamed = repo.rename(FILE, "Tea", "Green tea", "mia")
        doc = repo.read(FILE)
        assert [thread.title for thread in doc.threads] == ["Green tea", "Cake"]
        assert renamed.message == renamed.moved[talk.message] == doc.threads[0].messages[0].id
        with pytest.raises(Unchanged):
            repo.rename(FILE, "Green tea", "Green tea", "mia")

    def test_merge_threads(self, repo: ConversationRepository, talk: Posted) -> None:
        merged = repo.merge_threads(FILE, "Cake", "Tea", "mia")
        doc = repo.read(FILE)
        assert [thread.title for thread in doc.threads] == ["Tea"]
        assert doc.message(merged.message).body == "Crumbs."
        assert git(repo.root, "status", "--porcelain") == ""
        assert git(repo.root, "fsck", "--strict") == ""


class TestKeys:
    """Asked again with the same key, nothing is said twice."""

    def test_the_first_answer_comes_again(self, repo: ConversationRepository, talk: Posted) -> None:
        first = repo.reply(FILE, talk.message, "bob", "Once.", key="k 1")
        repo.reply(FILE, talk.message, "ann", "In between.")
        before = commits(repo)
        assert repo.reply(FILE, talk.message, "bob", "Once.", key="k 1") == first
        assert ConversationRepository.open(repo.root).reply(FILE, "gone", "bob", "x", key="k 1") == first
        assert commits(repo) == before
        assert repo.trailers(first.commit)["Understudy-Key"] == "k 1"

    def test_every_operation_takes_one(self, repo: ConversationRepository, talk: Posted) -> None:
        first = talk.message

        def ask() -> list[Posted]:
            return [
                repo.start(FILE, "New", "ann", "x", key="a"),
                repo.post(FILE, "New", "ann", "y", key="b"),
                repo.reply(FILE, first, "ann", "z", key="c"),
                repo.edit(FILE, first, "ann", "Other.\n\nWords.", key="d"),
                repo.split(FILE, first, 0, "Part", "ann", key="e"),
                repo.rename(FILE, "Cake", "Pie", "ann", key="f"),
                repo.merge_threads(FILE, "Pie", "New", "ann", key="g"),
                repo.move(FILE, first, "New", "ann", key="h"),
                repo.delete(FILE, repo.read(FILE).messages[0].id, "ann", key="i"),
            ]

        once = ask()
        text, count = repo.read(FILE).text, commits(repo)
        assert ask() == once
        assert (repo.read(FILE).text, commits(repo)) == (text, count)

    def test_another_process_knows_it(self, repo: ConversationRepository, talk: Posted) -> None:
        program = (
            "import sys; from understudy.conversation import ConversationRepository as R;"
            "print(R.open(sys.argv[1]).reply(sys.argv[2], sys.argv[3], 'bob', 'Once.', key='k').commit)"
        )
        command = [sys.executable, "-c", program, str(repo.root), FILE, talk.message]
        said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
        assert said[0] == said[1]
        assert repo.reply(FILE, talk.message, "bob", "Once.", key="k").commit == said[0].strip()

    @pytest.mark.parametrize("damage", ["deleted", "garbage", "a folder in its place"])
    def test_what_is_remembered_beside_the_history_can_go(
        self, repo: ConversationRepository, talk: Posted, damage: str
    ) -> None:
        first = repo.reply(FILE, talk.message, "bob", "Once.", key="k")
        repo.reply(FILE, talk.message, "bob", "x", key="other")
        path = repo.root / ".understudy" / "keys.sqlite"
        for file in path.parent.glob("keys.sqlite*"):
            file.unlink()
        if damage == "garbage":
            path.write_bytes(b"no database" * 100)
        elif damage == "a folder in its place":
            path.mkdir()
        for _ in range(2):
            assert repo.reply(FILE, talk.message, "bob", "Once.", key="k") == first

    def test_a_key_from_a_history_that_was_undone_is_free(
        self, repo: ConversationRepository, talk: Posted
    ) -> None:
        before = repo.head()
        repo.reply(FILE, talk.message, "bob", "Once.", key="k")
        git(repo.root, "reset", "-q", "--hard", before)
        again = repo.reply(FILE, talk.message, "bob", "Once.", key="k")
        assert repo.head() == again.commit and len(repo.read(FILE).messages) == 4

    def test_a_key_is_for_one_thing(self, repo: ConversationRepository, talk: Posted) -> None:
        repo.reply(FILE, talk.message, "bob", "Once.", key="k")
        before = repo.head()
        with pytest.raises(KeyReused, match=r"reply in .* by bob"):
            repo.reply(FILE, talk.message, "ann", "Mine.", key="k")
        with pytest.raises(KeyReused):
            repo.edit(FILE, talk.message, "bob", "Mine.", key="k")
        for wrong in ("", " k", "k\nUnderstudy-Operation: edit", "k" * 201):
            with pytest.raises(InvalidTrailer):
                repo.reply(FILE, talk.message, "bob", "x", key=wrong)
        assert repo.head() == before


class TestWhatTheCallerSaw:
    """Unrelated changes are built upon; a change of the same message is a conflict with both texts."""

    def test_a_delete_of_what_has_changed_is_a_conflict(
        self, repo: ConversationRepository, talk: Posted
    ) -> None:
        seen = repo.head()
        repo.edit(FILE, talk.message, "ann", "Reworded.")
        with pytest.raises(Conflict) as caught:
            repo.delete(FILE, talk.message, "mia", expected_revision=seen)
        assert (caught.value.seen, caught.value.current) == ("First.\n\nSecond.", "Reworded.")
        with pytest.raises(Conflict):
            repo.split(FILE, talk.message, 1, "T", "mia", expected_revision=seen)
        assert len(repo.read(FILE).threads) == 2

    def test_a_message_that_moved_is_found(self, repo: ConversationRepository, talk: Posted) -> None:
        seen = repo.head()
        answer = repo.read(FILE).message(talk.message).replies[0].id
        repo.move(FILE, talk.message, "Cake", "mia")
        renamed = repo.rename(FILE, "Cake", "Pie", "mia")
        with pytest.raises(UnknownMessage):
            repo.edit(FILE, answer, "bob", "x")
        edited = repo.edit(FILE, answer, "bob", "Better.", expected_revision=seen)
        assert edited.message in renamed.moved.values()
        assert repo.read(FILE).message(edited.message).body == "Better."
        said = repo.reply(FILE, talk.message, "bob", "Here.", expected_revision=seen)
        assert repo.read(FILE).message(said.message).thread.title == "Pie"
        with pytest.raises(Conflict):
            repo.edit(FILE, answer, "bob", "Late.", expected_revision=seen)
