"""Judges at work: each answer's yes or no, and beside it the smooth measure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from understudy.behaviours.judge_models import JudgeFailed, MeasuredJudge, ask_judge, measure_judge
from understudy.behaviours.judges import LikelihoodJudge, Margin, ModelJudge, ReadoutJudge, RuleJudge
from understudy.behaviours.scenarios import Scenario
from understudy.behaviours.sequential import Requirement
from understudy.behaviours.specification import Invariant
from understudy.behaviours.subject import LogProbability, Subject


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer, judged: yes or no, and the smooth measure (nats, or a readout)."""

    shown: bool
    smooth: float


@dataclass(frozen=True, slots=True)
class Bench:
    """One invariant with its judge ready: the marks for what the judge says, and its error if it has one."""

    invariant: Invariant
    requirement: Requirement
    measured: MeasuredJudge | None = None

    @property
    def answers(self) -> bool:
        """Whether the judge needs an answer; a likelihood is scored without one."""
        return not isinstance(self.invariant.judge, LikelihoodJudge)

    @property
    def unit(self) -> str:
        """Of the smooth measure."""
        return self.invariant.margin.unit if self.invariant.margin else "readout"


def prepare(invariant: Invariant, judges: int = 1) -> Bench:
    """Ready the judge of an invariant; a judging model's error is measured here, on the labelled answers.

    `judges`: how many such models are measured for the same check, whose verdicts are to hold together.

    Raises JudgeFailed when that model cannot be asked, ValueError for labels that are wrong or too few.
    """
    if not isinstance(invariant.judge, ModelJudge):
        return Bench(invariant, invariant.requirement)
    measured = measure_judge(invariant, invariant.judge)
    try:
        return Bench(invariant, measured.requirement(invariant.requirement, judges), measured)
    except ValueError as error:
        raise ValueError(f"{invariant.name}: {error}") from error


def shown_in(invariant: Invariant, said: Sequence[tuple[Scenario, str]], subject: Subject) -> list[bool]:
    """Which answers show the behaviour, without the smooth measure. Raises as `judge_answers`."""
    match judge := invariant.judge:
        case RuleJudge():
            return [judge.shows(scenario, answer) for scenario, answer in said]
        case ModelJudge():
            return [ask_judge(invariant, judge, scenario, answer) for scenario, answer in said]
        case ReadoutJudge():
            return [judge.shows(value) for value in _read(invariant, judge, said, subject)]
        case LikelihoodJudge():
            margins = measure_margins(invariant, [scenario for scenario, _ in said], subject)
            return [margin >= judge.threshold for margin in margins]


def judge_answers(bench: Bench, said: Sequence[tuple[Scenario, str]], subject: Subject) -> list[Judged]:
    """Judge answers to scenarios of one invariant. Raises JudgeFailed, and what the subject raises."""
    invariant, judge = bench.invariant, bench.invariant.judge
    if isinstance(judge, ReadoutJudge) and invariant.margin is None:
        return [Judged(judge.shows(value), value) for value in _read(invariant, judge, said, subject)]
    margins = measure_margins(invariant, [scenario for scenario, _ in said], subject)
    if isinstance(judge, LikelihoodJudge):
        return [Judged(margin >= judge.threshold, margin) for margin in margins]
    shown = shown_in(invariant, said, subject)
    return [Judged(*both) for both in zip(shown, margins, strict=True)]


def measure_margins(invariant: Invariant, scenarios: Sequence[Scenario], subject: Subject) -> list[float]:
    """The smooth measure of each scenario, see `Margin`. No answer is drawn."""
    margin = invariant.margin
    if margin is None:
        raise ValueError(f"{invariant.name}: expected a margin, found none")
    texts = (*margin.acceptable, *margin.unacceptable)
    asked = [(scenario.prompt, scenario.fill(text)) for scenario in scenarios for text in texts]
    told = subject.log_probabilities(asked)
    size = len(texts)
    found = [_margin(margin, told[place * size : (place + 1) * size]) for place in range(len(scenarios))]
    broken = next((s for s, value in zip(scenarios, found, strict=True) if not math.isfinite(value)), None)
    if broken is not None:
        raise JudgeFailed(
            f"{invariant.name}: expected a finite margin, got none for {broken.target or broken.prompt!r}"
        )
    return found


def _read(
    invariant: Invariant, judge: ReadoutJudge, said: Sequence[tuple[Scenario, str]], subject: Subject
) -> Sequence[float]:
    told = subject.readouts([(s.prompt, answer) for s, answer in said], judge.concept, judge.layer)
    if not all(map(math.isfinite, told)):
        raise JudgeFailed(f"{invariant.name}: expected finite readouts of {judge.concept}, got {list(told)}")
    return told


def _margin(margin: Margin, told: Sequence[LogProbability]) -> float:
    acceptable, others = told[: len(margin.acceptable)], told[len(margin.acceptable) :]
    if not others:
        return max(one.mean for one in acceptable)
    return _log_sum(acceptable) - _log_sum(others)


def _log_sum(told: Sequence[LogProbability]) -> float:
    highest = max(one.total for one in told)
    return highest + math.log(sum(math.exp(one.total - highest) for one in told))
