"""Many readers of one conversation while people write and the model speaks: does everyone see everything?

A real server, real connections. Every reader must be told of every message once, in the order of the history;
some lose their connection on the way and come back with the last event they saw. Memory is the server
process's resident set.

    python benchmarks/live_readers.py --readers 200 --writers 5 --messages 40
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

from understudy.access import Accounts, invite
from understudy.conversation import Right, write_participants
from understudy.demo.stage import served
from understudy.pocket import new_workspace
from understudy.workspace import Workspace

FILE, NAME, MODEL = "conversations/hall.md", "hall", "understudy"
PAUSE_SECONDS = 0.25
"""Between two messages of one writer: far quicker than hands."""
QUIET_SECONDS = 3.0
"""So long after the last message nothing more may come."""
RESTING_SECONDS = 5.0
MOST_LOOKS = 12
"""So often at most it is looked whether the server's memory stands still before anyone comes."""
SETTLING_SECONDS = 60.0
"""So long after the last was written everyone has to have seen everything."""


@dataclass
class Reader:
    """One connection and what came over it; with `drops` it is made anew after every tenth message."""

    drops: bool
    seen: list[str] = field(default_factory=list)
    arrived: dict[str, float] = field(default_factory=dict)
    last: str | None = None
    speeches: int = 0
    refreshed: int = 0
    connections: int = 0


@dataclass(frozen=True)
class Result:
    """What a run found. Delays are in seconds, from a message's acknowledgement to its arrival."""

    readers: int
    messages: int
    expected: tuple[str, ...]
    seen: tuple[tuple[str, ...], ...]
    refreshed: int
    speeches: int
    delays: tuple[float, ...]
    """Of readers who stay connected."""
    returning_delays: tuple[float, ...]
    """Of those who leave after every tenth message and come back."""
    memory_megabytes: tuple[float, ...]

    @property
    def wrong(self) -> int:
        """Readers who did not see every message once, in order."""
        return sum(seen != self.expected for seen in self.seen)


async def run(workspace: Workspace, url: str, pid: int, readers: int, writers: int, messages: int) -> Result:
    """Let them read and write, and gather what each saw."""
    accounts = Accounts(workspace.root, workspace.settings.access)
    tokens = [
        accounts.tokens.make(f"w{number}", "load", frozenset({"read", "talk"}), None)
        for number in range(writers)
    ]
    [first] = workspace.repository.read(FILE).messages
    head = workspace.repository.head()
    crowd = [Reader(drops=number % 4 == 0, last=head) for number in range(readers)]
    limits = httpx2.Limits(max_connections=None)
    await _at_rest(pid)
    memory = [_megabytes(pid)]
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        reading = [
            asyncio.create_task(_read(client, tokens[number % writers], reader))
            for number, reader in enumerate(crowd)
        ]
        await _until(lambda: all(reader.connections for reader in crowd))
        said: dict[str, float] = {}
        writing = [
            asyncio.create_task(_write(client, token, first.id, number, messages, said))
            for number, token in enumerate(tokens)
        ]
        while any(not task.done() for task in writing):
            memory.append(_megabytes(pid))
            await asyncio.sleep(0.5)
        await asyncio.gather(*writing)
        expected = await _settled(workspace, crowd)
        memory.append(_megabytes(pid))
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    steady, returning = (
        tuple(
            reader.arrived[one] - when
            for reader in crowd
            for one, when in said.items()
            if reader.drops == drops and one in reader.arrived
        )
        for drops in (False, True)
    )
    return Result(
        readers,
        len(expected),
        expected,
        tuple(tuple(reader.seen) for reader in crowd),
        sum(reader.refreshed for reader in crowd),
        sum(reader.speeches for reader in crowd),
        steady,
        returning,
        tuple(memory),
    )


async def _settled(workspace: Workspace, crowd: list[Reader]) -> tuple[str, ...]:
    """The messages in the order of the history, once no more come."""

    def order() -> tuple[str, ...]:
        changes = workspace.repository.changes(file=FILE)
        return tuple(message.id for change in changes for message in change.added)[1:]

    known, since, deadline = order(), time.monotonic(), time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < deadline and time.monotonic() - since < QUIET_SECONDS:
        await asyncio.sleep(0.25)
        now = order()
        if now != known or any(len(reader.seen) < len(now) for reader in crowd):
            known, since = now, time.monotonic()
    return known


