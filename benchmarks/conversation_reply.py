"""A reply into a long conversation, commit included, against `git commit` from the shell: ratios of one run.

    OMP_NUM_THREADS=1 python benchmarks/conversation_reply.py [--repeats 15] [--sizes 500 5000]

Both add the same words to copies of the same conversation, by turns; times are medians. Ours parses, checks
rights and structure, escapes, commits and writes the working file; for Git the words are put at the end of
the file unchecked, and that is not counted. Ours flushes to the disk what it acknowledges, which Git by
default does not, so Git is also measured with `core.fsync=all`; in memory flushing costs nobody anything.
"""

import argparse
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from understudy.conversation import ConversationRepository

FILE = "conversations/talk.md"
WORDS = ("tea", "cup", "blue", "green", "walk", "river", "stone", "light", "bring", "small", "large")
WORDS_IN_MESSAGE = 30
ANSWER = "An answer of a few words."


def conversation(messages: int, messages_in_thread: int) -> str:
    """Threads of nested messages; every seventh message begins anew at the thread's level."""
    chance = random.Random(messages)
    parts = []
    for number in range(messages):
        place = number % messages_in_thread
        if place == 0:
            parts.append(f"### Thread {number // messages_in_thread}\n")
        time_of_day = f"{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}"
        body = " ".join(chance.choices(WORDS, k=WORDS_IN_MESSAGE))
        parts.append(f"{'  ' * (place % 7)}- @p{number % 9} [2026-01-01T{time_of_day}Z]: {body}\n")
    return "\n".join(parts)


@dataclass(frozen=True)
class Times:
    """Medians, in milliseconds."""

    ours: float
    git: float
    git_flushing: float
    fresh: float
    """Ours where this process has not read the conversation before."""


def reply_seconds(repo: ConversationRepository, target: str) -> float:
    begun = time.perf_counter()
    repo.reply(FILE, target, "bob", ANSWER)
    return time.perf_counter() - begun


def commit_seconds(copy: Path, number: int, *options: str) -> float:
    with (copy / FILE).open("a") as file:
        file.write(f"\n- @bob [2026-02-01T00:{number // 60:02d}:{number % 60:02d}Z]: {ANSWER}\n")
    identity = ("-c", "user.name=bob", "-c", "user.email=bob@example.org")
    begun = time.perf_counter()
    subprocess.run(["git", "-C", str(copy), *identity, *options, "commit", "-qam", "reply"], check=True)
    return time.perf_counter() - begun


def measure(folder: Path, messages: int, messages_in_thread: int, repeats: int) -> Times:
    root, git, flushing, fresh = (folder / name for name in ("ours", "git", "flushing", "fresh"))
    repo = ConversationRepository.create(root)
    repo.add(FILE, conversation(messages, messages_in_thread), "ann")
    target = repo.read(FILE).messages[messages // 2].id
    for copy in (git, flushing, fresh):
        shutil.copytree(root, copy)
    reply_seconds(repo, target)
    rows = [
        (
            reply_seconds(repo, target),
            commit_seconds(git, number),
            commit_seconds(flushing, number, "-c", "core.fsync=all"),
            reply_seconds(ConversationRepository.open(fresh), target),
        )
        for number in range(repeats)
    ]
    checked = subprocess.run(["git", "-C", str(root), "fsck", "--strict"], capture_output=True, check=False)
    if checked.returncode:
        raise SystemExit("git fsck finds faults in what was written: the times mean nothing")
    return Times(*(statistics.median(column) * 1e3 for column in zip(*rows, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 1000, 2000, 5000, 10000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on a disk")
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    places = [("disk", arguments.folder)] + ([("memory", memory)] if memory.is_dir() else [])
    shapes = [(size, min(size, 50)) for size in arguments.sizes]
    shapes.append((max(arguments.sizes), max(arguments.sizes)))
    print(f"{'':8}{'messages':>9}{'in thread':>10}{'reply':>9}{'git':>9}{'flushing':>9}{'fresh':>9}   ratios")
    for place, folder in places:
        for messages, messages_in_thread in shapes:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                times = measure(Path(scratch), messages, messages_in_thread, arguments.repeats)
            row = (times.ours, times.git, times.git_flushing, times.fresh)
            print(
                f"{place:8}{messages:9d}{messages_in_thread:10d}"
                + "".join(f"{value:9.1f}" for value in row)
                + f"   {times.ours / times.git:.2f} of git, {times.ours / times.git_flushing:.2f} flushing"
            )


if __name__ == "__main__":
    main()
