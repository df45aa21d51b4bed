"""Verdicts: invariants put to a model, a batch at a time, until each is decided or the budget is spent."""

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from understudy.behaviours.judges import ModelJudge, ReadoutJudge
from understudy.behaviours.judging import Bench, Judged, judge_answers, prepare
from understudy.behaviours.rates import Rate
from understudy.behaviours.scenarios import Prompt, Scenario, Split
from understudy.behaviours.sequential import (
    BettingInterval,
    Decision,
    JudgeError,
    LikelihoodRatio,
    decide,
)
from understudy.behaviours.specification import Invariant, Kind
from understudy.behaviours.subject import Speech, Subject
from understudy.lessons import ChatMessage

BATCH = 16
"""Scenarios of each undecided invariant that are asked together."""
SHOWN_FAILURES = 5
_Asked = tuple[Prompt, Speech]


class NoAnswer(RuntimeError):
    """A scenario that the model did not answer. It never counts, neither for nor against."""


class ScenarioTooLong(ValueError):
    """A scenario that leaves the model no room to answer."""


@dataclass(frozen=True, slots=True)
class Smooth:
    """The mean of a smooth measure, with its 95 % interval (Student's t) over `n` scenarios."""

    mean: float
    low: float
    high: float
    n: int
    unit: str

    @classmethod
    def of(cls, values: Sequence[float], unit: str) -> "Smooth":
        """One value has no interval but the whole line."""
        from scipy.stats import t as student

        n, mean = len(values), math.fsum(values) / len(values)
        if n == 1:
            return cls(mean, -math.inf, math.inf, 1, unit)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
        half = float(student.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
        return cls(mean, mean - half, mean + half, n, unit)

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}] {self.unit}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one invariant.

    `rate` counts what the judge said; `interval`, of the same rate, holds at every look (Waudby-Smith and
    Ramdas), so also at the one that stopped it. With a judge that errs, `error` is its error and `corrected`
    the rate and the interval's ends allowing for it. `failures` are the first scenarios whose answers did
    not show the behaviour.
    """

    invariant: str
    kind: Kind
    decision: Decision
    rate: Rate
    interval: tuple[float, float]
    smooth: Smooth
    failures: tuple[tuple[Scenario, str], ...]
    error: JudgeError | None = None

    @property
    def corrected(self) -> tuple[float, float, float]:
        """Rate, low and high end, as they would be with a judge that does not err."""
        ends = (self.rate.value, *self.interval)
        if self.error is None:
            return ends
        rate, low, high = (self.error.corrected(end) for end in ends)
        return rate, low, high


@dataclass(frozen=True, slots=True)
class Looked:
    """How far a check is: scenarios asked, the most that may be asked still, and what is decided."""

    asked: int
    most_left: int
    decided: Mapping[str, Decision]


@dataclass(slots=True)
class _Case:
    """One invariant under test."""

    bench: Bench
    waiting: list[Scenario]
    test: LikelihoodRatio
    interval: BettingInterval
    smooth: list[float] = field(default_factory=list)
    failures: list[tuple[Scenario, str]] = field(default_factory=list)

    def count(self, scenario: Scenario, answer: str, judged: Judged) -> None:
        self.test.add(judged.shown)
        self.interval.add(float(judged.shown))
        self.smooth.append(judged.smooth)
        if not judged.shown and len(self.failures) < SHOWN_FAILURES:
            self.failures.append((scenario, answer))


def check(
    invariants: Sequence[Invariant],
    subject: Subject,
    *,
    budget: int,
    seed: int = 0,
    split: Split = "test",
    looked: Callable[[Looked], None] = lambda _: None,
) -> tuple[Verdict, ...]:
    """A verdict on each invariant, from at most `budget` scenarios of it, in an order drawn from `seed`.

    The promises of `sequential` hold for all of them together. `looked` is told after each batch.

    Raises ValueError, ScenarioTooLong or JudgeFailed before anything is asked when an invariant has no
    scenarios in the split, one that the model cannot hold, or a judge that cannot be had; and NoAnswer or
    JudgeFailed later when an answer is missing or empty or was not judged: no verdict is given then.
    """
    judges = sum(isinstance(invariant.judge, ModelJudge) for invariant in invariants)
    cases = [_open(prepare(invariant, judges), subject, split, budget, seed) for invariant in invariants]
    decisions: list[Decision] = ["undecided"] * len(cases)
    asked, known = 0, dict[_Asked, str]()
    while going := [case for case, said in zip(cases, decisions, strict=True) if _goes_on(case, said)]:
        batches = [
            (case, [case.waiting.pop() for _ in range(min(BATCH, len(case.waiting)))]) for case in going
        ]
        known |= _ask(subject, batches, known.keys(), seed)
        for case, scenarios in batches:
            _judge(case, scenarios, known, subject, seed)
            asked += len(scenarios)
        found = decide([case.test for case in cases])
        # What was said stays said: its evidence does not grow any more, its share of the error is spent.
        decisions = [new if old == "undecided" else old for old, new in zip(decisions, found, strict=True)]
        left = sum(
            len(case.waiting) for case, said in zip(cases, decisions, strict=True) if said == "undecided"
        )
        names = [case.bench.invariant.name for case in cases]
        looked(Looked(asked, left, dict(zip(names, decisions, strict=True))))
    return tuple(_verdict(case, said) for case, said in zip(cases, decisions, strict=True))


def drawn(invariant: Invariant, split: Split, seed: int) -> list[Scenario]:
    """The scenarios of a split in the order in which they are asked, which follows from the seed.

    Raises ValueError when there are none.
    """
    scenarios = list(invariant.scenarios[split])
    if not scenarios:
        raise ValueError(f"{invariant.name}: expected scenarios in the {split} split, it has none")
    random.Random(f"{invariant.name} {seed}").shuffle(scenarios)
    return scenarios


def speech_of(invariant: Invariant, seed: int) -> Speech:
    """How answers to an invariant's scenarios are drawn."""
    return Speech(invariant.temperature, invariant.max_tokens, seed)


