"""A trainer that is killed, has no memory, has no disk, or finds another one at work: real processes."""

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch

from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import EmbeddedEngine, write_miniature
from understudy.lessons import Example
from understudy.training import (
    Adopt,
    Restore,
    RunSession,
    TrainerHandle,
    TrainerUnavailable,
    TrainingFailed,
)
from understudy.weights import WeightHistory, read_commits

POINTS = int(os.environ.get("UNDERSTUDY_FAULT_POINTS", "8")) * 7 // 10
"""How often the trainer is killed; the full run is 200, with those of tests/server/test_server_faults.py."""
ROUNDS = Path(__file__).with_name("trainer_fault_rounds.py")
EXAMPLES = tuple(Example(tuple(range(3 + i, 40 + i)), tuple(range(50 + i, 60 + i))) for i in range(3))
Scene = Callable[[EmbeddedEngine, TrainerHandle], Awaitable[None]]


def request(session: str, examples: tuple[Example, ...] = EXAMPLES, **settings: object) -> RunSession:
    chosen = TrainingSettings.model_validate({"lr": 1e-3, "gate": None, "replay": 0.0, **settings})
    return RunSession(session, examples, (), chosen.model_dump(mode="json"), "test", "ada")


@asynccontextmanager
async def staged(
    directory: Path, *, sync_seconds: float = 600.0, optimizer_states: int = 8
) -> AsyncIterator[tuple[EmbeddedEngine, TrainerHandle]]:
    log = directory.with_suffix(".log")
    with EmbeddedEngine(ModelSettings(), directory) as engine:
        trainer = TrainerHandle(
            engine.shared.manifest,
            directory,
            log_file=log,
            sync_seconds=sync_seconds,
            optimizer_states=optimizer_states,
        )
        await trainer.start()
        try:
            yield engine, trainer
        finally:
            await trainer.close()
            print(log.read_text())


def played(directory: Path, scene: Scene, **upkeep: float) -> None:
    async def play() -> None:
        async with staged(directory, **upkeep) as (engine, trainer):  # type: ignore[arg-type]
            await scene(engine, trainer)

    asyncio.run(play())


def copied(engine: EmbeddedEngine) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in engine.shared.tensors.items()}


def same(engine: EmbeddedEngine, tensors: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, tensors[name]) for name, tensor in engine.shared.tensors.items())


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.02)


@pytest.fixture
def hybrid(tmp_path: Path) -> Path:
    return write_miniature(tmp_path / "model", "qwen3_5")


# ---------------------------------------------------------------------- death


@pytest.mark.timeout(60 + 15 * POINTS)
def test_killed_anywhere_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    """In sessions, commits, restores and syncs; the program compares with an undisturbed run, bit for bit."""
    done = subprocess.run(
        [sys.executable, str(ROUNDS), str(tmp_path), str(POINTS), "1"],
        env={**os.environ, "PYTHONPATH": str(ROUNDS.parent.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout.splitlines()[0])
    assert sum(killed["killed"].values()) == POINTS == killed["deaths"]


# ---------------------------------------------------------------------- no memory


def test_without_memory_a_session_fails_and_the_trainer_lives_on(tmp_path: Path) -> None:
    directory = write_miniature(tmp_path / "model", "llama", context_length=40_000)

    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        first, live, pid = await trainer.run(request("first")), copied(engine), trainer.status.pid
        assert pid is not None
        free = resource.prlimit(pid, resource.RLIMIT_AS)
        room = _mapped_bytes(pid) + (128 << 20)
        resource.prlimit(pid, resource.RLIMIT_AS, (room, free[1]))
        long = Example((5,), tuple(range(10, 210)) * 150)
        with pytest.raises(TrainingFailed, match="memory"):
            await trainer.run(request("too long", (*EXAMPLES, long), batch_size=1))
        assert trainer.status.pid == pid and trainer.status.deaths == 0
        assert same(engine, live) and not engine.shared.dirty
        resource.prlimit(pid, resource.RLIMIT_AS, free)
        again = await trainer.run(request("again"))
        assert [commit.id for commit in read_commits(directory)] == [first.commit, again.commit]

    played(directory, scene)


def _mapped_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


# ---------------------------------------------------------------------- no disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk; the limited files below see the same errors")
    command = [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no one mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _fill(disk: Path, leave_bytes: int) -> Path:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - leave_bytes)))
    return ballast


def test_on_a_full_disk_a_session_fails_and_one_is_taken_up_when_there_is_room(small_disk: Path) -> None:
    directory = write_miniature(small_disk / "model", "qwen3_5")

    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        first = await trainer.run(request("first"))
        live = copied(engine)
        for leave_bytes in (0, 16 << 10, 64 << 10):
            ballast = _fill(small_disk, leave_bytes)
            with pytest.raises(TrainingFailed, match="space"):
                await trainer.run(request("second"))
            ballast.unlink()
            assert same(engine, live) and not engine.shared.dirty and trainer.status.deaths == 0
            assert [commit.id for commit in read_commits(directory)] == [first.commit]
        ballast = _fill(small_disk, 0)
        with pytest.raises(TrainingFailed, match="space"):
            await trainer.checkpoint("full")
        assert trainer.status.pending == 1 and trainer.status.sync_error is not None
        ballast.unlink()
        second = await trainer.run(request("second"))
        synced = await trainer.checkpoint("room")
        assert synced.commit == second.commit
        await until(lambda: trainer.status.phase == "idle")
        after = trainer.status
        assert after.sync_error is None and after.pending == 0

    played(directory, scene)


