"""What goes with a session: the replay pool, and the probe set that its effect is measured on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from workspace_server import idle_service, small_workspace

from understudy.engine import encode_lesson
from understudy.lessons import ChatMessage, LedgerEntry, Lesson, Source
from understudy.server.preparation import Preparation
from understudy.server.training import TrainingService
from understudy.workspace import Rehearsal, Workspace


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingService]:
    with idle_service(small_workspace(tmp_path_factory.mktemp("preparation"))) as made:
        yield made


def learned(workspace: Workspace, context: tuple[ChatMessage, ...], chosen: str) -> LedgerEntry:
    source = Source("talk.md", "Tea", chosen, "", "maya", "")
    return workspace.ledger.propose(Lesson(context, chosen, "Coffee.", source)).entry


def test_replay_is_the_rehearsals_and_the_lessons_learned_before(service: TrainingService) -> None:
    preparation, tokenizer = service.preparation, service.engine.tokenizer
    rehearsals = preparation.replay()
    assert [(one.kept, one.learned) for one in rehearsals] == [(True, False), (False, False)]
    asked = (ChatMessage("user", "Which tea?"),)
    entry = learned(service.workspace, asked, "Mint.")
    silent = learned(service.workspace, (), "Mint, I say.")
    pool = preparation.replay([entry, silent])
    assert pool[:2] == rehearsals
    taught = encode_lesson(tokenizer, asked, "Mint.", "Coffee.")
    assert pool[2:] == (replace(taught, learned=True),), "what the template cannot carry is left out"
    assert preparation.replay([entry]) == pool, "encoded once, and the same"


def test_the_probe_is_the_same_each_time_and_as_large_as_asked(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    lines = [
        Rehearsal(
            (ChatMessage("user", f"Say {n}."), ChatMessage("assistant", f"{n}, of course.")), n % 3 == 0
        )
        for n in range(30)
    ]
    workspace = Workspace.create(
        tmp_path / "more", model=tmp_path / "miniature", copy_model=True, replay=lines, settings=""
    )
    with idle_service(workspace) as made:
        first = made.preparation
        whole = first.rehearsals()
        probe = first.probe(60)
        assert Preparation(workspace, made.engine).probe(60) == probe, "the same after a restart"
        tokens = [len(example.continuation_ids) for example in probe]
        assert sum(tokens) >= 60 > sum(tokens[:-1])
        assert [example.kept for example in probe[:4]] == [True, False, True, False]
        assert set(probe) < set(whole) and len(set(probe)) == len(probe)
        assert set(first.probe(10**6)) == set(whole)
        assert first.probe(0) == ()
