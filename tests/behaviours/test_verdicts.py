"""Invariants put to models whose true rates are known."""

import hashlib
from collections.abc import Sequence

import pytest

from understudy.behaviours import (
    Invariant,
    Looked,
    NoAnswer,
    Requirement,
    RuleJudge,
    Scenario,
    check,
)
from understudy.lessons import ChatMessage

Prompt = tuple[ChatMessage, ...]


def invariant(name: str, scenarios: int = 400, **marks: float) -> Invariant:
    asked = tuple(Scenario((ChatMessage("user", f"{name} {number}"),)) for number in range(scenarios))
    requirement = Requirement(**{"required": 0.9, "indifferent": 0.75, **marks})
    return Invariant(
        name=name,
        wanted="Says yes.",
        kind="kept",
        requirement=requirement,
        judge=RuleJudge(accept=["^yes"]),
        scenarios={"train": (), "development": asked[:40], "test": asked},
    )


class Model:
    """Says yes to a share of prompts, always to the same ones."""

    def __init__(self, **shares: float) -> None:
        self.shares = shares
        self.batches: list[int] = []
        self.asked: list[str] = []

    def __call__(self, prompts: Sequence[Prompt]) -> list[str]:
        self.batches.append(len(prompts))
        self.asked += [prompt[-1].content for prompt in prompts]
        return [self.say(prompt[-1].content) for prompt in prompts]

    def say(self, text: str) -> str:
        place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
        return "yes" if place < self.shares[text.split()[0]] else "no"


def test_each_is_decided_and_only_as_many_are_asked_as_it_takes() -> None:
    model = Model(good=0.97, bad=0.3, between=0.83)
    looks: list[Looked] = []
    found = check(
        [invariant(name) for name in ("good", "bad", "between")], model, budget=200, looked=looks.append
    )
    said = {verdict.invariant: verdict for verdict in found}
    assert said["good"].decision == "holds" and said["bad"].decision == "violated"
    assert said["bad"].rate.n < said["good"].rate.n < said["between"].rate.n
    for verdict in found:
        low, high = verdict.interval
        assert low <= verdict.rate.value <= high and low <= model.shares[verdict.invariant] <= high
    assert len(said["bad"].failures) == 5 and all(answer == "no" for _, answer in said["bad"].failures)
    assert looks[-1].asked == sum(verdict.rate.n for verdict in found) == sum(model.batches)
    assert looks[0].decided["between"] == "undecided"
    assert looks[-1].most_left == 0


def test_a_budget_that_is_too_small_leaves_it_open() -> None:
    [verdict] = check([invariant("good")], Model(good=0.97), budget=10)
    assert verdict.decision == "undecided" and verdict.rate.n == 10


def test_the_same_seed_asks_the_same() -> None:
    asked = []
    for seed in (0, 0, 1):
        model = Model(good=0.83)
        check([invariant("good")], model, budget=60, seed=seed)
        asked.append(model.asked)
    assert asked[0] == asked[1] != asked[2]


def test_a_prompt_of_two_invariants_is_asked_once() -> None:
    one = invariant("good", 40)
    other = Invariant(
        name="also",
        wanted="Says no.",
        kind="wanted",
        requirement=one.requirement,
        judge=RuleJudge(reject=["^yes"]),
        scenarios=one.scenarios,
    )
    model = Model(good=0.83)
    found = check([one, other], model, budget=40)
    assert len(model.asked) == len(set(model.asked)) < sum(verdict.rate.n for verdict in found)


@pytest.mark.parametrize("answers", [["", "yes"], ["yes"], ["  \n", "yes"]])
def test_what_was_not_answered_is_an_error_and_never_a_pass(answers: list[str]) -> None:
    with pytest.raises(NoAnswer):
        check([invariant("good", 2)], lambda _: answers, budget=2)


def test_an_invariant_without_scenarios_is_refused() -> None:
    with pytest.raises(ValueError, match="good: expected scenarios in the train split, it has none"):
        check([invariant("good")], Model(good=1.0), budget=5, split="train")
