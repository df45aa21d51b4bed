"""The record of dreams: a file of JSON Lines for each round, a batch to a line, each on disk before the next.

The first line says what the round is of, the last one that it is over. A round that was cut off has no last
line, perhaps half of one: what is whole is taken up, the half line is cut away. All chance in a round follows
from its first line and the number of the batch, so a round that was taken up is the one that it would have
been.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from understudy.behaviours.difficulty import Zone
from understudy.behaviours.rates import Rate
from understudy.behaviours.recombination import Material
from understudy.behaviours.scenarios import Scenario

Made = Literal["recombined", "paraphrased"]
Dropped = Literal["duplicate", "enough", "leak", "words lost", "not one turn", "too long", "no answer"]
"""Why a scenario was not asked, or did not count: asked before in nearly the same words; of a group that was
asked often enough; held out; a paraphrase without the words it had to keep; one that did not end, or went on
into the next turn; no room for an answer; an empty answer.
"""
Drops = Mapping[str, Mapping[Dropped, int]]
"""How many scenarios were dropped, by invariant and reason."""


class DreamError(RuntimeError):
    """A round that cannot be dreamed, or not be gone on with."""


class RoundBegun(msgspec.Struct, frozen=True, tag="round", tag_field="line"):
    """What a round is of. `known` has a digest of each invariant, whose held-out scenarios must not be met;
    `dreamed` names those that it is about. `material` is what was there when it began.
    """

    number: int
    weights: str
    budget: int
    seed: int
    zone: Zone
    dreamed: tuple[str, ...]
    known: dict[str, str]
    material: Material

    def same_as(self, other: "RoundBegun") -> bool:
        """Whether it is the same round, whatever was said since it began."""
        return msgspec.structs.replace(self, number=other.number, material=other.material) == other


class Dream(msgspec.Struct, frozen=True):
    """One scenario that was asked. `words` are those without which it would be another; `chosen` is what the
    model says under the instruction, if that will do.
    """

    invariant: str
    made: Made
    scenario: Scenario
    words: tuple[str, ...]
    rating: float
    answer: str
    shown: bool
    chosen: str = ""


class Batch(msgspec.Struct, frozen=True, tag="batch", tag_field="line"):
    """Scenarios that were asked together, by which edge and when; and what was dropped."""

    number: int
    edge: float
    at: str
    dreams: tuple[Dream, ...]
    dropped: dict[str, dict[Dropped, int]]

    @property
    def failed(self) -> Rate:
        """How many of them did not show the behaviour."""
        return Rate(sum(not one.shown for one in self.dreams), len(self.dreams))


class RoundEnded(msgspec.Struct, frozen=True, tag="end", tag_field="line"):
    """The round is over, and why."""

    why: Literal["budget spent", "nothing new", "weights moved"]


Line = RoundBegun | Batch | RoundEnded


class DreamLog:
    """A round on disk, and the scenarios that the rounds before it asked. `left` is the one before it where
    that was not over, but of other weights, settings or invariants.
    """

    def __init__(
        self,
        stream: BinaryIO,
        lines: Sequence[Line],
        earlier: Sequence[Scenario],
        left: RoundBegun | None = None,
    ) -> None:
        first, *rest = lines
        assert isinstance(first, RoundBegun), "a round is read from its beginning"
        self._stream, self.begun, self.earlier, self.left = stream, first, tuple(earlier), left
        self.batches = [line for line in rest if isinstance(line, Batch)]
        self.ended = next((line for line in rest if isinstance(line, RoundEnded)), None)

    @property
    def dreams(self) -> list[Dream]:
        """All that the round asked so far."""
        return [one for batch in self.batches for one in batch.dreams]

    def add(self, batch: Batch) -> None:
        """One batch more; on disk when this returns."""
        _write(self._stream, batch)
        self.batches.append(batch)

    def end(self, ended: RoundEnded) -> None:
        """Nothing comes after this."""
        _write(self._stream, ended)
        self.ended = ended


@contextmanager
def open_round(folder: Path, wanted: RoundBegun) -> Iterator[DreamLog]:
    """The newest round in a folder, if it is the one that is wanted and not over; else a new one.

    Raises DreamError while another process has a round of the folder open, and for a file that is no round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DreamError(f"expected no one else to dream in {folder}, another process does") from error
        rounds = [(file, lines) for file in sorted(folder.glob("[0-9]*.jsonl")) if (lines := _read(file))]
        number = 1 + max((int(file.stem) for file, _ in rounds), default=0)
        file, lines = folder / f"{number:04}.jsonl", list[Line]()
        newest = _unfinished(rounds[-1][1]) if rounds else None
        if newest is not None and newest.same_as(wanted):
            file, lines = rounds.pop()
            newest = None
        earlier = [one.scenario for _, old in rounds for line in old for one in _dreams(line)]
        with file.open("r+b" if file.exists() else "w+b") as stream:
            stream.truncate(sum(len(_encoded(line)) for line in lines))
            stream.seek(0, os.SEEK_END)
            if not lines:
                lines = [msgspec.structs.replace(wanted, number=number)]
                _write(stream, lines[0])
                _sync(folder)
            yield DreamLog(stream, lines, earlier, newest)


def _unfinished(lines: Sequence[Line]) -> RoundBegun | None:
    """What a round is of that is not over."""
    first, *rest = lines
    over = any(isinstance(line, RoundEnded) for line in rest)
    return first if isinstance(first, RoundBegun) and not over else None


def _dreams(line: Line) -> tuple[Dream, ...]:
    return line.dreams if isinstance(line, Batch) else ()


def _encoded(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _write(stream: BinaryIO, line: Line) -> None:
    stream.write(_encoded(line))
    stream.flush()
    os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(file: Path) -> list[Line]:
    """The whole lines of a round; none when it was cut off in its first. Raises DreamError."""
    whole, newline, _ = file.read_bytes().rpartition(b"\n")
    found: list[Line] = []
    for number, line in enumerate(whole.split(b"\n") if newline else (), start=1):
        try:
            found.append(msgspec.json.decode(line, type=Line))
        except msgspec.MsgspecError as error:
            raise DreamError(f"expected a round of dreams in {file}, line {number}: {error}") from error
    if found and not isinstance(found[0], RoundBegun):
        raise DreamError(f"expected {file} to begin with what the round is of, it does not")
    return found
