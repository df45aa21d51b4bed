"""Maintenance: the history takes little room, and nothing is lost to it, whoever speaks meanwhile."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from understudy.conversation import (
    ConversationRepository,
    RepositoryBusy,
    RepositoryFailure,
    maintain,
    maintain_when_due,
    maintenance,
    maintenance_due,
)

FILE = "conversations/talk.md"


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


@pytest.fixture
def talk(repo: ConversationRepository) -> str:
    return repo.start(
        FILE, "Tea", "ann", " ".join(str(number * 7919 % 10007) for number in range(3000))
    ).message


def fsck(root: Path) -> int:
    return subprocess.run(
        ["git", "-C", str(root), "fsck", "--strict"], capture_output=True, check=False
    ).returncode


def test_it_packs_what_messages_left(repo: ConversationRepository, talk: str) -> None:
    said = [repo.reply(FILE, talk, "bob", f"{number}").message for number in range(40)]
    done = maintain(repo)
    assert done.head == repo.head() and done.bytes_after < done.bytes_before / 3
    assert maintenance.loose_objects(repo) == 0
    assert (repo.git_folder / "objects" / "info" / "commit-graph").exists()
    assert [message.id for message in repo.read(FILE).messages] == [talk, *said]
    assert len(list(repo.changes())) == 41 and fsck(repo.root) == 0
    assert maintenance.last_maintained(repo) == done
    repo.reply(FILE, talk, "bob", "after")
    assert len(repo.history(FILE, talk)) == 1


def test_it_is_due_for_many_loose_objects_or_after_a_week(
    repo: ConversationRepository, talk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not maintenance_due(repo) and maintain_when_due(repo) is None
    done = maintain(repo)
    week_later = done.at + maintenance.LONGEST_SECONDS + 1
    assert not maintenance_due(repo, week_later), "nothing was said since"
    repo.reply(FILE, talk, "bob", "x")
    assert maintenance_due(repo, week_later) and not maintenance_due(repo, done.at + 60)
    monkeypatch.setattr(maintenance, "MOST_LOOSE_OBJECTS", 60)
    for number in range(40):
        repo.reply(FILE, talk, "bob", f"{number}")
    an_hour_later = done.at + maintenance.SHORTEST_SECONDS + 1
    assert maintenance_due(repo, an_hour_later)
    assert not maintenance_due(repo) and maintain_when_due(repo) is None, "it ran a moment ago"
    monkeypatch.setattr(maintenance, "SHORTEST_SECONDS", 0.0)
    assert maintain_when_due(repo) is not None
    assert not maintenance_due(repo)


def test_the_record_of_it_can_go(repo: ConversationRepository, talk: str) -> None:
    maintain(repo)
    record = repo.root / ".understudy" / "maintenance.json"
    for damage in ("", "{", "[]", '{"at": 1}'):
        record.write_text(damage)
        assert maintenance.last_maintained(repo) is None and not maintenance_due(repo)
    record.unlink()
    assert not maintenance_due(repo)


def test_it_runs_once_at_a_time_and_says_what_failed(
    repo: ConversationRepository, talk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import fcntl, sys; stream = open(sys.argv[1], 'ab'); fcntl.flock(stream, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(repo.root / ".understudy" / "maintenance.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(RepositoryBusy, match="runs already"):
            maintain(repo)
        holder.communicate()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RepositoryFailure, match="'git'"):
        maintain(repo)
    monkeypatch.undo()
    (repo.git_folder / "config").write_text("[core\n")
    with pytest.raises(RepositoryFailure, match="nothing was lost"):
        maintain(repo)


def test_people_speak_and_read_while_it_runs(repo: ConversationRepository, talk: str) -> None:
    said, failures, done = [talk], list[BaseException](), threading.Event()

    def speak() -> None:
        try:
            while not done.is_set():
                said.append(repo.reply(FILE, talk, "bob", f"{len(said)}").message)
                assert repo.read(FILE).messages[-1].id == said[-1]
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    speaker = threading.Thread(target=speak)
    speaker.start()
    for _ in range(3):
        maintain(repo)
    done.set()
    speaker.join()
    assert not failures and len(said) > 1
    fresh = ConversationRepository.open(repo.root)
    assert [message.id for message in fresh.read(FILE).messages] == said
    assert len(list(fresh.changes())) == len(said) and fsck(repo.root) == 0


def test_what_dead_writers_left_is_cleared(repo: ConversationRepository, talk: str) -> None:
    scratch = repo.root / ".understudy" / "scratch"
    old, new = scratch / "talk.md.1.1", scratch / "talk.md.2.2"
    for path in (old, new):
        path.write_text("half")
    subprocess.run(["touch", "-d", "3 days ago", str(old)], check=True)
    maintain(repo)
    assert not old.exists() and new.exists()
