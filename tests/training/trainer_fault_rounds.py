"""A program: sessions, restores and syncs of one trainer, which is killed at random points of them.

`python trainer_fault_rounds.py FOLDER POINTS SEED` prints what it found as JSON, after it has compared
everything with an undisturbed run of the same work.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

import torch
from process_forks import Nursery
from safetensors.torch import load_file

from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import EmbeddedEngine, write_miniature
from understudy.lessons import Example
from understudy.training import Launch, Restore, RunSession, TrainerHandle
from understudy.training.trainer import main as trainer_main
from understudy.weights import WeightCommit, read_commits

Kind = Literal["session", "restore", "sync"]
KINDS: tuple[Kind, ...] = ("session", "sync", "session", "restore", "sync")
WARM_UP = 5
"""Steps of work before the first kill, which tell how long each kind takes."""
BACK = 4
"""Restores go back at most so many commits: how far a chain leads is not what is tried here."""


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that the trainer is asked for. `back` commits, for a restore."""

    number: int
    kind: Kind
    back: int


@dataclass(slots=True)
class Stage:
    """A trainer, and what is known of its work."""

    directory: Path
    engine: EmbeddedEngine
    trainer: TrainerHandle
    base: Mapping[str, str]
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    seconds: dict[Kind, float] = field(default_factory=dict)


def hashes(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor's bytes."""
    return {
        name: hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, tensor in tensors.items()
    }


def check_directory(stage: Stage) -> None:
    """What any reader finds at this moment is the model of one commit, whole."""
    found = hashes(load_file(stage.directory / "model.safetensors"))
    known = [dict(stage.base), *(dict(commit.tensors) for commit in read_commits(stage.directory))]
    assert found in known, "the directory holds a mixture"


async def do(stage: Stage, work: Work) -> None:
    """One thing, until it is acknowledged."""
    began, name = time.perf_counter(), f"{work.kind}-{work.number}"
    if work.kind == "session":
        done = await stage.trainer.run(request(name, work.number))
        assert done.commit is not None
        stage.acknowledged.append((name, done.commit))
    elif work.kind == "restore":
        commits = read_commits(stage.directory)
        target = commits[-1 - work.back].id if work.back < len(commits) else None
        made = await stage.trainer.restore(Restore(name, target, "ada"))
        stage.acknowledged.append((name, made))
    else:
        synced = await stage.trainer.checkpoint(name)
        assert synced.commit == read_commits(stage.directory)[-1].id
    stage.seconds[work.kind] = time.perf_counter() - began


def request(session: str, number: int) -> RunSession:
    settings = TrainingSettings(lr=1e-3, gate=None, replay=0.0, epochs=3, rank=8)
    examples = tuple(
        Example(tuple(range(3 + i, 20 + i)), tuple(range(50 + (number + i) % 200, 56 + (number + i) % 200)))
        for i in range(2)
    )
    return RunSession(session, examples, (), settings.model_dump(mode="json"), session, "ada", (session,))


async def kill_within(stage: Stage, seconds: float) -> bool:
    """Kill the trainer after so long; False when it is not there then."""
    await asyncio.sleep(seconds)
    pid = stage.trainer.status.pid
    if pid is None:
        return False
    os.kill(pid, signal.SIGKILL)
    check_directory(stage)
    return True


async def staged(directory: Path, launch: Launch, works: list[Work], points: int, random: Random) -> Stage:
    """Do `works`, then go on with as many of random kinds as it takes to kill `points` times.

    What was done is added to `works`.
    """
    base = hashes(load_file(write_miniature(directory, "qwen3_5") / "model.safetensors"))
    log = directory.with_suffix(".log")
    with EmbeddedEngine(ModelSettings(), directory) as engine:
        trainer = TrainerHandle(engine.shared.manifest, directory, log_file=log, launch=launch)
        stage = Stage(directory, engine, trainer, base)
        await trainer.start()
        try:
            for work in works:
                await do(stage, work)
            killed: Counter[Kind] = Counter()
            while killed.total() < points:
                number = len(works)
                work = Work(number, KINDS[number % len(KINDS)], random.randint(1, BACK))
                works.append(work)
                delay = random.uniform(0.0, 1.2 * stage.seconds.get(work.kind, 0.1))
                killing = asyncio.create_task(kill_within(stage, delay))
                usual = dict(stage.seconds)
                await do(stage, work)
                if killing.done() and killing.result():
                    killed[work.kind] += 1
                    stage.seconds = usual  # as long as it takes undisturbed
                else:
                    killing.cancel()
                check_directory(stage)
            print(json.dumps({"killed": killed, "deaths": trainer.status.deaths}))
            await trainer.checkpoint("last")
            live = hashes(dict(engine.shared.tensors))
        finally:
            await trainer.close()
    newest = read_commits(directory)[-1]
    assert hashes(load_file(directory / "model.safetensors")) == dict(newest.tensors) == live
    return stage


def compare(disturbed: Stage, undisturbed: Stage) -> list[WeightCommit]:
    """Nothing acknowledged is lost or doubled, and every commit is what it is without a kill, to the bit."""
    commits, twins = read_commits(disturbed.directory), read_commits(undisturbed.directory)
    assert [(c.session, c.id) for c in commits] == disturbed.acknowledged
    assert [c.session for c in commits] == [c.session for c in twins]
    for commit, twin in zip(commits, twins, strict=True):
        assert commit.tensors == twin.tensors, commit.session
    return list(commits)


def play(folder: Path, points: int, seed: int) -> None:
    """The whole program. The nursery comes first: it is forked before torch has threads."""
    nursery = Nursery(trainer_main)
    works = [Work(number, KINDS[number], 1) for number in range(WARM_UP)]
    disturbed = asyncio.run(staged(folder / "model", nursery.launch, works, points, Random(seed)))
    undisturbed = asyncio.run(staged(folder / "twin", nursery.launch, works, 0, Random(seed)))
    commits = compare(disturbed, undisturbed)
    print(json.dumps({"works": len(works), "commits": len(commits)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
