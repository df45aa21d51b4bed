"""The trainer process, real ones: one weight copy, sessions that happen once, and death at any point."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch

from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import (
    Architecture,
    EmbeddedEngine,
    GenerationRequest,
    Sampling,
    ScoreRequest,
    write_miniature,
)
from understudy.lessons import Example
from understudy.training import (
    Finished,
    Restore,
    RunSession,
    Stepped,
    TrainerHandle,
    TrainerUnavailable,
    TrainingCancelled,
    TrainingFailed,
)
from understudy.weights import read_commits

EXAMPLES = tuple(
    Example(tuple(range(3 + i, 40 + i)), tuple(range(50 + i, 60 + i)), kept=bool(i % 2)) for i in range(4)
)


def request(session: str = "s1", *, dry_run: bool = False, **settings: object) -> RunSession:
    chosen = TrainingSettings.model_validate({"lr": 1e-3, "gate": None, "replay": 0.0, **settings})
    return RunSession(
        session, EXAMPLES, (), chosen.model_dump(mode="json"), "test", "ada", ("l1", "l2"), dry_run
    )


@asynccontextmanager
async def staged(directory: Path) -> AsyncIterator[tuple[EmbeddedEngine, TrainerHandle]]:
    """An engine and its trainer; the trainer's log is shown when a test fails."""
    log = directory.with_suffix(".log")
    with EmbeddedEngine(ModelSettings(), directory) as engine:
        trainer = TrainerHandle(engine.shared.manifest, directory, log_file=log)
        await trainer.start()
        try:
            yield engine, trainer
        finally:
            await trainer.close()
            print(log.read_text())


def played(directory: Path, scene: Callable[[EmbeddedEngine, TrainerHandle], Awaitable[None]]) -> None:
    async def play() -> None:
        async with staged(directory) as (engine, trainer):
            await scene(engine, trainer)

    asyncio.run(play())


def copied(engine: EmbeddedEngine) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in engine.shared.tensors.items()}


def digest(directory: Path) -> str:
    return hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()


async def saved(trainer: TrainerHandle, directory: Path) -> str:
    """The digest of the model's file once it is up to date."""
    await trainer.checkpoint("checkpoint")
    return digest(directory)


def mean_loss(engine: EmbeddedEngine, example: Example) -> float:
    ids = (*example.context_ids, *example.continuation_ids)
    [score] = engine.score([ScoreRequest(ids, ((len(example.context_ids), len(ids)),))])
    return -sum(score.logprobs[0]) / len(score.logprobs[0])


KINDS: tuple[Architecture, ...] = ("llama", "qwen3", "qwen3_5")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NOISE = {"fp32": 1e-4, "bf16": 0.05}
"""What reading a context in one go or in two does to a loss of about 7 nats."""


@pytest.fixture
def hybrid(tmp_path: Path) -> Path:
    return write_miniature(tmp_path / "model", "qwen3_5")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_engine_trainer_and_a_fresh_load_agree_and_the_weights_go_back(
    tmp_path: Path, kind: Architecture, dtype: str
) -> None:
    directory = write_miniature(tmp_path / "model", kind, dtype=DTYPES[dtype])

    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        original, live = digest(directory), copied(engine)
        before = [mean_loss(engine, example) for example in EXAMPLES]
        steps: list[Stepped] = []
        done = await trainer.run(request(), steps.append)
        after = [mean_loss(engine, example) for example in EXAMPLES]
        assert [o.loss_before for o in done.outcomes] == pytest.approx(before, abs=NOISE[dtype])
        assert [o.loss_after for o in done.outcomes] == pytest.approx(after, abs=NOISE[dtype])
        assert sum(after) < sum(before) - 0.01
        assert [s.step for s in steps] == [1, 2, 3, 4]
        assert engine.shared.step == 4 and not engine.shared.dirty
        assert engine.shared.commit == done.commit

        assert digest(directory) == original, "a commit is a delta: the files follow later"
        synced = await trainer.checkpoint("c1")
        assert synced.commit == done.commit and synced.files == ("model.safetensors",)
        with EmbeddedEngine(ModelSettings(), directory) as fresh:
            assert [mean_loss(fresh, e) for e in EXAMPLES] == after
        [commit] = read_commits(directory)
        assert commit.id == done.commit
        assert (commit.session, commit.lessons, commit.author) == ("s1", ("l1", "l2"), "ada")
        assert commit.details["settings"]["lr"] == 1e-3
        assert not {"commit", "update_norm"} & commit.details["result"].keys(), "the record itself says them"

        await trainer.restore(Restore("r1", None, "ada"))
        assert all(torch.equal(t, live[n]) for n, t in engine.shared.tensors.items())
        assert await saved(trainer, directory) == original
        await trainer.restore(Restore("r2", done.commit, "ada"))
        assert [mean_loss(engine, example) for example in EXAMPLES] == after

    played(directory, scene)


