"""Syncs: only dirty blocks, never a half-written file under a reader, one writer, and disks that are full."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_history import INDEX, LAYOUTS, commit, moved, same, stored, tensors

from understudy.weights import (
    HistoryBroken,
    HistoryBusy,
    StorageFailed,
    WeightHistory,
    owned,
    teaching,
    verify_history,
)
from understudy.weights.disk import Disk, DiskFile

BLOCK = 4096
STRIDE = 1 if int(os.environ.get("UNDERSTUDY_FAULT_POINTS", "40")) >= 200 else 5
"""Which operations fail: every one, or every fifth."""


@pytest.fixture(params=sorted(LAYOUTS))
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    LAYOUTS[request.param](tmp_path)
    return tmp_path


def large(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.{n}": torch.randn(64, 1024, generator=generator) for n in range(8)}


def test_only_dirty_blocks_are_written(tmp_path: Path) -> None:
    save_file(large(), tmp_path / "model.safetensors")
    history, live = WeightHistory.open(tmp_path), large()
    header = int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little") + 8
    for seed in (1, 2):  # twice: the first sync makes the spare, and each spare is one generation behind
        live = {n: t + seed if n == "layer.3" else t for n, t in live.items()}
        commit(history, live, f"{seed}")
        whole = history.sync()
        assert same(stored(tmp_path), live)
    assert whole.blocks_total == -(-(tmp_path / "model.safetensors").stat().st_size // BLOCK)
    start = header + 3 * live["layer.3"].nbytes
    touched = (start + live["layer.3"].nbytes - 1) // BLOCK - start // BLOCK + 1
    assert whole.blocks_written == touched
    assert whole.bytes_written == live["layer.3"].nbytes

    live["layer.5"] = live["layer.5"].clone()
    live["layer.5"].view(-1)[7] += 1
    commit(history, live, "one number")
    assert history.sync().blocks_written == touched + 1, "the spare also lacks what the sync before brought"
    live["layer.5"].view(-1)[7] += 1
    commit(history, live, "the same number again")
    assert history.sync().blocks_written == 1
    assert same(stored(tmp_path), live)


def test_shards_that_did_not_change_stay_as_they_are(tmp_path: Path) -> None:
    LAYOUTS["shards"](tmp_path)
    history, live = WeightHistory.open(tmp_path), tensors()
    before = {file.name: file.stat() for file in tmp_path.glob("*.safetensors")}
    for step in range(3):
        live = {**live, "d": live["d"] + 1}
        commit(history, live, f"{step}")
        assert len(history.sync().files) == 1
        assert same(stored(tmp_path), live)
        for file in ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"):
            now = (tmp_path / file).stat()
            assert (now.st_ino, now.st_mtime_ns) == (before[file].st_ino, before[file].st_mtime_ns)
    named = set(json.loads((tmp_path / INDEX).read_text())["weight_map"].values())
    WeightHistory.open(tmp_path)
    assert {file.name for file in tmp_path.glob("*.safetensors")} == named, (
        "no other generation is left beside"
    )
    assert json.loads((tmp_path / INDEX).read_text())["metadata"] == {"total_size": 1}


def test_what_leads_ahead_of_pending_commits_is_no_leftover(directory: Path) -> None:
    history, live = WeightHistory.open(directory), tensors()
    for by in (1, 2):
        commit(history, moved(live, by), f"{by}")
    assert history.pending[1:] and verify_history(directory, lambda done, of: None).leftovers == ()
    (directory / ".understudy" / "pending.new").touch()
    assert verify_history(directory, lambda done, of: None).leftovers == (".understudy/pending.new",)


def test_a_reader_who_holds_a_file_keeps_what_it_was(directory: Path) -> None:
    history, live = WeightHistory.open(directory), tensors()
    file = next(f for f in directory.glob("*.safetensors") if "d" in load_file(f))
    with safe_open(file, "pt") as reader:  # maps the file
        for step in range(4):
            live = {n: t + 1 for n, t in live.items()}
            commit(history, live, f"{step}")
            history.sync()
            assert torch.equal(reader.get_tensor("d"), tensors()["d"])
    assert same(stored(directory), live)


def test_a_file_with_a_second_name_is_not_written_through(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("blobs")
    for file in list(directory.glob("*.safetensors")):
        os.link(file, other / file.name)
    hub = tmp_path_factory.mktemp("hub")
    for file in directory.iterdir():
        if file.name == INDEX:
            shutil.copyfile(file, hub / file.name)
        else:
            (hub / file.name).symlink_to(other / file.name)
    originals = {file.name: file.read_bytes() for file in other.iterdir()}
    for folder in (directory, hub):
        history, live = WeightHistory.open(folder), stored(folder)
        for step in range(3):
            live = {n: t + 1 for n, t in live.items()}
            commit(history, live, f"{step}")
            history.sync()
            assert same(stored(folder), live)
        assert {file.name: file.read_bytes() for file in other.iterdir()} == originals


def test_whoever_loads_at_any_moment_finds_one_commit(directory: Path) -> None:
    generations = [tensors(seed) for seed in range(40)]
    done = threading.Event()
    wrong: list[object] = []
    loads = 0

    def read() -> None:
        nonlocal loads
        while not done.is_set():
            try:
                found = stored(directory)
            except FileNotFoundError:
                continue  # a shard of two generations ago: loud, and never a mixture
            except AssertionError as error:
                wrong.append(error)
                return
            loads += 1
            if not any(same(found, state) for state in generations):
                wrong.append(
                    {n: [i for i, g in enumerate(generations) if torch.equal(g[n], found[n])] for n in found}
                )

    thread = threading.Thread(target=read)
    thread.start()
    try:
        history = WeightHistory.open(directory)
        for number, state in enumerate(generations[1:]):
            commit(history, state, f"{number}")
            history.sync()
    finally:
        done.set()
        thread.join()
    assert loads and not wrong


def test_a_reader_of_the_history_beside_a_writer(directory: Path) -> None:
    generations = [tensors(seed) for seed in range(25)]
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            view = WeightHistory.view(directory)
            number = len(view.commits)
            if not same(dict(view.tensors_at(view.head)), generations[number]):
                wrong.append(number)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        history = WeightHistory.open(directory)
        for number, state in enumerate(generations[1:]):
            commit(history, state, f"{number}")
            if number % 2:
                history.sync()
    finally:
        done.set()
        thread.join()
    assert not wrong


def test_without_an_exchange_of_names_a_plain_rename_does(tmp_path: Path) -> None:
    class Old(Disk):
        def exchange(self, one: Path, other: Path) -> bool:
            return False

    LAYOUTS["single"](tmp_path)
    history = WeightHistory.open(tmp_path, disk=Old())
    for seed in (1, 2):
        commit(history, tensors(seed), f"{seed}")
        history.sync()
        assert same(stored(tmp_path), tensors(seed))


class FailingDisk(Disk):
    """Fails once, at the operation of that number."""

    def __init__(self, at: int) -> None:
        self.left = at

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, "Input/output error")

    @contextmanager
    def open(self, path: Path, *, fresh: bool, mode: int = 0o644) -> Iterator[DiskFile]:
        self._count()
        with super().open(path, fresh=fresh, mode=mode) as file:
            yield FailingFile(file, self)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def exchange(self, one: Path, other: Path) -> bool:
        self._count()
        return super().exchange(one, other)

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._count()
        super().sync_directory(path)


class FailingFile(DiskFile):
    def __init__(self, inner: DiskFile, disk: FailingDisk) -> None:
        self.path = inner.path
        self._inner = inner
        self._disk = disk

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._inner.write_at(offset, memoryview(data)[: len(data) // 2])
        self._disk._count()
        self._inner.write_at(offset, data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._inner.read_at(offset, size)

    def sync(self) -> None:
        self._disk._count()
        self._inner.sync()


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_an_error_at_any_operation_leaves_a_history_that_goes_on(layout: str, tmp_path: Path) -> None:
    """The same process goes on after the error: what it holds in memory is right as well."""
    at, failed = 0, True
    while failed:
        at += STRIDE
        directory = tmp_path / f"{at}"
        directory.mkdir()
        LAYOUTS[layout](directory)
        disk = FailingDisk(at)
        failed = _play(directory, disk)
        assert verify_history(directory, lambda done, of: None).problems == (), at
    assert at > 60


def _play(directory: Path, disk: FailingDisk) -> bool:
    """Commits and syncs, each tried again when it failed; False when there was nothing left to fail."""
    try:
        history = WeightHistory.open(directory, disk=disk)
    except StorageFailed:
        history = WeightHistory.open(directory, disk=disk)
    known: list[tuple[str | None, dict[str, torch.Tensor]]] = [(None, tensors())]
    files = tensors()
    for seed, sync in ((1, False), (2, True), (3, True), (4, False), (5, False), (6, True)):
        try:
            made = commit(history, tensors(seed), f"{seed}")
        except StorageFailed:
            assert history.head == known[-1][0]
            made = commit(history, tensors(seed), f"{seed}")
        known.append((made, tensors(seed)))
        if sync:
            try:
                history.sync()
            except StorageFailed:
                assert same(stored(directory), files) or same(stored(directory), tensors(seed))
                commit(history, tensors(seed + 100), f"{seed} more")  # with whatever state that left
                known.append((history.head, tensors(seed + 100)))
                history.sync()
            files = known[-1][1]
            assert same(stored(directory), files)
    for identity, state in known:
        assert same(dict(history.tensors_at(identity)), state)
    again = WeightHistory.open(directory)
    assert [c.id for c in again.commits] == [identity for identity, _ in known if identity]
    return disk.left <= 0


def test_a_change_that_keeps_size_and_time_is_found_by_reading_everything(directory: Path) -> None:
    history = WeightHistory.open(directory)
    commit(history, tensors(1))
    history.sync()
    file = directory / history.checkpoint.places["d"].file
    found = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x7f")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert any("in the files" in p for p in verify_history(directory, lambda done, of: None).problems)
    with pytest.raises(HistoryBroken, match="damaged"):
        list(history.tensors_at(history.head))


class TestOneWriter:
    """One server, and one trainer, for each model directory."""

    @pytest.mark.parametrize(("hold", "how"), [(owned, "served and taught"), (teaching, "being trained")])
    def test_a_second_one_is_told_who_is_first(
        self, tmp_path: Path, hold: Callable[..., object], how: str
    ) -> None:
        program = (
            "import sys; from pathlib import Path; from understudy.weights import owned, teaching\n"
            f"with {hold.__name__}(Path(sys.argv[1])): print('held', flush=True); input()"
        )
        first = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert first.stdin is not None and first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(HistoryBusy, match=rf"{how} by process {first.pid}"), hold(tmp_path):  # type: ignore[attr-defined]
            raise AssertionError("two writers")
        first.kill()
        first.wait()
        first.stdin.close()
        first.stdout.close()
        with hold(tmp_path):  # type: ignore[attr-defined]
            pass

    def test_the_next_one_waits_for_a_trainer_that_is_ending(self, tmp_path: Path) -> None:
        held = threading.Event()
        leave = threading.Event()

        def first() -> None:
            with teaching(tmp_path):
                held.set()
                leave.wait(30)

        thread = threading.Thread(target=first)
        thread.start()
        held.wait(30)
        threading.Timer(0.2, leave.set).start()
        with teaching(tmp_path, wait_seconds=30):
            assert leave.is_set()
        thread.join()


class TestFullDisk:
    """Real limits: nothing half there, and all goes on when there is room."""

    @staticmethod
    @contextmanager
    def limit(size: int) -> Iterator[None]:
        """No file of this process may grow beyond `size` bytes."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    @pytest.mark.parametrize("size", [0, 100, 900])
    def test_no_room_for_a_commit(self, directory: Path, size: int) -> None:
        history = WeightHistory.open(directory)
        for live, known in ((tensors(1), 0), (tensors(2), 1)):  # the first, and one with another pending
            files = sorted(directory.rglob("*"))
            with (
                self.limit(size),
                pytest.raises(StorageFailed, match=r"the weight commit could not be written"),
            ):
                commit(history, live)
            assert len(history.commits) == known
            assert sorted(directory.rglob("*.delta")) == [f for f in files if f.suffix == ".delta"]
            assert not list(directory.rglob("*.new"))
            made = commit(history, live)
            assert same(dict(history.tensors_at(made)), live)
        assert same(stored(directory), tensors())

    @pytest.mark.parametrize("size", [0, 2000, 8000])
    def test_no_room_for_a_sync(self, directory: Path, size: int) -> None:
        history = WeightHistory.open(directory)
        for seed in (1, 2, 3):
            before = stored(directory)
            made = commit(history, tensors(seed), f"{seed}")
            with self.limit(size), pytest.raises(StorageFailed, match="could not be written"):
                history.sync()
            assert same(stored(directory), before) and history.head == made
            assert same(dict(history.tensors_at(made)), tensors(seed))
            history.sync()
            assert same(stored(directory), tensors(seed))
        assert verify_history(directory, lambda done, of: None).problems == ()

    def test_a_small_disk_that_fills_up(self, tmp_path: Path) -> None:
        mount = shutil.which("mount")
        if mount is None or os.geteuid() != 0:
            pytest.skip("only root can mount a small disk; the limits above give the same errors")
        disk = tmp_path / "small"
        disk.mkdir()
        command = [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this system lets no one mount a small disk")
        try:
            self._fill(disk)
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def _fill(self, disk: Path) -> None:
        model = disk / "model"
        model.mkdir()
        state = {
            n: t[:12].clone() for n, t in large().items()
        }  # 393,216 bytes: two generations do not fit with more
        save_file(state, model / "model.safetensors")
        history = WeightHistory.open(model)
        failures = 0
        known = dict[str | None, dict[str, torch.Tensor]]({None: state})
        for seed in range(1, 12):
            live = {n: t + seed if n == f"layer.{seed % 8}" else t for n, t in state.items()}
            visible = stored(model)
            try:
                known[commit(history, live, f"{seed}")] = live
                visible = stored(model)
                history.sync()
                visible = live
            except StorageFailed as error:
                assert "No space left on device" in str(error)
                failures += 1
            assert same(stored(model), visible)
            for identity, expected in known.items():
                assert same(dict(history.tensors_at(identity)), expected)
        assert failures
        shutil.rmtree(model / ".understudy" / "spare")
        (model / ".understudy" / "spare").mkdir()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        history = WeightHistory.open(model)
        assert [c.id for c in history.commits] == [identity for identity in known if identity]
        assert same(stored(model), list(known.values())[-1])
        commit(history, state, "there is room again")
        history.sync()
        assert same(stored(model), state)