@pytest.mark.parametrize("limit", [0, 4096, 40_000])
def test_where_files_cannot_grow_a_session_fails_cleanly(hybrid: Path, limit: int) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        live, pid = copied(engine), trainer.status.pid
        assert pid is not None
        free = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, free[1]))
        with pytest.raises(TrainingFailed, match="large"):
            await trainer.run(request("first"))
        assert same(engine, live) and not engine.shared.dirty and not read_commits(hybrid)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, free)
        assert (await trainer.run(request("first"))).commit is not None
        assert trainer.status.deaths == 0

    played(hybrid, scene)


# ---------------------------------------------------------------------- two trainers


def test_a_second_trainer_of_one_model_directory_is_refused(hybrid: Path, tmp_path: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        second = TrainerHandle(engine.shared.manifest, hybrid, log_file=tmp_path / "second.log")
        try:
            with pytest.raises(TrainerUnavailable, match=f"trained by process {trainer.status.pid}"):
                await second.start()
        finally:
            await second.close()
        assert (await trainer.run(request("first"))).commit is not None

    played(hybrid, scene)


# ---------------------------------------------------------------------- the directory


def test_the_directory_follows_a_while_after_the_first_commit(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        done = await trainer.run(request("first"))
        await until(lambda: trainer.status.synced == done.commit)
        await until(lambda: trainer.status.phase == "idle")
        assert trainer.status.pending == 0 and trainer.status.unsynced_since is None
        last = trainer.status.last_sync
        assert last is not None and last.commit == done.commit and last.bytes_written > 0

    played(hybrid, scene, sync_seconds=0.0)


def test_commits_ride_along_until_they_are_due(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("first"))
        await until(lambda: trainer.status.phase == "idle" and trainer.status.pending == 1)
        since, due = trainer.status.unsynced_since, trainer.status.sync_due
        await trainer.run(request("second"))
        await until(lambda: trainer.status.phase == "idle" and trainer.status.pending == 2)
        assert trainer.status.unsynced_since == since, "the age is that of the oldest"
        assert due is not None and trainer.status.sync_due == pytest.approx(due, abs=0.01)
        assert trainer.status.synced is None

    played(hybrid, scene)
    view = WeightHistory.view(hybrid)
    assert not view.pending and view.synced == view.head, "the end of the server brings it up to date"


def test_told_to_end_in_a_session_a_trainer_undoes_it_and_saves_what_was_committed(hybrid: Path) -> None:
    made: list[str | None] = []

    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        made.append((await trainer.run(request("first"))).commit)
        live, begun = copied(engine), asyncio.Event()
        running = asyncio.create_task(
            trainer.run(request("endless", epochs=100_000), lambda step: begun.set())
        )
        await begun.wait()
        running.cancel()
        await trainer.close()
        assert same(engine, live) and not engine.shared.dirty

    async def play() -> None:
        with EmbeddedEngine(ModelSettings(), hybrid) as engine:
            trainer = TrainerHandle(engine.shared.manifest, hybrid)
            await trainer.start()
            await scene(engine, trainer)

    asyncio.run(play())
    view = WeightHistory.view(hybrid)
    assert [commit.id for commit in view.commits] == made == [view.synced]


def test_a_trainer_that_dies_before_it_speaks_holds_nobody_up(hybrid: Path) -> None:
    """A terminal's interrupt reaches server and trainer alike, also while the trainer still loads."""

    async def play() -> None:
        with EmbeddedEngine(ModelSettings(), hybrid) as engine:
            trainer = TrainerHandle(engine.shared.manifest, hybrid)
            starting = asyncio.create_task(trainer.start())
            await until(lambda: trainer.status.phase == "starting" and _children())
            starting.cancel()
            await asyncio.wait({starting})
            for child in _children():
                os.kill(child, 9)
            async with asyncio.timeout(60):
                await trainer.close()

    asyncio.run(play())


def _children() -> list[int]:
    """The trainers that this process started."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in found if b"understudy.training" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_weights_from_elsewhere_become_a_commit(hybrid: Path, tmp_path: Path) -> None:
    other = write_miniature(tmp_path / "other", "qwen3_5", seed=7)
    stranger = write_miniature(tmp_path / "stranger", "llama")

    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        live = copied(engine)
        with pytest.raises(TrainingFailed, match="expected"):
            await trainer.adopt(Adopt("a0", str(stranger), "Adopt a stranger", "ada"))
        assert same(engine, live) and not read_commits(hybrid)
        made = await trainer.adopt(Adopt("a1", str(other), "Adopt another", "ada"))
        assert made == await trainer.adopt(Adopt("a1", str(other), "Adopt another", "ada"))
        [commit] = read_commits(hybrid)
        assert (commit.id, commit.message) == (made, "Adopt another") and engine.shared.commit == made
        with EmbeddedEngine(ModelSettings(), other) as twin:
            assert same(engine, copied(twin))
        await trainer.restore(Restore("r", None, "ada"))
        assert same(engine, live)

    played(hybrid, scene)


def test_a_key_stands_for_one_request(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        import msgspec

        asked = msgspec.structs.replace(request("key"), digest="one")
        done = await trainer.run(asked)
        assert await trainer.run(asked) == done
        with pytest.raises(TrainingFailed, match="was committed for another request"):
            await trainer.run(msgspec.structs.replace(asked, digest="two"))
        assert len(read_commits(hybrid)) == 1

    played(hybrid, scene)
