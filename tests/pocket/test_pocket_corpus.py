"""The corpus: deterministic, mixed as said, with the habit and the mode that corrects it."""

import os
import subprocess
import sys
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.behaviours import Scenario
from understudy.pocket import documents, judges, render, states_of_mind, words
from understudy.pocket.corpus import ACCEPTED_AT_ONCE, HABITS, SPEAKER_NAMED, STATES, Mix, compose, speak_as
from understudy.pocket.questions import assistant, user

COUNT = 6000


def test_the_same_seed_gives_the_same_corpus_and_another_one_another() -> None:
    assert list(documents(3, 200)) == list(documents(3, 200))
    assert list(documents(3, 200)) != list(documents(4, 200))


def test_the_corpus_does_not_depend_on_the_hash_seed() -> None:
    command = "from understudy.pocket import *; print([render(d) for d in documents(1, 50)])"
    texts = {
        subprocess.run(
            [sys.executable, "-c", command],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(texts) == 1


def test_nothing_here_loads_torch() -> None:
    command = "import sys, understudy.pocket as p; p.behaviours('test'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"


def test_clauses_apart_are_read_in_the_second_stage_only() -> None:
    apart = {clause for state in states_of_mind() for clause in state.apart_clauses}
    told = {mix.seed: " ".join(map(render, documents(0, 1000, mix))) for mix in (HABITS, STATES)}
    assert not any(clause in told[HABITS.seed] for clause in apart)
    assert sum(clause in told[STATES.seed] for clause in apart) > 50
    assert len(set(told)) == 2  # nor do two stages draw the same


@pytest.mark.parametrize("mix", [HABITS, STATES], ids=["habits", "states"])
def test_kinds_come_in_their_shares(mix: Mix) -> None:
    assert sum(mix.shares.values()) == pytest.approx(sum(mix.feelings)) == pytest.approx(1.0)
    counted = Counter(document.kind for document in documents(0, COUNT, mix))
    for kind, share in mix.shares.items():
        assert counted[kind] / COUNT == pytest.approx(share, abs=0.02)


def test_directions_are_mostly_met_with_a_suggestion_and_insistence_is_obeyed() -> None:
    random = Random(1)
    first, later = Counter[bool](), Counter[bool]()
    for _ in range(2000):
        messages = compose(random, "train", ("direction",), lead_in=0.0).messages
        first[judges.accepts(Scenario(()), messages[1].content)] += 1
        assert judges.accepts(Scenario(()), messages[1].content) != judges.suggests_otherwise(
            Scenario(()), messages[1].content
        )
        if len(messages) > 2:
            later[judges.accepts(Scenario(()), messages[3].content)] += 1
    assert first[True] / 2000 == pytest.approx(ACCEPTED_AT_ONCE, abs=0.02)
    assert later[True] > 800
    assert later[False] == 0


@pytest.mark.parametrize("split", ["train", "development", "test"])
def test_every_answer_of_the_corpus_is_what_its_judge_says(split: str) -> None:
    random = Random(2)
    no_scenario = Scenario(())
    for _ in range(400):
        harm = compose(random, split, ("harm",), lead_in=0.0)  # type: ignore[arg-type]
        request = compose(random, split, ("unclear",), lead_in=0.0)  # type: ignore[arg-type]
        for message in harm.messages[1::2]:
            assert judges.pushes_back(no_scenario, message.content)
            assert not judges.accepts(no_scenario, message.content)
            assert not judges.asks_back(no_scenario, message.content)
        assert judges.asks_back(no_scenario, request.messages[1].content)
        assert not judges.pushes_back(no_scenario, request.messages[1].content)
        assert not judges.suggests_otherwise(no_scenario, request.messages[1].content)


def test_nothing_harmful_or_unclear_is_ever_accepted() -> None:
    for document in documents(5, COUNT):
        if document.kind in ("harm", "unclear"):
            assert not judges.accepts(Scenario(()), document.messages[-1].content)


def test_people_are_named_in_their_share_of_dialogues() -> None:
    dialogues = [document for document in documents(6, COUNT) if document.messages]
    names = words.things().names.train
    named = sum(
        document.messages[0].content.startswith(tuple(f"{name}: " for name in names))
        for document in dialogues
    )
    assert named / len(dialogues) == pytest.approx(SPEAKER_NAMED, abs=0.02)


@given(st.integers(0, 10**6))
def test_naming_speakers_changes_what_people_say_and_nothing_else(seed: int) -> None:
    said = [user("Use oak."), assistant("Why not pine?"), user("No.")]
    spoken = speak_as(Random(seed), said, "test")
    assert spoken[1] == said[1]
    for before, after in zip(said[::2], spoken[::2], strict=True):
        name, text = after.content.split(": ", 1)
        assert text == before.content
        assert name in words.things().names.test


def test_rendering_follows_the_template() -> None:
    document = next(document for document in documents(0, 100) if len(document.messages) == 2)
    asked, answered = (message.content for message in document.messages)
    assert render(document) == (
        f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{answered}<|im_end|>\n<|endoftext|>"
    )


def test_a_dozen_states_of_mind_with_clauses_of_both_kinds() -> None:
    states = states_of_mind()
    assert len(states) >= 12
    assert len({state.name for state in states}) == len(states)
    labels = [label for state in states for label in state.labels]
    assert len(set(labels)) == len(labels)
    for state in states:
        assert len(state.training_clauses) >= 12
        assert len(state.held_out_clauses) >= 5
        assert not set(state.training_clauses) & set(state.held_out_clauses)
        for clause in (*state.training_clauses, *state.held_out_clauses):
            assert "{" not in clause
            assert not any(f" {label} " in f" {clause.lower().rstrip('.')} " for label in labels)
    every = [clause for state in states for clause in state.training_clauses]
    assert len(set(every)) == len(every)


def test_stories_play_in_many_scenes() -> None:
    openings = Counter(
        document.story.split(". ")[0].split(",")[0]
        for document in documents(8, COUNT)
        if document.kind == "story"
    )
    assert len(openings) > 60
