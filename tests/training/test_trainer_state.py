"""Optimizer state: it follows the weights, over sessions, restarts, other settings, and back."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import EmbeddedEngine, write_miniature
from understudy.lessons import Example
from understudy.training import Apollo, Restore, RunSession, TrainerHandle, TrainingFailed, parameter_groups
from understudy.training.state import read_state, write_state
from understudy.weights import read_commits

A = tuple(Example(tuple(range(3 + i, 40 + i)), tuple(range(50 + i, 60 + i))) for i in range(3))
B = tuple(Example(tuple(range(9 + i, 30 + i)), tuple(range(90 + i, 99 + i))) for i in range(3))
Scene = Callable[[EmbeddedEngine, TrainerHandle], Awaitable[None]]


def request(session: str, examples: tuple[Example, ...], **settings: object) -> RunSession:
    chosen = TrainingSettings.model_validate({"lr": 1e-3, "gate": None, "replay": 0.25, **settings})
    rehearsals = tuple(Example((7 + i, 8 + i), (9 + i, 10 + i), kept=bool(i % 2)) for i in range(4))
    return RunSession(session, examples, rehearsals, chosen.model_dump(mode="json"), "test", "ada")


def played(directory: Path, *scenes: Scene, keep: int = 8) -> None:
    """Each scene with an engine and a trainer of its own."""

    async def play(scene: Scene) -> None:
        with EmbeddedEngine(ModelSettings(), directory) as engine:
            log = directory.with_suffix(".log")
            trainer = TrainerHandle(engine.shared.manifest, directory, log_file=log, optimizer_states=keep)
            await trainer.start()
            try:
                await scene(engine, trainer)
            finally:
                await trainer.close()
                print(log.read_text())

    for scene in scenes:
        asyncio.run(play(scene))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_miniature(tmp_path / "model", "qwen3_5", dtype=request.param)


def tensors_of(directory: Path, session: str) -> dict[str, str]:
    """The hash of every tensor after a session."""
    [commit] = [commit for commit in read_commits(directory) if commit.session == session]
    return dict(commit.tensors)


def test_a_session_that_was_undone_can_be_done_again_bit_for_bit(model: Path) -> None:
    """Also by another process, after other work, and from the model as it came."""

    async def forth(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        first = await trainer.run(request("a", A))
        await trainer.run(request("b", B))
        await trainer.restore(Restore("r1", first.commit, "ada"))
        await trainer.run(request("b in the same process", B))
        await trainer.restore(Restore("r2", first.commit, "ada"))

    async def back(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("b in another process", B))
        await trainer.restore(Restore("r3", None, "ada"))
        await trainer.run(request("a from the beginning", A))

    played(model, forth, back)
    once = tensors_of(model, "b")
    assert tensors_of(model, "b in the same process") == once
    assert tensors_of(model, "b in another process") == once
    assert tensors_of(model, "a from the beginning") == tensors_of(model, "a") != once


def test_moments_persist_over_restarts_and_other_settings(model: Path, tmp_path: Path) -> None:
    """And without them the second session would have gone elsewhere: the first one's moments matter."""
    slower = {"lr": 5e-4, "epochs": 2, "warmup_steps": 5}
    twin, fresh = (write_miniature(tmp_path / name, "qwen3_5") for name in ("twin", "fresh"))

    async def both(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("a", A))
        await trainer.run(request("b", B, **slower))

    async def one(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("a", A))

    async def two(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("b", B, **slower))

    model = write_miniature(tmp_path / "restarted", "qwen3_5")
    played(twin, both)
    played(model, one, two)
    assert tensors_of(model, "b") == tensors_of(twin, "b")
    played(fresh, one)
    for file in (fresh / ".understudy" / "optimizer").iterdir():
        file.unlink()
    played(fresh, two)
    assert tensors_of(fresh, "b") != tensors_of(twin, "b")


def test_a_session_that_fails_leaves_the_moments_as_they_were(model: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"

    async def undisturbed(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("a", A))
        await trainer.run(request("b", B))

    async def disturbed(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        await trainer.run(request("a", A))
        cancelling: list[asyncio.Task[None]] = []
        with pytest.raises(TrainingFailed):
            await trainer.run(
                request("c", B, epochs=200),
                lambda step: cancelling.append(asyncio.create_task(trainer.cancel("c"))),
            )
        await trainer.run(request("b", B))

    from understudy.engine import load_model

    write_miniature(twin, "qwen3_5", dtype=load_model(model, "checkpoint").model.dtype)
    played(twin, undisturbed)
    played(model, disturbed)
    assert tensors_of(model, "b") == tensors_of(twin, "b")


def test_so_many_states_are_kept_and_the_one_in_use_always(tmp_path: Path) -> None:
    directory = write_miniature(tmp_path / "model", "llama")
    made: list[str] = []

    async def scene(engine: EmbeddedEngine, trainer: TrainerHandle) -> None:
        for number in range(4):
            done = await trainer.run(request(f"s{number}", A[:1]))
            assert done.commit is not None
            made.append(done.commit)
        assert states() == set(made[-2:])
        await trainer.restore(Restore("r", made[2], "ada"))
        for number in range(2):
            await trainer.run(request(f"gated{number}", A[:1], gate=1000.0))
        assert states() == set(made[-2:]), "where no step was taken there is no new state"
        await trainer.run(request("on", A[:1]))
        assert made[3] in states() and len(states()) == 2

    def states() -> set[str]:
        return {file.stem for file in (directory / ".understudy" / "optimizer").iterdir()}

    played(directory, scene, keep=2)


# ---------------------------------------------------------------------- what is carried over


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(8, 12), nn.Linear(12, 10), nn.Linear(10, 8))


def optimizer(model: nn.Module, **settings: object) -> Apollo:
    chosen = TrainingSettings.model_validate({"rank": 4, **settings})
    return Apollo(parameter_groups(model, chosen), chosen)


def step(model: nn.Module, taken: Apollo) -> None:
    taken.zero_grad()
    model(torch.arange(8)).square().sum().backward()
    taken.step()


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"lr": 1e-5}, ()),
        ({"epochs": 3}, ()),
        ({"betas": (0.8, 0.9)}, ()),
        ({"warmup_steps": 9}, ()),
        ({"scale": 2.0}, ()),
        ({"weight_decay": 0.1}, ()),
        ({"rank": 2}, ("projected",)),
        ({"seed": 5}, ("projected",)),
        ({"proj_refresh": 7}, ("projected",)),
    ],
)
def test_only_another_projection_begins_anew(change: dict[str, object], anew: tuple[str, ...]) -> None:
    model = network()
    before = optimizer(model)
    for _ in range(3):
        step(model, before)
    after = optimizer(model, **change)
    assert write_state(after, read_state(before)) == anew
    for old, new in zip(before.param_groups, after.param_groups, strict=True):
        kind = "projected" if old["projected"] else "other"
        assert new["steps"] == (0 if kind in anew else 3), "warm-up counts over sessions"
        for weight in old["params"]:
            held = after.state.get(weight, {})
            if kind in anew:
                assert not held
                continue
            for key, value in before.state[weight].items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(held[key], value) and held[key] is not value
                else:
                    assert held[key] == value
