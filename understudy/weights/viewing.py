"""A history to look at: commits, hashes, and the tensors of any commit."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from understudy.weights.chains import Chain
from understudy.weights.checkpoint import Checkpoint, FileStat, OpenTensors, digest
from understudy.weights.errors import HistoryBroken, UnknownCommit, WeightsMismatch
from understudy.weights.records import FilesState, Folder, WeightCommit, read_base, read_commits, read_thinned
from understudy.weights.recovery import locate

_ATTEMPTS = 20


class HistoryView:
    """The weight commits of one model directory, oldest first, read without changing anything.

    Works beside the process that writes them: what it holds open stays as it is.
    """

    checkpoint: Checkpoint

    def __init__(self, directory: Path) -> None:
        """Raises HistoryBroken when this is no model directory, or its files are of no commit."""
        self.directory = directory
        self._folder = Folder.of(directory)
        self._commits: list[WeightCommit] = []
        self._state: FilesState | None = None
        self._cumulative: Path | None = None
        self._look()

    @property
    def commits(self) -> tuple[WeightCommit, ...]:
        return tuple(self._commits)

    @property
    def head(self) -> str | None:
        """The id of the newest commit; None before the first."""
        return self._commits[-1].id if self._commits else None

    @property
    def synced(self) -> str | None:
        """The commit that the directory's own files hold; None: the model as it came."""
        return self._state.commit if self._state else None

    @property
    def pending(self) -> tuple[WeightCommit, ...]:
        """The commits that the files do not hold yet."""
        return tuple(self._commits[self._number(self.synced) :])

    def check(self, names: Iterable[str]) -> None:
        """Raises WeightsMismatch unless every tensor of the files is among `names`."""
        missing = sorted(set(self.checkpoint.names) - set(names))
        if missing:
            raise WeightsMismatch(
                f"expected tensors for {missing[:4]} and {len(missing)} in all, which the files hold; the "
                "loaded model has none of that name, so what it learns could not be written back"
            )

    def commit_of(self, session: str) -> WeightCommit | None:
        """The commit that a training session made, if it made one."""
        return next((c for c in self._commits if c.session == session), None)

    def find(self, prefix: str) -> WeightCommit:
        """The commit whose id starts with `prefix`; raises UnknownCommit unless there is exactly one."""
        found = [c for c in self._commits if c.id.startswith(prefix)]
        if len(found) != 1 or not prefix:
            known = ", ".join(c.id for c in self._commits[-5:]) or "none yet"
            raise UnknownCommit(
                f"expected the id of one weight commit, {prefix!r} fits {len(found)}; newest: {known}"
            )
        return found[0]

    def delta_file(self, commit: str) -> Path:
        """Where a commit's delta lies."""
        return self._folder.delta(self.find(commit).id)

    def hashes_at(self, commit: str | None) -> Mapping[str, str]:
        """SHA-256 of every tensor at a commit, as recorded; None: of the model as it came."""
        if commit is not None:
            return self.find(commit).tensors
        return read_base(self._folder) if self._commits else {}

    # ------------------------------------------------------------------ tensors

    def tensors_at(self, commit: str | None) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor as it was at a commit, one at a time; None: as the model came.

        Each is checked against its recorded hash. Raises UnknownCommit, also when its deltas were given
        up, and HistoryBroken when something is damaged.
        """
        number = 0 if commit is None else self.find(commit).number
        expected = self.hashes_at(commit)
        with self.reading() as files:
            chain = self.chain(number)
            for name in self.checkpoint.names:
                tensor = chain.lead(name, files.read(name))
                if expected and digest(tensor) != expected[name]:
                    raise HistoryBroken(
                        f"{name}: expected the bytes it had at {commit or 'the beginning'}, found others: "
                        f"a delta or a file of {self.directory} is damaged; run `understudy weights verify`"
                    )
                yield name, tensor

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the newest commit's tensors over the live ones, in place."""
        with torch.no_grad():
            for name, held in self.tensors_at(self.head):
                tensors[name].copy_(held)

    @contextmanager
    def reading(self) -> Iterator[OpenTensors]:
        """The directory's files, held open, and known to be of commit `synced`.

        Raises HistoryBroken when they were changed from outside.
        """
        for _ in range(_ATTEMPTS):
            with ExitStack() as stack:
                try:
                    files = stack.enter_context(self.checkpoint.reading())
                except FileNotFoundError:  # a sync put it away
                    self._look()
                    continue
                if self._state is None or files.stats() == self._state.files:
                    yield files
                    return
            self._look()
        raise HistoryBroken(
            f"expected {self.directory} to hold still while it is read: is someone copying into it?"
        )

    def chain(self, number: int) -> Chain:
        """The deltas between the files and commit `number` (0: before the first)."""
        thinned = read_thinned(self._folder)
        if number < thinned:
            raise UnknownCommit(
                f"expected one of the newest {len(self._commits) - thinned} commits or the one before them: "
                f"the deltas that led to {f'commit {number}' if number else 'the model as it came'} were "
                "given up by `understudy weights gc`"
            )
        if self._cumulative is not None and number == len(self._commits):
            return Chain.of([self._cumulative])
        low, high = sorted((self._number(self.synced), number))
        return Chain.of([self._folder.delta(commit.id) for commit in self._commits[low:high]])

    # ------------------------------------------------------------------ inside

    def _number(self, commit: str | None) -> int:
        return 0 if commit is None else next(c.number for c in self._commits if c.id == commit)

    def _look(self) -> None:
        """See again what the files and the records are, changed meanwhile by us elsewhere or by others.

        A writer may pass while we look: what does not fit together is an error only if nothing changed.
        """
        while True:
            before = self._glance()
            try:
                self.checkpoint = Checkpoint.open(self.directory)
                self._commits = list(read_commits(self.directory))
                self._state = locate(self.checkpoint, self._folder, self._commits)
                self._cumulative = None  # it led from where the files were
                return
            except (FileNotFoundError, HistoryBroken):
                if self._glance() == before:
                    raise

    def _glance(self) -> object:
        """What changes whenever a commit or a sync is made."""
        files = [*self.directory.glob("*.safetensors*"), *self._folder.commits.glob("*.json")]
        found = []
        for file in sorted(files):
            with suppress(FileNotFoundError):
                found.append((file, FileStat.of(file.stat())))
        return found
