"""Full disks, locks left behind, writers killed anywhere: a clear error or a commit, and nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from understudy.conversation import ConversationRepository, RepositoryBusy, RepositoryFailure
from understudy.conversation.store import GitStore, Person

FILE = "conversations/talk.md"
NOW = (datetime(2026, 11, 20, tzinfo=UTC),) * 2
LONG = "A line that zlib makes short. " * 2000

LIMITED = """
import json, logging, resource, sys
from understudy.conversation import ConversationError, ConversationRepository
root, to, limit, body, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.stdin.read(), int(sys.argv[4])
repo = ConversationRepository.open(root)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for number in range(count):
    try:
        said = repo.reply("conversations/talk.md", to, "bob", f"{number} {body}", key=f"k{number}").message
        print(json.dumps(["said", said]), flush=True)
    except ConversationError as error:
        print(json.dumps([type(error).__name__, str(error)]), flush=True)
"""


def fsck(root: Path) -> None:
    done = subprocess.run(
        ["git", "-C", str(root), "fsck", "--strict"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def status(root: Path) -> str:
    command = ["git", "-C", str(root), "status", "--porcelain"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


@pytest.fixture
def talk(repo: ConversationRepository) -> str:
    return repo.start(FILE, "Tea", "ann", "First.").message


def limited(root: Path, to: str, limit: int, body: str, count: int) -> list[list[str]]:
    """Speak in a process that may write no file longer than `limit` bytes: what a full disk looks like."""
    command = [sys.executable, "-c", LIMITED, str(root), to, str(limit), str(count)]
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestFullDisk:
    """At whatever place it shows."""

    @pytest.mark.parametrize("limit", [0, 40, 150, 400])
    def test_nothing_can_be_written(self, repo: ConversationRepository, talk: str, limit: int) -> None:
        before, text = repo.head(), repo.read(FILE).text
        noise = "".join(chr(33 + os.urandom(1)[0] % 90) for _ in range(2000))
        said = limited(repo.root, talk, limit, noise, 2)
        assert [kind for kind, _ in said] == ["RepositoryFailure"] * 2
        assert all("nothing was written" in message and "large" in message for _, message in said), said
        assert repo.head() == before and (repo.root / FILE).read_text() == text
        fsck(repo.root)
        repo.reply(FILE, talk, "bob", "after")
        assert [message.body for message in repo.read(FILE).messages] == ["First.", "after"]
        assert status(repo.root) == "" and {change.author for change in repo.changes()} == {"ann", "bob"}

    def test_the_commit_fits_and_the_working_file_does_not(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        """What was acknowledged stands in the history; the file follows when there is room."""
        said = limited(repo.root, talk, 20_000, LONG, 4)
        assert [kind for kind, _ in said] == ["said"] * 4
        assert (repo.root / FILE).stat().st_size < 20_000
        fsck(repo.root)
        after = repo.reply(FILE, talk, "ann", "room again").message
        there = [message.id for message in repo.read(FILE).messages]
        assert there == [talk, *(message for _, message in said), after]
        assert (repo.root / FILE).read_text() == repo.read(FILE).text and status(repo.root) == ""
        assert [change.author for change in repo.changes()] == ["ann", *["bob"] * 4, "ann"]

    def test_a_small_disk_fills_up(self, small_disk: Path) -> None:
        repo = ConversationRepository.create(small_disk / "workspace")
        first = repo.start(FILE, "Tea", "ann", "First.").message
        said, failures = list[str](), list[str]()
        for number in range(400):
            noise = "".join(chr(33 + byte % 90) for byte in os.urandom(3000))
            try:
                said.append(repo.reply(FILE, first, "bob", f"{number} {noise}", key=f"k{number}").message)
            except RepositoryFailure as error:
                failures.append(str(error))
                if len(failures) == 3:
                    break
        assert said and len(failures) == 3
        assert all("nothing was written" in failure and "space" in failure for failure in failures), failures
        fsck(repo.root)
        (small_disk / "ballast").unlink()
        for number in range(3):
            said.append(ConversationRepository.open(repo.root).reply(FILE, first, "bob", f"{number}").message)
        assert Counter(message.id for message in repo.read(FILE).messages) == Counter([first, *said])
        assert (repo.root / FILE).read_text() == repo.read(FILE).text and status(repo.root) == ""
        assert {change.author for change in repo.changes()} == {"ann", "bob"}
        fsck(repo.root)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes, one of them taken by a file that a test can remove."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk; the limited writers above see the same errors")
    command = [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no one mount a small disk")
    try:
        (disk / "ballast").write_bytes(bytes(1 << 20))
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class TestLocksLeftBehind:
    """A lock of a program that died: ours is found out and removed, another's is named."""

    DIES = """
import os, signal, sys
from understudy.conversation.store import GitStore
from pathlib import Path
store = GitStore(Path(sys.argv[1]))
with store.writing():
    for lock in sys.argv[2:]:
        (Path(sys.argv[1]) / ".git" / lock).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""

    @pytest.mark.parametrize("lock", ["index.lock", "refs/heads/main.lock", "HEAD.lock"])
    def test_of_a_writer_that_was_killed(self, repo: ConversationRepository, talk: str, lock: str) -> None:
        command = [sys.executable, "-c", self.DIES, str(repo.root), lock]
        done = subprocess.run(command, check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL and (repo.root / ".git" / lock).exists()
        repo.reply(FILE, talk, "bob", "x")
        assert not (repo.root / ".git" / lock).exists()
        assert status(repo.root) == "" and len(repo.read(FILE).messages) == 2

    def test_another_programs_lock_is_never_removed(self, repo: ConversationRepository, talk: str) -> None:
        lock = repo.root / ".git" / "refs" / "heads" / "main.lock"
        lock.touch()
        store = GitStore(repo.root)
        for _ in range(2):
            with store.writing(), pytest.raises(RepositoryBusy, match=r"main\.lock.*remove that"):
                store.commit({FILE: b"x"}, Person.named("a"), *NOW, "x\n", repo.head(), wait_seconds=0.02)
        assert lock.exists()

    def test_an_index_lock_stops_nobody_for_as_long_as_it_stands(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        lock = repo.root / ".git" / "index.lock"
        lock.touch()
        said = [repo.reply(FILE, talk, "bob", f"{number}").message for number in range(4)]
        assert [message.id for message in repo.read(FILE).messages] == [talk, *said]
        lock.unlink()
        repo.reply(FILE, talk, "bob", "unlocked")
        assert status(repo.root) == "" and [change.author for change in repo.changes()] == [
            "ann",
            *["bob"] * 5,
        ]


class TestWhatACrashLeaves:
    """The working file may be any number of commits behind; a person's work is still told from it."""

    def test_behind_by_several_commits(self, repo: ConversationRepository, talk: str) -> None:
        repo.reply(FILE, talk, "bob", "1")
        file, index = (repo.root / FILE).read_bytes(), (repo.root / ".git" / "index").read_bytes()
        for number in range(3):
            repo.reply(FILE, talk, "bob", f"more {number}")
        (repo.root / FILE).write_bytes(file)
        (repo.root / ".git" / "index").write_bytes(index)
        repo.reply(FILE, talk, "bob", "last")
        assert len(repo.read(FILE).messages) == 6
        assert {change.author for change in repo.changes()} == {"ann", "bob"}

    def test_the_index_behind_the_file_behind_the_commit(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        index = (repo.root / ".git" / "index").read_bytes()
        repo.reply(FILE, talk, "bob", "1")
        file = (repo.root / FILE).read_bytes()
        repo.reply(FILE, talk, "bob", "2")
        (repo.root / FILE).write_bytes(file)
        (repo.root / ".git" / "index").write_bytes(index)
        repo.reply(FILE, talk, "bob", "3")
        assert [message.body for message in repo.read(FILE).messages] == ["First.", "1", "2", "3"]
        assert {change.author for change in repo.changes()} == {"ann", "bob"}

    @pytest.mark.parametrize("damage", [b"", b"DIRC\0\0", b"\0" * 300])
    def test_an_index_that_a_power_cut_tore_is_made_again(
        self, repo: ConversationRepository, talk: str, damage: bytes
    ) -> None:
        repo.reply(FILE, talk, "bob", "1")
        path = repo.root / FILE
        path.write_text(path.read_text().replace("First.", "First, by hand."))
        (repo.root / ".git" / "index").write_bytes(damage)
        ConversationRepository.open(repo.root).reply(FILE, talk, "bob", "2")
        assert [message.body for message in repo.read(FILE).messages] == ["First, by hand.", "1", "2"]
        assert status(repo.root) == ""

    def test_an_old_version_that_a_person_brings_back_is_an_edit(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        old = repo.head()
        repo.reply(FILE, talk, "bob", "1")
        repo.reply(FILE, talk, "bob", "2")
        subprocess.run(
            ["git", "-C", str(repo.root), "restore", f"--source={old}", "--worktree", FILE], check=True
        )
        repo.reply(FILE, talk, "bob", "3")
        assert [message.body for message in repo.read(FILE).messages] == ["First.", "3"]
        assert [change.author for change in repo.changes()] == ["ann", "bob", "bob", "hand", "bob"]
