"""A disk that writes down what is done to it, and what a power cut may leave of that.

What was synced is there. Of everything else any part may be: each write whole, torn at 512-byte sectors,
or lost, whatever came later; each change of a name done or not, unless its directories were synced since.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from understudy.weights.disk import Disk, DiskFile

SECTOR_BYTES = 512


@dataclass(frozen=True)
class Write:
    """Bytes for a file, or its emptying."""

    file: int
    offset: int = 0
    data: bytes = b""
    empties: bool = False


@dataclass(frozen=True)
class Naming:
    """A change of names: create, rename, exchange, remove, folder."""

    kind: str
    names: tuple[Path, ...]
    file: int = 0


@dataclass(frozen=True)
class Synced:
    """A file's bytes (by number), or a directory's names."""

    file: int = -1
    directory: Path | None = None


Operation = Write | Naming | Synced


@dataclass
class Tree:
    """Names of files, by number, and their bytes."""

    names: dict[Path, int] = field(default_factory=dict)
    files: dict[int, bytearray] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)

    @classmethod
    def read(cls, root: Path) -> "Tree":
        tree = cls()
        for path in sorted(root.rglob("*")):
            if path.is_dir():
                tree.folders.add(path)
            else:
                tree.names[path] = len(tree.files)
                tree.files[len(tree.files)] = bytearray(path.read_bytes())
        return tree

    def copy(self) -> "Tree":
        return Tree(dict(self.names), {n: bytearray(b) for n, b in self.files.items()}, set(self.folders))

    def write(self, root: Path, target: Path) -> None:
        for folder in sorted(self.folders):
            (target / folder.relative_to(root)).mkdir(parents=True, exist_ok=True)
        for path, number in self.names.items():
            place = target / path.relative_to(root)
            if place.parent.is_dir():  # else its folder was lost, and it with that
                place.write_bytes(self.files[number])

    def name(self, change: Naming) -> None:
        names = change.names
        match change.kind:
            case "create":
                self.names[names[0]] = change.file
                self.files.setdefault(change.file, bytearray())
            case "rename" if names[0] in self.names:
                self.names[names[1]] = self.names.pop(names[0])
            case "exchange" if names[0] in self.names and names[1] in self.names:
                one, other = names
                self.names[one], self.names[other] = self.names[other], self.names[one]
            case "remove":
                self.names.pop(names[0], None)
            case "folder":
                self.folders.add(names[0])

    def put(self, write: Write, torn: random.Random | None = None) -> None:
        """`torn`: a part of the sectors, whichever."""
        held = self.files.setdefault(write.file, bytearray())
        if write.empties:
            held.clear()
        at = 0
        while at < len(write.data):
            size = min(SECTOR_BYTES - (write.offset + at) % SECTOR_BYTES, len(write.data) - at)
            if torn is None or torn.random() < 0.5:
                start = write.offset + at
                held.extend(bytes(max(0, start + size - len(held))))
                held[start : start + size] = write.data[at : at + size]
            at += size


class RecordingFile(DiskFile):
    def __init__(self, inner: DiskFile, number: int, log: list[Operation]) -> None:
        self.path = inner.path
        self._inner = inner
        self._number = number
        self._log = log

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._log.append(Write(self._number, offset, bytes(data)))
        self._inner.write_at(offset, data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._inner.read_at(offset, size)

    def sync(self) -> None:
        self._log.append(Synced(self._number))
        self._inner.sync()


class RecordingDisk(Disk):
    """The real disk; `log` is what was done to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before = Tree.read(root)
        self.log: list[Operation] = []
        self._now = self.before.copy()

    def _done(self, change: Naming) -> None:
        self.log.append(change)
        self._now.name(change)

    @contextmanager
    def open(self, path: Path, *, fresh: bool, mode: int = 0o644) -> Iterator[DiskFile]:
        with super().open(path, fresh=fresh, mode=mode) as file:
            if path not in self._now.names:
                number = len(self._now.files)
                self._now.files[number] = bytearray()
                self._done(Naming("create", (path,), number))
            elif fresh:
                self.log.append(Write(self._now.names[path], empties=True))
            yield RecordingFile(file, self._now.names[path], self.log)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._done(Naming("rename", (source, target)))

    def exchange(self, one: Path, other: Path) -> bool:
        assert super().exchange(one, other), "this file system can"
        self._done(Naming("exchange", (one, other)))
        return True

    def remove(self, path: Path) -> None:
        if path.exists():
            self._done(Naming("remove", (path,)))
        super().remove(path)

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        self._done(Naming("folder", (path,)))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.log.append(Synced(directory=path))

    def cut(self, after: int, chance: random.Random) -> Tree:
        """What may be found when the power went after so many operations."""
        tree = self.before.copy()
        done = self.log[:after]
        kept = chance.choice([0.0, 0.5, 0.5, 1.0])  # all that was not synced lost, some of it, none of it
        for place, operation in enumerate(done):
            later = done[place + 1 :]
            if isinstance(operation, Write):
                if any(isinstance(o, Synced) and o.file == operation.file for o in later):
                    tree.put(operation)
                elif chance.random() < kept:
                    tree.put(operation, chance if chance.random() < 0.7 else None)
            elif isinstance(operation, Naming):
                synced = {o.directory for o in later if isinstance(o, Synced)}
                certain = all(name.parent in synced for name in operation.names)
                if certain or chance.random() < kept:
                    tree.name(operation)
        return tree
