"""Many processes speak in one conversation, some are killed: what was acknowledged is there, once."""

import os
import random
import selectors
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from understudy.conversation import ConversationRepository

FILE = "conversations/talk.md"
WRITER = """
import sys
from understudy.conversation import ConversationRepository
repo = ConversationRepository.open(sys.argv[1])
for number in range(int(sys.argv[4])):
    posted = repo.reply("conversations/talk.md", sys.argv[2], sys.argv[3], f"{sys.argv[3]} {number}")
    print(posted.commit, posted.message, flush=True)
"""


def writer(root: Path, to: str, name: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(root), to, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_eight_processes_say_twenty_five_things_each(tmp_path: Path) -> None:
    repo = ConversationRepository.create(tmp_path / "workspace")
    root = repo.start(FILE, "T", "ann", "x").message
    writers = [writer(repo.root, root, f"w{number}", 25) for number in range(8)]
    said = [process.communicate(timeout=240) for process in writers]
    assert [process.returncode for process in writers] == [0] * 8, said
    bodies = [message.body for message in repo.read(FILE).messages[0].replies]
    assert Counter(bodies) == Counter(f"w{name} {number}" for name in range(8) for number in range(25))
    for name in range(8):
        assert [body for body in bodies if body.startswith(f"w{name} ")] == [
            f"w{name} {n}" for n in range(25)
        ]
    acknowledged = {line.split()[1] for out, _ in said for line in out.splitlines()}
    assert acknowledged == {message.id for message in repo.read(FILE).messages[0].replies}
    assert len({change.commit for change in repo.changes()}) == 201


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    repo = ConversationRepository.create(tmp_path / "workspace")
    root = repo.start(FILE, "T", "ann", "x").message
    writers = [writer(repo.root, root, f"w{number}", 10_000) for number in range(3)]
    acknowledged: list[str] = []
    for number, process in enumerate(writers):
        assert process.stdout is not None and process.stderr is not None
        acknowledged += [process.stdout.readline().split()[1] for _ in range(5 * (number + 1))]
        process.kill()
        acknowledged += [line.split()[1] for line in process.stdout if line.endswith("\n")]
        process.wait(timeout=60)
        process.stdout.close()
        process.stderr.close()
    last = repo.reply(FILE, root, "ann", "after")
    there = [message.id for message in repo.read(FILE).walk()]
    assert len(there) == len(set(there))
    assert set(acknowledged) <= set(there) and last.message in there
    assert {change.author for change in repo.changes()} <= {"ann", "w0", "w1", "w2"}, (
        "a crash is no hand edit"
    )
    bodies = [message.body for message in repo.read(FILE).messages[0].replies]
    assert len(bodies) == len(set(bodies))
    fsck = subprocess.run(["git", "-C", str(repo.root), "fsck"], capture_output=True, text=True, check=False)
    assert fsck.returncode == 0, fsck.stderr


STUBBORN = """
import sys
from understudy.conversation import ConversationRepository
root, to, name, begin, end = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
repo = ConversationRepository.open(root)
for number in range(begin, end):
    repo.reply("conversations/talk.md", to, name, f"{name} {number}", key=f"{name} {number}")
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""
WRITERS = 16
MESSAGES = int(os.environ.get("UNDERSTUDY_WRITERS_MESSAGES", "12"))
"""What each of them says; the full run is 100."""

LIMIT_SECONDS = 120 + 8 * MESSAGES


class Crowd:
    """Writers that are killed at random and come again, each with what was not acknowledged."""

    def __init__(self, root: Path, to: str, chance: random.Random) -> None:
        self.root, self.to, self.chance = root, to, chance
        self.acknowledged = {f"w{number}": 0 for number in range(WRITERS)}
        self.kills = 0
        self.waiting = selectors.DefaultSelector()
        for name in self.acknowledged:
            self.begin(name)

    def begin(self, name: str) -> None:
        command = [sys.executable, "-c", STUBBORN, str(self.root), self.to, name]
        command += [str(self.acknowledged[name]), str(MESSAGES)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        self.waiting.register(process.stdout, selectors.EVENT_READ, (name, process))

    def run(self, seconds: float) -> None:
        """Until all has been said and acknowledged."""
        deadline = time.monotonic() + seconds
        while self.waiting.get_map():
            assert time.monotonic() < deadline, f"acknowledged so far: {self.acknowledged}"
            for key, _ in self.waiting.select(timeout=1):
                self._hear(*key.data)

    def _hear(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        if line := process.stdout.readline():
            assert int(line) == self.acknowledged[name]
            self.acknowledged[name] += 1
            if self.chance.random() < 0.1:
                process.kill()
                self.kills += 1
            return
        self.waiting.unregister(process.stdout)
        process.stdout.close()
        killed = process.wait(timeout=60) != 0
        if killed or self.acknowledged[name] < MESSAGES:
            assert self.kills, "no writer fails that was not killed"
            self.begin(name)


@pytest.mark.timeout(LIMIT_SECONDS + 60)
def test_sixteen_writers_killed_at_random_say_everything_once(tmp_path: Path) -> None:
    repo = ConversationRepository.create(tmp_path / "workspace")
    root = repo.start(FILE, "T", "ann", "x").message
    crowd = Crowd(repo.root, root, random.Random(16))
    crowd.run(LIMIT_SECONDS)
    assert crowd.kills > WRITERS * MESSAGES // 40
    said = Counter(message.body for message in repo.read(FILE).messages[0].replies)
    assert said == Counter(f"w{name} {number}" for name in range(WRITERS) for number in range(MESSAGES))
    assert repo.reply(FILE, root, "ann", "after").message in {m.id for m in repo.read(FILE).messages}
    assert {change.author for change in repo.changes()} == {"ann", *crowd.acknowledged}
    fsck = subprocess.run(["git", "-C", str(repo.root), "fsck", "--strict"], capture_output=True, check=False)
    assert fsck.returncode == 0, fsck.stderr
    status = ["git", "-C", str(repo.root), "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, check=True).stdout == b""