async def _read(client: httpx2.AsyncClient, token: str, reader: Reader) -> None:
    """Follow the conversation."""
    while True:
        headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": reader.last or ""}
        async with client.stream("GET", f"/live/{NAME}", headers=headers, timeout=None) as answer:
            assert answer.status_code == 200, answer.status_code
            reader.connections += 1
            async for event, identity, data in _events(answer.aiter_lines()):
                reader.last = identity or reader.last
                reader.speeches += event == "speech"
                reader.refreshed += event == "refresh"
                told = json.loads(data) if event == "changes" else {}
                for one in told.get("added", ()):
                    reader.seen.append(one["id"])
                    reader.arrived[one["id"]] = time.monotonic()
                if reader.drops and told.get("added") and len(reader.seen) % 10 == 0:
                    break


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str | None, str]]:
    """Server-sent events: name, id, data."""
    event, identity, data = "message", None, ""
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "id":
            identity = value
        elif name == "data":
            data = value
        elif not line and data:
            yield event, identity, data
            event, identity, data = "message", None, ""


async def _write(
    client: httpx2.AsyncClient, token: str, first: str, number: int, messages: int, said: dict[str, float]
) -> None:
    """Say so many things, every eighth to the model."""
    for count in range(messages):
        mention = f"@{MODEL} " if count % 8 == 3 else ""
        answer = await client.post(
            "/do/reply",
            data={"file": FILE, "id": first, "body": f"{mention}Message {count} of writer {number}."},
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
        )
        assert answer.status_code == 200, answer.text
        said[answer.json()["message"]] = time.monotonic()
        await asyncio.sleep(PAUSE_SECONDS)


async def _until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not all readers were connected in time"
        await asyncio.sleep(0.05)


async def _at_rest(pid: int) -> None:
    """Wait until the server has done what it does once, at its start: its memory stands still."""
    for _ in range(MOST_LOOKS):
        before = _megabytes(pid)
        await asyncio.sleep(RESTING_SECONDS)
        if abs(_megabytes(pid) - before) < 0.01 * before:
            return


def _megabytes(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def prepare(folder: Path, writers: int) -> Workspace:
    """A workspace of the model that ships, with writers who may post much."""
    workspace = new_workspace(folder / "workspace")
    settings = workspace.root / "understudy.toml"
    settings.write_text(settings.read_text() + "\n[access]\nposts_per_minute = 1000000\n")
    repository = workspace.repository
    for number in range(writers):
        people = invite(repository.participants(), "maya", f"w{number}", "", (Right.POST,), MODEL)
        repository.set_participants(write_participants(people), "maya")
    repository.start(FILE, "The hall", "maya", "Let us talk.")
    return Workspace.open(workspace.root)


def measure(readers: int, writers: int, messages: int) -> Result:
    """Start a server and run."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = prepare(Path(folder), writers)
        with served(workspace) as client:
            address = workspace.server()
            assert address is not None
            return asyncio.run(run(workspace, client.url, address.pid, readers, writers, messages))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--writers", type=int, default=5)
    parser.add_argument("--messages", type=int, default=40, help="of each writer")
    given = parser.parse_args()
    result = measure(given.readers, given.writers, given.messages)
    print(f"{result.readers} readers, {result.messages} messages, {result.wrong} readers saw something else")
    print(f"reloads {result.refreshed}, events of the model speaking {result.speeches}")
    for name, delays in (("stay", result.delays), ("come back", result.returning_delays)):
        ordered = sorted(delays)
        print(
            f"delay where readers {name}: median {statistics.median(ordered):.3f} s, "
            f"95 % {ordered[int(0.95 * len(ordered))]:.3f} s, longest {ordered[-1]:.3f} s, n = {len(ordered)}"
        )
    memory = result.memory_megabytes
    fifth = max(1, len(memory) // 5)
    print(
        f"memory: {memory[0]:.0f} MB at the start, second fifth "
        f"{statistics.mean(memory[fifth : 2 * fifth]):.0f} MB, "
        f"last fifth {statistics.mean(memory[-fifth:]):.0f} MB"
    )


if __name__ == "__main__":
    main()
