"""The invariants that a new workspace gets: words held out, files as they are made, decided as they must."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from understudy.behaviours import (
    EngineVoice,
    Invariant,
    LikelihoodRatio,
    ModelSubject,
    Prompt,
    Scenario,
    Split,
    Verdict,
    check,
    decide,
    read_invariants,
)
from understudy.config import GateSettings, ModelSettings
from understudy.engine import EmbeddedEngine
from understudy.pocket import behaviours, checkpoint_directory, documents, lessons, new_workspace, replay
from understudy.pocket.build import SHIPPED_SEEDS
from understudy.pocket.invariants import dialogue, folder, lines, stories
from understudy.pocket.recipe import Recipe

READ_DOCUMENTS = (110_000, 60_000)
"""Of each stage: more than the shipped checkpoint read."""
SPLITS: tuple[Split, ...] = ("train", "development", "test")
NAMES = {"answering", "asking-back", "copying", "dialogue", "listening", "own-words", "push-back", "stories"}
FILLED = sorted(NAMES - {"dialogue", "stories"})


@pytest.fixture(scope="module")
def invariants() -> dict[str, Invariant]:
    return {one.name: one for one in read_invariants(folder())}


@pytest.fixture(scope="module")
def corpus_words() -> frozenset[str]:
    found: set[str] = set()
    for seed, count, stage in zip(SHIPPED_SEEDS, READ_DOCUMENTS, Recipe().stages, strict=True):
        for document in documents(seed, count, stage.mix):
            for text in [document.story or "", *(message.content for message in document.messages)]:
                found.update(words(text))
    return frozenset(found)


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)?", text.lower())


def test_the_search_finds_what_is_in_the_corpus(corpus_words: frozenset[str]) -> None:
    """So the test below could fail."""
    assert {"done", "maya", "delete", "which", "i", "the"} <= corpus_words and len(corpus_words) > 10_000


@pytest.mark.parametrize("name", FILLED)
def test_what_parts_the_splits_has_a_word_that_the_corpus_does_not_hold(
    invariants: dict[str, Invariant], corpus_words: frozenset[str], name: str
) -> None:
    one = invariants[name]
    assert one.split_by and all(len(one.slots[slot]) >= 8 for slot in one.split_by)
    known = {
        f"{slot}: {text}"
        for slot in one.split_by
        for text in one.slots[slot]
        if corpus_words.issuperset(words(text))
    }
    assert not known


def test_a_word_of_one_split_stands_in_no_other_of_any_invariant(invariants: dict[str, Invariant]) -> None:
    homes: dict[str, set[Split]] = {}
    for one in (invariants[name] for name in FILLED):
        fillers = [text for slot in one.split_by for text in one.slots[slot]]
        for split in SPLITS:
            for scenario in one.scenarios[split]:
                said = " ".join(turn.content for turn in scenario.prompt)
                for text in fillers:
                    if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said):
                        homes.setdefault(text, set()).add(split)
    assert len(homes) > 100 and {text: found for text, found in homes.items() if len(found) > 1} == {}


def test_the_documents_are_what_the_program_makes() -> None:
    for name, made in (("stories", stories()), ("dialogue", dialogue())):
        assert (folder() / f"{name}.jsonl").read_text() == lines(made)


def test_all_can_be_decided_in_every_split_that_is_asked(invariants: dict[str, Invariant]) -> None:
    """If all answers show them, Holm's procedure over all of them included."""
    assert invariants.keys() == NAMES
    for split in SPLITS:
        tests = []
        for one in invariants.values():
            assert len(set(one.scenarios[split])) == len(one.scenarios[split]) > 0
            tests.append(LikelihoodRatio(one.requirement))
            for _ in one.scenarios[split]:
                tests[-1].add(True)
        if split != "train":
            assert set(decide(tests)) == {"holds"}, split


def test_the_gates_budget_is_enough_for_each(invariants: dict[str, Invariant]) -> None:
    for one in invariants.values():
        test = LikelihoodRatio(one.requirement)
        for _ in one.scenarios["development"][: GateSettings().budget]:
            test.add(True)
        assert test.p_not_held <= one.requirement.alpha / len(invariants), one.name


def prompts(scenarios: Iterator[Scenario]) -> set[Prompt]:
    return {one.prompt for one in scenarios if one.prompt}


def test_no_scenario_is_one_of_the_pocket_models_own(invariants: dict[str, Invariant]) -> None:
    """Neither are held-out ones of `pocket.behaviours` in any split here, nor the other way round."""
    held_out = ("development", "test")
    theirs = {split: prompts(s for one in behaviours(split) for s in one.scenarios) for split in SPLITS}
    ours = {
        split: prompts(s for one in invariants.values() for s in one.scenarios[split]) for split in SPLITS
    }
    assert all(len(found) > 200 for found in (*theirs.values(), *ours.values()))
    for mine in SPLITS:
        for other in SPLITS:
            if mine in held_out or other in held_out:
                assert not ours[mine] & theirs[other], (mine, other)
            if mine != other:
                assert not ours[mine] & ours[other]


def test_nothing_that_is_taught_or_rehearsed_is_tested(invariants: dict[str, Invariant]) -> None:
    taught = {one.prompt for draw in range(20) for one in lessons(draw, 30)}
    taught |= {messages[:-1] for messages, _ in replay(0, 400)}
    for one in invariants.values():
        assert not taught & {
            scenario.prompt for split in ("development", "test") for scenario in one.scenarios[split]
        }


def test_a_new_workspace_holds_them_and_has_them_in_git(
    tmp_path: Path, invariants: dict[str, Invariant]
) -> None:
    made = new_workspace(tmp_path / "w")
    found = {one.name: one for one in made.invariants()}
    assert found.keys() == NAMES
    assert all(found[name].scenarios == one.scenarios for name, one in invariants.items())
    files = {f"behaviours/{file.name}" for file in folder().iterdir()}
    listed = subprocess.run(["git", "ls-files"], cwd=made.root, capture_output=True, text=True, check=True)
    assert files <= set(listed.stdout.split()) and len(files) == 10
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=made.root, capture_output=True, text=True, check=True
    )
    assert changed.stdout == ""


# ---------------------------------------------------------------------- the model as it came


@pytest.fixture(scope="module")
def verdicts(invariants: dict[str, Invariant]) -> dict[str, Verdict]:
    with EmbeddedEngine(ModelSettings(), checkpoint_directory()) as engine:
        subject = ModelSubject(EngineVoice(engine))
        found = check(list(invariants.values()), subject, budget=200, split="development")
    return {one.invariant: one for one in found}


def test_the_model_keeps_what_must_survive_and_has_the_rest_to_learn(verdicts: dict[str, Verdict]) -> None:
    decided = {name: one.decision for name, one in verdicts.items()}
    assert decided == {name: "holds" if one.kind == "kept" else "violated" for name, one in verdicts.items()}
    assert {name for name, one in verdicts.items() if one.kind == "wanted"} == {
        "copying",
        "listening",
        "own-words",
    }


def test_the_smooth_measures_say_the_same(verdicts: dict[str, Verdict]) -> None:
    for name in ("push-back", "asking-back"):
        assert verdicts[name].smooth.low > 3.0
    for name in ("listening", "own-words"):
        assert verdicts[name].smooth.high < -1.0