def check_askable(invariant: Invariant, scenarios: Sequence[Scenario], subject: Subject) -> None:
    """Raises ScenarioTooLong for the first prompt that leaves no room for an answer, or document that the
    model cannot hold, and ValueError for a concept that it has no readout of.
    """
    if isinstance(judge := invariant.judge, ReadoutJudge):
        subject.readouts((), judge.concept, judge.layer)
    for scenario in scenarios:
        prompt = scenario.prompt or (ChatMessage("user", scenario.target),)  # a document, and a little more
        answer = invariant.max_tokens if scenario.prompt else 0
        room = subject.context_length - answer
        if (size := subject.length(prompt)) > room:
            raise ScenarioTooLong(
                f"{invariant.name}: expected scenarios of at most {room} tokens, since the model holds "
                f"{subject.context_length} and an answer may take {answer}, got {size}: "
                f"{prompt[-1].content[:60]!r}"
            )


def _open(bench: Bench, subject: Subject, split: Split, budget: int, seed: int) -> _Case:
    scenarios = drawn(bench.invariant, split, seed)[:budget]
    check_askable(bench.invariant, scenarios, subject)
    level = min(bench.requirement.alpha, bench.requirement.beta)
    return _Case(bench, scenarios[::-1], LikelihoodRatio(bench.requirement), BettingInterval(level))


def _goes_on(case: _Case, said: Decision) -> bool:
    return said == "undecided" and bool(case.waiting)


def _ask(
    subject: Subject,
    batches: Sequence[tuple[_Case, Sequence[Scenario]]],
    known: Collection[_Asked],
    seed: int,
) -> dict[_Asked, str]:
    """The answers that are not known yet; invariants may share prompts, and each is asked once."""
    wanted: dict[Speech, dict[Prompt, None]] = {}
    for case, scenarios in batches:
        speech = speech_of(case.bench.invariant, seed)
        if case.bench.answers:
            wanted.setdefault(speech, {}).update(
                {one.prompt: None for one in scenarios if (one.prompt, speech) not in known}
            )
    return {
        (prompt, speech): text
        for speech, prompts in wanted.items()
        for prompt, text in answered(subject, list(prompts), speech).items()
    }


def answered(subject: Subject, prompts: Sequence[Prompt], speech: Speech) -> dict[Prompt, str]:
    """The answer to each prompt. Raises NoAnswer when one is missing or empty."""
    answers = list(subject.answer(prompts, speech)) if prompts else []
    if len(answers) != len(prompts):
        raise NoAnswer(f"expected answers to {len(prompts)} scenarios, got {len(answers)}")
    said = dict(zip(prompts, answers, strict=True))
    for prompt, text in said.items():
        if not text.strip():
            raise NoAnswer(f"expected an answer to {prompt[-1].content!r}, got an empty one")
    return said


def _judge(
    case: _Case,
    scenarios: Sequence[Scenario],
    known: Mapping[_Asked, str],
    subject: Subject,
    seed: int,
) -> None:
    speech = speech_of(case.bench.invariant, seed)
    said = [(one, known[one.prompt, speech] if case.bench.answers else "") for one in scenarios]
    for (scenario, answer), judged in zip(said, judge_answers(case.bench, said, subject), strict=True):
        case.count(scenario, answer, judged)


def _verdict(case: _Case, said: Decision) -> Verdict:
    rate = Rate(case.test.successes, case.test.samples)
    measured, invariant = case.bench.measured, case.bench.invariant
    return Verdict(
        invariant.name,
        invariant.kind,
        said,
        rate,
        case.interval.interval(),
        Smooth.of(case.smooth, case.bench.unit),
        tuple(case.failures),
        None if measured is None else measured.error,
    )