def test_an_answer_after_a_commit_comes_from_the_new_weights(hybrid: Path) -> None:
    """Nothing computed for the same prompt before it is used again: there is no cache across requests."""
    asked = GenerationRequest((EXAMPLES[0].context_ids,), Sampling(max_tokens=8, temperature=0.0, logprobs=0))

    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        before = engine.complete(asked)
        assert engine.complete(asked) == before
        done = await trainer.run(request(epochs=5))
        after = engine.complete(asked)
        assert after != before
        await trainer.checkpoint("c")
        with EmbeddedEngine(ModelSettings(), hybrid) as fresh:
            assert fresh.complete(asked) == after
        await trainer.restore(Restore("r", None, "ada"))
        assert engine.complete(asked) == before and done.commit is not None

    played(hybrid, scene)


def test_there_is_no_second_copy_of_the_weights(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        maps = Path(f"/proc/{trainer.status.pid}/maps").read_text()
        assert str(engine.shared.directory / "weights.bin") in maps
        with torch.no_grad():
            for tensor in engine.shared.tensors.values():
                tensor.zero_()
        done = await trainer.run(request(dry_run=True))
        vocabulary = engine.model.config.vocab_size
        uniform = torch.tensor(vocabulary).log().item()
        assert done.outcomes[0].loss_before == pytest.approx(uniform, rel=1e-5)

    played(hybrid, scene)


def test_a_dry_run_changes_nothing(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        before, live = digest(hybrid), copied(engine)
        done = await trainer.run(request(dry_run=True))
        assert done.commit is None and len(done.losses) == len(EXAMPLES)
        assert await saved(trainer, hybrid) == before
        assert all(torch.equal(t, live[n]) for n, t in engine.shared.tensors.items())
        assert not read_commits(hybrid)

    played(hybrid, scene)


def test_a_session_that_was_committed_is_not_run_again(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        first = await trainer.run(request())
        state = copied(engine)
        again = await trainer.run(request())
        assert all(torch.equal(t, state[n]) for n, t in engine.shared.tensors.items())
        assert len(read_commits(hybrid)) == 1
        assert again.outcomes == first.outcomes and again.commit == first.commit

    played(hybrid, scene)


def test_the_weights_go_back_bit_for_bit_and_forth(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        original, live = digest(hybrid), copied(engine)
        done = await trainer.run(request())
        taught = await saved(trainer, hybrid)
        await trainer.restore(Restore("r1", None, "ada"))
        assert await saved(trainer, hybrid) == original
        assert all(torch.equal(t, live[n]) for n, t in engine.shared.tensors.items())
        await trainer.restore(Restore("r2", done.commit, "ada"))
        assert await saved(trainer, hybrid) == taught
        with pytest.raises(TrainingFailed, match="'nonsense' fits 0"):
            await trainer.restore(Restore("r3", "nonsense", "ada"))

    played(hybrid, scene)


def test_a_session_that_fails_puts_the_weights_back(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        live = copied(engine)
        bad = RunSession("bad", (*EXAMPLES, Example((1,), (10**6,))), (), request().settings, "", "ada")
        with pytest.raises(TrainingFailed, match="expected token ids from 0 to"):
            await trainer.run(bad)
        assert all(torch.equal(t, live[n]) for n, t in engine.shared.tensors.items())
        assert not engine.shared.dirty
        assert (await trainer.run(request("good"))).commit is not None

    played(hybrid, scene)


def test_cancelling_puts_the_weights_back(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        before = digest(hybrid)
        live = copied(engine)
        cancelling: list[asyncio.Task[None]] = []

        def on_step(step: Stepped) -> None:
            if step.step == 2:
                cancelling.append(asyncio.create_task(trainer.cancel("long")))

        with pytest.raises(TrainingCancelled, match="was cancelled"):
            await trainer.run(request("long", epochs=500), on_step)
        assert cancelling
        assert await saved(trainer, hybrid) == before
        assert all(torch.equal(t, live[n]) for n, t in engine.shared.tensors.items())
        assert (await trainer.run(request("long"))).commit is not None, "the same id may be asked for again"


def test_replies_to_a_caller_who_gave_up_reach_nobody_else(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        begun = asyncio.Event()
        first = asyncio.create_task(trainer.run(request("first", epochs=20), lambda step: begun.set()))
        await begun.wait()
        first.cancel()
        second = await trainer.run(request("second"))
        assert second.session == "second"
        assert [commit.session for commit in read_commits(hybrid)] == ["first", "second"]
        assert second.commit == read_commits(hybrid)[-1].id

    played(hybrid, scene)


@pytest.mark.parametrize("at_step", [1, 3])
def test_a_trainer_killed_in_a_session_is_replaced_and_the_session_happens_once(
    hybrid: Path, tmp_path: Path, at_step: int
) -> None:
    """The killed run equals an undisturbed one to the bit: nothing of the first attempt stayed."""
    twin = write_miniature(tmp_path / "twin", "qwen3_5")
    assert digest(twin) == digest(hybrid)
    killed: list[int] = []

    async def undisturbed(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request(epochs=3))

    async def disturbed(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        def on_step(step: Stepped) -> None:
            pid = trainer.status.pid
            if step.step == at_step and not killed and pid is not None:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

        done: Finished = await trainer.run(request(epochs=3), on_step)
        assert done.commit is not None
        assert trainer.status.deaths == 1 and trainer.status.pid not in killed

    played(twin, undisturbed)
    played(hybrid, disturbed)
    assert killed
    assert len(read_commits(hybrid)) == 1
    assert digest(hybrid) == digest(twin)


def test_a_trainer_killed_right_after_its_commit_does_not_run_the_session_again(hybrid: Path) -> None:
    commits = hybrid / ".understudy" / "commits"

    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        first = trainer.status.pid
        assert first is not None

        def kill_at_the_record() -> None:
            while not list(commits.glob("*.json")):
                pass
            os.kill(first, signal.SIGKILL)

        killing = asyncio.create_task(asyncio.to_thread(kill_at_the_record))
        done = await trainer.run(request())
        await killing
        [commit] = read_commits(hybrid)
        assert done.commit == commit.id
        async with asyncio.timeout(60):
            while trainer.status.pid in (first, None):
                await asyncio.sleep(0.02)
        assert (await trainer.run(request())).commit == commit.id
        assert [mean_loss(engine, e) for e in EXAMPLES] == pytest.approx(
            [o.loss_after for o in done.outcomes], abs=1e-4
        )

    played(hybrid, scene)


def test_an_idle_trainer_that_dies_comes_back_by_itself(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        first = trainer.status.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(60):
            while trainer.status.pid in (first, None):
                await asyncio.sleep(0.02)
        assert (await trainer.run(request())).commit is not None

    played(hybrid, scene)


def test_a_trainer_that_keeps_dying_is_given_up_and_the_weights_are_whole(hybrid: Path) -> None:
    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        before = digest(hybrid)

        def on_step(step: Stepped) -> None:
            if trainer.status.pid is not None:
                os.kill(trainer.status.pid, signal.SIGKILL)

        with pytest.raises(TrainingFailed, match="died 3 times over session s1"):
            await trainer.run(request(epochs=50), on_step)
        assert digest(hybrid) == before
        assert [error.error for error in trainer.status.errors][-1].startswith("the trainer died 3 times")
        done = await trainer.run(request("later"))
        assert done.commit is not None
        assert [c.session for c in read_commits(hybrid)] == ["later"]

    played(hybrid, scene)


def test_a_trainer_whose_server_is_gone_ends(hybrid: Path, tmp_path: Path) -> None:
    program = f"""
import asyncio, os
from pathlib import Path
from understudy.config import ModelSettings
from understudy.engine import EmbeddedEngine
from understudy.training import TrainerHandle
async def play():
    engine = EmbeddedEngine(ModelSettings(), Path({str(hybrid)!r}))
    trainer = TrainerHandle(engine.shared.manifest, Path({str(hybrid)!r}))
    await trainer.start()
    Path({str(tmp_path / "pid")!r}).write_text(str(trainer.status.pid))
    os._exit(0)
asyncio.run(play())
"""

    async def play() -> None:
        import sys

        server = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        await server.wait()
        process = Path("/proc") / (tmp_path / "pid").read_text()
        async with asyncio.timeout(30):
            while process.exists() and "Z" not in (process / "stat").read_text().split(")")[-1].split()[0]:
                await asyncio.sleep(0.05)

    asyncio.run(play())


def test_a_trainer_that_cannot_start_says_why(hybrid: Path, tmp_path: Path) -> None:
    async def play() -> None:
        trainer = TrainerHandle(tmp_path / "nowhere.json", hybrid, log_file=tmp_path / "log")
        try:
            with pytest.raises(TrainerUnavailable, match="expected the manifest of shared weights"):
                await trainer.start()
        finally:
            await trainer.close()

    asyncio.run(play())


def test_moments_persist_over_sessions_and_restarts(hybrid: Path, tmp_path: Path) -> None:
    """Two sessions with a restart between them equal two sessions without."""
    twin = write_miniature(tmp_path / "twin", "qwen3_5")

    async def both(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("one"))
        await trainer.run(request("two"))

    async def one(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("one"))

    async def two(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("two"))

    played(twin, both)
    played(hybrid, one)
    played(hybrid, two)
    assert digest(hybrid) == digest(twin), "a trainer that ends brings the directory up to date"
