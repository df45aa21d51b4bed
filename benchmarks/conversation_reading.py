"""Reading conversations: parsing against Markdown parsers, opening a large workspace, searching it.

    python benchmarks/conversation_reading.py [--megabytes 5] [--conversations 200] [--messages 500]

Parsing: one file of made-up talk. Every row gets the same text in the same run, turn by turn; time is the
least of the repeats. The peers parse all of Markdown and give a tree of blocks; we give messages, and read a
body when it is asked for, so a row that reads every body stands beside.

Opening and searching: a workspace of as many conversations, built in a temporary folder (RAM if there is
any). The index is compared with `git grep` over the same commit, and with reading every conversation.
"""

import argparse
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from markdown_it import MarkdownIt
from mistletoe.block_token import Document

from understudy.conversation import ConversationRepository, Index, parse

NESTING = 400
"""Ten times what the made-up talk needs: the peer's own limit of 20 would cut its work short."""

DEEPEST = 12
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = re.findall(
    r"\w+",
    """the of and to in is that it was for on are as with they be at one have this from by hot but some what
    there we can out other were all your when up use word how said an each she which do their time if will
    way about many then them would write like so these her long make thing see him two has look more
    kettle cup saucer blue mint coffee table guest morning window garden letter music question answer""",
)
RARE = "quokka"


def body(chance: random.Random, column: int) -> str:
    """A message's text: one to four paragraphs, now and then a list or some code."""
    indent = "\n" + " " * column
    parts = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.random()
        words = [chance.choice(WORDS) for _ in range(chance.randint(8, 60))]
        if kind < 0.08:
            lines = [" ".join(words[start : start + 6]) for start in range(0, len(words), 6)]
            parts.append(indent.join(["```", *lines, "```"]))
        elif kind < 0.16:
            parts.append(indent.join(f"- {' '.join(words[i : i + 9])}" for i in range(0, len(words), 9)))
        else:
            words[0] = f"*{words[0]}*" if kind < 0.3 else words[0]
            parts.append(" ".join(words))
    return f"\n{indent}".join(parts)


def talk(chance: random.Random, wanted: Callable[[int, int], bool]) -> str:
    """A conversation: threads of nested replies, while `wanted` says so of its messages and characters."""
    pieces: list[str] = []
    size = messages = depth = 0
    while wanted(messages, size):
        if messages % 40 == 0:
            pieces.append(f"### Thread {messages // 40}\n\n")
            depth = 0
        column = 2 * depth
        author = chance.choice(("ann", "bob", "carl", "understudy"))
        when = (BEGIN + timedelta(seconds=37 * messages)).strftime("%Y-%m-%dT%H:%M:%SZ")
        pieces.append(f"{' ' * column}- @{author} [{when}]: {body(chance, column + 2)}\n\n")
        size += len(pieces[-1])
        messages += 1
        depth = chance.randint(0, min(depth + 1, DEEPEST))
    return "".join(pieces)


def least(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each way: the least of its repeats, the ways taking turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def parsing(megabytes: float, repeats: int) -> None:
    text = talk(random.Random(0), lambda _, size: size < megabytes * 1e6)
    markdown = MarkdownIt("commonmark", {"maxNesting": NESTING})
    blocks = MarkdownIt("commonmark", {"maxNesting": NESTING})
    blocks.core.ruler.enableOnly(["normalize", "block"])
    ways: dict[str, Callable[[], object]] = {
        "understudy": lambda: parse(text),
        "understudy, every body read": lambda: sum(len(message.body) for message in parse(text).messages),
        "markdown-it-py": lambda: markdown.parse(text),
        "markdown-it-py, blocks alone": lambda: blocks.parse(text),
        "mistletoe": lambda: Document(text),
    }
    count = len(parse(text).messages)
    assert sum(token.type == "list_item_open" for token in markdown.parse(text)) >= count
    print(f"parsing {len(text.encode()) / 1e6:.1f} MB, {count} messages, least of {repeats}")
    seconds = least(ways, repeats)
    for name, took in seconds.items():
        print(f"  {name:<30} {took:8.3f} s   x{took / seconds['understudy']:.1f}")


@contextmanager
def workspace(conversations: int, messages: int) -> Iterator[ConversationRepository]:
    """A workspace with so much talk, one commit for each conversation."""
    ram = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=ram if ram.is_dir() else None) as folder:
        repository = ConversationRepository.create(Path(folder) / "workspace")
        for number in range(conversations):
            chance = random.Random(number)
            text = talk(chance, lambda count, _: count < messages)
            if number == conversations // 2:
                text = text.replace(" kettle ", f" {RARE} ", 1)
            repository.add(f"conversations/talk-{number:03}.md", text, "ann")
        yield repository


def once(name: str, act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    took = time.perf_counter() - begin
    print(f"  {name:<58} {took * 1000:10.1f} ms")
    return took


def opening_and_searching(conversations: int, messages: int, repeats: int) -> None:
    with workspace(conversations, messages) as repository:
        root = repository.root
        size = sum(path.stat().st_size for path in (root / "conversations").iterdir())
        many = f"{conversations} conversations, {conversations * messages} messages, {size / 1e6:.0f} MB"
        print(f"\na workspace of {many}")
        file = repository.files()[0]
        once("open it and list its conversations", lambda: ConversationRepository.open(root).files())
        once("open it and read one conversation", lambda: ConversationRepository.open(root).read(file))
        whole = once("open it and read them all", lambda: read_all(root))
        index = Index(repository)
        once("build the index from nothing", index.update)
        print(f"    the index takes {index.path.stat().st_size / 1e6:.0f} MB")
        once(
            "open it with an index that is up to date",
            lambda: Index(ConversationRepository.open(root)).update(),
        )
        once("newest 50 messages of all", index.recent)
        reply = repository.reply(
            file, repository.read(file).messages[-1].id, "bob", "A *zebra*, @ann."
        ).message
        once("follow one reply", index.update)
        once("what ann has not read: all that others said", lambda: index.unread("ann"))
        index.mark_read("ann")
        once("what ann has not read, when there is nothing", lambda: index.unread("ann"))
        once("resolve a permanent link", lambda: index.resolve(index.anchor(file, reply)))
        ways: dict[str, Callable[[], object]] = {}
        for query in (RARE, "kettle", '"blue mint"', "kettle saucer garden", "ket*"):
            ways[f"search {query}"] = lambda query=query: index.search(query)  # type: ignore[misc]
        ways[f"git grep {RARE}"] = lambda: grep(root, RARE)
        ways["git grep kettle"] = lambda: grep(root, "kettle")
        print(f"searching, least of {repeats}")
        for name, took in least(ways, repeats).items():
            print(f"  {name:<58} {took * 1000:10.1f} ms")
        print(f"  reading every conversation, as above{'':<23} {whole * 1000:10.1f} ms")


def read_all(root: Path) -> int:
    repository = ConversationRepository.open(root)
    return sum(len(repository.read(file).messages) for file in repository.files())


def grep(root: Path, word: str) -> None:
    command = ["git", "-C", str(root), "grep", "-i", "-w", "-c", word, "HEAD", "--", "conversations"]
    subprocess.run(command, capture_output=True, check=True)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--megabytes", type=float, default=5)
    options.add_argument("--conversations", type=int, default=200)
    options.add_argument("--messages", type=int, default=500)
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args()
    parsing(given.megabytes, given.repeats)
    opening_and_searching(given.conversations, given.messages, given.repeats)


if __name__ == "__main__":
    main()
