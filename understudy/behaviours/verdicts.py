"""Verdicts: invariants put to a model, a batch at a time, until each is decided or the budget is spent."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from understudy.behaviours.measure import Answer
from understudy.behaviours.rates import Rate
from understudy.behaviours.scenarios import Scenario, Split
from understudy.behaviours.sequential import BettingInterval, Decision, LikelihoodRatio, decide
from understudy.behaviours.specification import Invariant
from understudy.lessons import ChatMessage

Prompt = tuple[ChatMessage, ...]
BATCH = 16
"""Scenarios of each undecided invariant that are asked together."""
SHOWN_FAILURES = 5


class NoAnswer(RuntimeError):
    """A scenario that the model did not answer. It never counts, neither for nor against."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one invariant.

    `interval` holds at every look (Waudby-Smith and Ramdas), so also at the one that stopped it. `failures`
    are the first scenarios whose answers did not show the behaviour.
    """

    invariant: str
    decision: Decision
    rate: Rate
    interval: tuple[float, float]
    failures: tuple[tuple[Scenario, str], ...]


@dataclass(frozen=True, slots=True)
class Looked:
    """How far a check is: scenarios asked, the most that may be asked still, and what is decided."""

    asked: int
    most_left: int
    decided: Mapping[str, Decision]


@dataclass(slots=True)
class _Case:
    """One invariant under test."""

    invariant: Invariant
    waiting: list[Scenario]
    test: LikelihoodRatio
    interval: BettingInterval
    failures: list[tuple[Scenario, str]] = field(default_factory=list)

    def judge(self, scenario: Scenario, answer: str) -> None:
        shown = self.invariant.judge.shows(scenario, answer)
        self.test.add(shown)
        self.interval.add(float(shown))
        if not shown and len(self.failures) < SHOWN_FAILURES:
            self.failures.append((scenario, answer))


def check(
    invariants: Sequence[Invariant],
    answer: Answer,
    *,
    budget: int,
    seed: int = 0,
    split: Split = "test",
    looked: Callable[[Looked], None] = lambda _: None,
) -> tuple[Verdict, ...]:
    """A verdict on each invariant, from at most `budget` scenarios of it, in an order drawn from `seed`.

    The promises of `sequential` hold for all of them together. `looked` is told after each batch. Raises
    NoAnswer when an answer is missing or empty.
    """
    cases = [_open(invariant, split, budget, seed) for invariant in invariants]
    decisions: list[Decision] = ["undecided"] * len(cases)
    asked, known = 0, dict[Prompt, str]()
    while going := [case for case, said in zip(cases, decisions, strict=True) if _goes_on(case, said)]:
        batch = [(case, case.waiting.pop()) for case in going for _ in range(min(BATCH, len(case.waiting)))]
        known |= _ask(answer, [scenario.prompt for _, scenario in batch if scenario.prompt not in known])
        for case, scenario in batch:
            case.judge(scenario, known[scenario.prompt])
        asked += len(batch)
        found = decide([case.test for case in cases])
        # What was said stays said: its evidence does not grow any more, its share of the error is spent.
        decisions = [new if old == "undecided" else old for old, new in zip(decisions, found, strict=True)]
        left = sum(
            len(case.waiting) for case, said in zip(cases, decisions, strict=True) if said == "undecided"
        )
        looked(Looked(asked, left, {c.invariant.name: d for c, d in zip(cases, decisions, strict=True)}))
    return tuple(_verdict(case, said) for case, said in zip(cases, decisions, strict=True))


def _open(invariant: Invariant, split: Split, budget: int, seed: int) -> _Case:
    scenarios = list(invariant.scenarios[split])
    if not scenarios:
        raise ValueError(f"{invariant.name}: expected scenarios in the {split} split, it has none")
    random.Random(f"{invariant.name} {seed}").shuffle(scenarios)
    requirement = invariant.requirement
    return _Case(
        invariant,
        scenarios[:budget],
        LikelihoodRatio(requirement),
        BettingInterval(min(requirement.alpha, requirement.beta)),
    )


def _goes_on(case: _Case, said: Decision) -> bool:
    return said == "undecided" and bool(case.waiting)


def _ask(answer: Answer, wanted: Sequence[Prompt]) -> dict[Prompt, str]:
    """The answer to each prompt; invariants may share prompts, and each is asked once."""
    prompts = list(dict.fromkeys(wanted))
    answers = list(answer(prompts)) if prompts else []
    if len(answers) != len(prompts):
        raise NoAnswer(f"expected answers to {len(prompts)} scenarios, got {len(answers)}")
    said = dict(zip(prompts, answers, strict=True))
    for prompt, text in said.items():
        if not text.strip():
            raise NoAnswer(f"expected an answer to {prompt[-1].content!r}, got an empty one")
    return said


def _verdict(case: _Case, said: Decision) -> Verdict:
    rate = Rate(case.test.successes, case.test.samples)
    return Verdict(case.invariant.name, said, rate, case.interval.interval(), tuple(case.failures))
