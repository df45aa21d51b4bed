"""Many processes speak in one conversation, some are killed: what was acknowledged is there, once."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

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
