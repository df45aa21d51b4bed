"""Sequential tests say what they say as rarely wrong as they promise, by simulation and by another road."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta as beta_distribution

from understudy.behaviours import (
    BettingInterval,
    Decision,
    JudgeError,
    LikelihoodRatio,
    Requirement,
    decide,
)

RUNS = 10_000
BUDGET = 300
REQUIREMENT = Requirement(required=0.9, indifferent=0.75, alpha=0.05, beta=0.05)


def at_most(count: int, runs: int, level: float) -> bool:
    """Whether a count of errors speaks against a probability of at most `level`, at the 99.9 % level."""
    low = 0.0 if count == 0 else float(beta_distribution.ppf(0.001, count, runs - count + 1))
    return low <= level


def run(requirement: Requirement, shown: npt.NDArray[np.bool_]) -> tuple[Decision, int]:
    """Look after every sample; stop at the first decision."""
    test = LikelihoodRatio(requirement)
    for number, one in enumerate(shown, start=1):
        test.add(bool(one))
        if (said := test.decision) != "undecided":
            return said, number
    return "undecided", len(shown)


def by_another_road(requirement: Requirement, shown: npt.NDArray[np.bool_]) -> tuple[Decision, int]:
    """The same from the closed form: counts after each sample against straight lines (Wald 1947, 3.4)."""
    p0, p1 = requirement.required, requirement.indifferent
    slope = math.log((1 - p1) / (1 - p0)) / math.log(p0 * (1 - p1) / (p1 * (1 - p0)))
    unit = math.log(p0 * (1 - p1) / (p1 * (1 - p0)))
    samples = np.arange(1, len(shown) + 1)
    counts = np.cumsum(shown)
    holds = counts >= slope * samples + math.log(1 / requirement.alpha) / unit - 1e-9
    violated = counts <= slope * samples - math.log(1 / requirement.beta) / unit + 1e-9
    either = np.flatnonzero(holds | violated)
    if not len(either):
        return "undecided", len(shown)
    first = either[0]
    return ("holds" if holds[first] else "violated"), int(first) + 1


@pytest.mark.parametrize("rate", [0.5, 0.75, 0.82, 0.9, 0.99])
def test_errors_stay_under_what_is_promised(rate: float) -> None:
    draw = np.random.default_rng(int(rate * 100))
    shown = draw.random((RUNS, BUDGET)) < rate
    found = [by_another_road(REQUIREMENT, row)[0] for row in shown]
    if rate <= REQUIREMENT.indifferent:
        assert at_most(found.count("holds"), RUNS, REQUIREMENT.alpha)
        assert found.count("violated") > 0.8 * RUNS
    elif rate >= REQUIREMENT.required:
        assert at_most(found.count("violated"), RUNS, REQUIREMENT.beta)
        assert found.count("holds") > 0.8 * RUNS


def test_both_roads_decide_the_same_at_the_same_sample() -> None:
    draw = np.random.default_rng(1)
    for rate in (0.6, 0.75, 0.82, 0.9, 0.97):
        for shown in draw.random((60, BUDGET)) < rate:
            assert run(REQUIREMENT, shown) == by_another_road(REQUIREMENT, shown)


def test_it_stops_long_before_a_fixed_number_of_samples_would() -> None:
    draw = np.random.default_rng(2)
    fixed = next(n for n in range(10, 1000) if _fixed_suffices(n))
    spent = [run(REQUIREMENT, row)[1] for row in draw.random((400, BUDGET)) < 0.97]
    assert np.mean(spent) < 0.75 * fixed


def _fixed_suffices(n: int) -> bool:
    """Whether n samples keep both errors, with the best threshold on their number."""
    from scipy.stats import binom

    p0, p1 = REQUIREMENT.required, REQUIREMENT.indifferent
    return any(
        binom.sf(k - 1, n, p1) <= REQUIREMENT.alpha and binom.cdf(k - 1, n, p0) <= REQUIREMENT.beta
        for k in range(n + 1)
    )


@pytest.mark.parametrize("rate", [0.75, 0.9])
def test_a_judge_that_errs_changes_the_marks_not_the_promise(rate: float) -> None:
    judge = JudgeError(sensitivity=0.95, specificity=0.85)
    requirement = REQUIREMENT.seen_through(judge)
    draw = np.random.default_rng(3)
    shown = draw.random((RUNS, BUDGET)) < rate
    said = np.where(shown, draw.random(shown.shape) < 0.95, draw.random(shown.shape) < 0.15)
    found = [by_another_road(requirement, row)[0] for row in said]
    wrong: Decision = "holds" if rate <= 0.75 else "violated"
    assert at_most(found.count(wrong), RUNS, 0.05)
    assert judge.corrected(judge.observed(rate)) == pytest.approx(rate)


def test_holm_is_what_is_written_in_the_paper() -> None:
    def with_p(value: float) -> LikelihoodRatio:
        test = LikelihoodRatio(REQUIREMENT)
        test._highest = -math.log(value)
        return test

    found = decide([with_p(p) for p in (0.005, 0.011, 0.02, 0.04)])
    assert found == ["holds", "holds", "holds", "holds"]
    found = decide([with_p(p) for p in (0.005, 0.03, 0.02, 0.04)])
    assert found == ["holds", "undecided", "undecided", "undecided"]
    assert decide([]) == []


@pytest.mark.parametrize(("mean", "spread"), [(0.5, 0.1), (0.9, 0.05), (0.1, 0.3), (0.95, None)])
def test_betting_intervals_hold_at_all_times_at_once(mean: float, spread: float | None) -> None:
    draw = np.random.default_rng(5)
    runs, missed, widths = 200, 0, []
    for _ in range(runs):
        interval = BettingInterval(alpha=0.1, grid=201)
        if spread is None:
            values = (draw.random(150) < mean).astype(float)
        else:
            size = mean * (1 - mean) / spread**2 - 1
            size = max(size, 0.5)
            values = draw.beta(mean * size, (1 - mean) * size, 150)
        outside = False
        for value in values:
            interval.add(float(value))
            low, high = interval.interval()
            outside |= not low <= mean <= high
        missed += outside
        widths.append(high - low)
    assert at_most(missed, runs, 0.1)
    assert np.mean(widths) < 0.35


@pytest.mark.parametrize(
    "marks", [{"required": 0.5, "indifferent": 0.5}, {"required": 1.1, "indifferent": 0.5}, {"alpha": 0.0}]
)
def test_marks_that_mean_nothing_are_refused(marks: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Requirement(**{"required": 0.9, "indifferent": 0.75, **marks})


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a judge that says yes more often"):
        REQUIREMENT.seen_through(JudgeError(sensitivity=0.4, specificity=0.6))
    with pytest.raises(ValueError, match="between 0 and 1"):
        BettingInterval().add(1.5)
    with pytest.raises(ValueError, match="sensitivity: expected a probability"):
        JudgeError(sensitivity=1.05, specificity=0.95)


@pytest.mark.parametrize("sensitivity", [0.05, 0.07, 0.5, 0.93])
def test_a_judge_that_guesses_is_refused_however_its_rates_are_rounded(sensitivity: float) -> None:
    guesses = JudgeError(sensitivity, 1.0 - sensitivity)
    for required in (0.1, 0.5, 0.75, 0.8, 0.95):
        with pytest.raises(ValueError, match="expected a judge that says yes more often"):
            Requirement(required, 0.0).seen_through(guesses)
    with pytest.raises(ValueError, match="expected a judge that says yes more often"):
        guesses.corrected(0.5)


def test_marks_at_the_ends_decide_at_once() -> None:
    always = LikelihoodRatio(Requirement(1.0, 0.5))
    always.add(False)
    assert always.decision == "violated"
    never = LikelihoodRatio(Requirement(0.5, 0.0))
    never.add(True)
    assert never.decision == "holds"
