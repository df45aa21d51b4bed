"""A judge whose error is only estimated, from a person's labels: what is said is as rarely wrong as promised.

Labels are drawn anew in each run, so that what is counted is the error of the whole: estimate from labels and
sequential test together.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from loading import load_script
from scipy.stats import beta, binom

from understudy.behaviours import (
    Decision,
    JudgeError,
    LikelihoodRatio,
    MeasuredJudge,
    Rate,
    Requirement,
    decide,
)

RUNS = 4_000
BUDGET = 200
ASKED = Requirement(0.9, 0.5, alpha=0.1, beta=0.1)
JUDGE = JudgeError(0.92, 0.88)
Marks = Callable[[int, int, int, int], Requirement | None]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


bench = load_script("benchmarks", "sequential_tests")
CODES: dict[int, Decision] = {bench.HOLDS: "holds", bench.VIOLATED: "violated", bench.UNDECIDED: "undecided"}


@cache
def as_promised(yes: int, no: int, labels: int, judges: int) -> Requirement | None:
    """The product's marks after so many right answers to `labels` of each kind; None when it refuses."""
    try:
        return MeasuredJudge(Rate(yes, labels), Rate(no, labels)).requirement(ASKED, judges)
    except ValueError:
        return None


@cache
def as_estimated(yes: int, no: int, labels: int, judges: int) -> Requirement | None:
    """As if the estimate were the truth: what the product does not do."""
    try:
        return ASKED.seen_through(JudgeError(yes / labels, no / labels))
    except ValueError:
        return None


def measured(runs: int, judges: int, labels: int, draw: np.random.Generator) -> Integers:
    """[runs, judges, 2]: right answers to labels of each kind."""
    shape = (runs, judges)
    right = [draw.binomial(labels, one, shape) for one in (JUDGE.sensitivity, JUDGE.specificity)]
    return np.stack(right, axis=-1)


def check_all(right: Integers, labels: int, said_yes: Booleans, marks: Marks) -> Integers:
    """What is said in all runs, [runs, judges], from the judges' yeses [samples, runs, judges].

    A run with a judge that is refused says nothing.
    """
    shape = right.shape[:2]
    found = [[marks(int(yes), int(no), labels, shape[1]) for yes, no in run] for run in right]
    able = np.array([None not in run for run in found])
    said = np.full(shape, bench.UNDECIDED)
    usable = [
        [one for one in run if one is not None] for run, able_one in zip(found, able, strict=True) if able_one
    ]
    if not usable:
        return said
    p0, p1 = (
        np.array([[getattr(one, name) for one in run] for run in usable])
        for name in ("required", "indifferent")
    )
    yes, no = np.log(p0 / p1), np.log((1 - p0) / (1 - p1))
    ratio, highest, lowest = (np.zeros(p0.shape) for _ in range(3))
    now = np.full(p0.shape, bench.UNDECIDED)
    for row in said_yes[:, able]:
        waiting = now == bench.UNDECIDED
        ratio += np.where(waiting, np.where(row, yes, no), 0.0)
        highest, lowest = np.maximum(highest, ratio), np.minimum(lowest, ratio)
        now = np.where(waiting, bench.decide_all(usable[0][0], highest, lowest), now)
    said[able] = now
    return said


def run(rates: Sequence[float], labels: int, marks: Marks, seed: int) -> Integers:
    draw = np.random.default_rng(seed)
    right = measured(RUNS, len(rates), labels, draw)
    yes = np.array([JUDGE.observed(rate) for rate in rates])
    return check_all(right, labels, draw.random((BUDGET, RUNS, len(rates))) < yes, marks)


def share(said: Integers, answer: int) -> Rate:
    """In how many runs it was said of any of them."""
    return Rate(int((said == answer).any(axis=1).sum()), len(said))


def test_all_runs_at_once_are_the_product() -> None:
    draw = np.random.default_rng(0)
    right = measured(40, 3, 80, draw)
    yes = draw.random((120, 40, 3)) < np.array([JUDGE.observed(rate) for rate in (0.95, 0.3, 0.7)])
    found = check_all(right, 80, yes, as_promised)
    for run_right, run_yes, run_said in zip(right, yes.transpose(1, 0, 2), found, strict=True):
        marks = [as_promised(int(one), int(other), 80, 3) for one, other in run_right]
        if None in marks:
            assert not run_said.any()
            continue
        tests = [LikelihoodRatio(one) for one in marks if one is not None]
        said: list[Decision] = ["undecided"] * 3
        for row in run_yes:
            for test, old, one in zip(tests, said, row, strict=True):
                if old == "undecided":
                    test.add(bool(one))
            said = [new if old == "undecided" else old for old, new in zip(said, decide(tests), strict=True)]
        assert said == [CODES[int(one)] for one in run_said]


@pytest.mark.parametrize("labels", [60, 120])
@pytest.mark.parametrize("judges", [1, 4])
def test_false_answers_are_as_rare_as_promised(labels: int, judges: int) -> None:
    held = share(run([ASKED.indifferent] * judges, labels, as_promised, 1), bench.HOLDS)
    violated = share(run([ASKED.required] * judges, labels, as_promised, 2), bench.VIOLATED)
    assert held.interval(0.999)[1] <= ASKED.alpha, held
    assert violated.interval(0.999)[1] <= ASKED.beta, violated


def test_what_is_plain_is_decided() -> None:
    """Else the test above could pass by saying nothing."""
    good, bad = run([0.97], 80, as_promised, 3), run([0.2], 80, as_promised, 4)
    assert share(good, bench.HOLDS).interval(0.999)[0] > 0.9
    assert share(bad, bench.VIOLATED).interval(0.999)[0] > 0.9
    several = run([0.97, 0.2, 0.97, 0.2], 120, as_promised, 5)
    right = (several == np.array([bench.HOLDS, bench.VIOLATED] * 2)).all(axis=1)
    assert right.mean() > 0.9


def test_taking_the_estimate_for_the_truth_would_break_the_promise() -> None:
    """So the test above could fail."""
    held = share(run([ASKED.indifferent] * 4, 20, as_estimated, 1), bench.HOLDS)
    violated = share(run([ASKED.required] * 4, 20, as_estimated, 2), bench.VIOLATED)
    assert held.interval(0.999)[0] > ASKED.alpha or violated.interval(0.999)[0] > ASKED.beta, (held, violated)


def test_without_a_random_number_it_is_the_same() -> None:
    """Over all counts of right answers that are at all likely, each with its exact probability."""
    labels = 40
    chances = {}
    for rate, answer in ((ASKED.indifferent, bench.HOLDS), (ASKED.required, bench.VIOLATED)):
        false = 0.0
        for yes in range(labels + 1):
            for no in range(labels + 1):
                chance = binom.pmf(yes, labels, JUDGE.sensitivity) * binom.pmf(no, labels, JUDGE.specificity)
                marks = as_promised(yes, no, labels, 1) if chance > 1e-7 else None
                if marks is not None:
                    exact = bench.walk(marks, JUDGE.observed(rate), BUDGET)
                    false += chance * (exact.holds if answer == bench.HOLDS else exact.violated)
        chances[answer] = false
        low, high = share(run([rate], labels, as_promised, 6), answer).interval(0.9999)
        assert low <= false <= high
    assert 0 < chances[bench.HOLDS] <= ASKED.alpha and 0 < chances[bench.VIOLATED] <= ASKED.beta


@pytest.mark.parametrize("judges", [1, 3])
def test_marks_are_the_worse_ends_of_exact_intervals(judges: int) -> None:
    def low(rate: Rate, error: float) -> float:
        return float(beta.ppf(error, rate.successes, rate.n - rate.successes + 1))

    def high(rate: Rate, error: float) -> float:
        return float(beta.ppf(1 - error, rate.successes + 1, rate.n - rate.successes))

    asked = Requirement(0.9, 0.5, alpha=0.08, beta=0.04)
    yes, no = Rate(92, 100), Rate(88, 100)
    found = MeasuredJudge(yes, no).requirement(asked, judges)
    # A quarter of the error for each of two bounds: together they cost a half, the test has the other.
    a, b = asked.alpha / 4 / judges, asked.beta / 4 / judges
    assert found.indifferent == pytest.approx(0.5 * high(yes, a) + 0.5 * (1 - low(no, a)))
    assert found.required == pytest.approx(0.9 * low(yes, b) + 0.1 * (1 - high(no, b)))
    assert (found.alpha, found.beta) == (0.04, 0.02)


def test_too_few_labels_are_refused_with_what_was_found() -> None:
    with pytest.raises(ValueError, match=r"got 10 that show it \(yes: 1\.00 .* n=10\) and 12 .*label more"):
        MeasuredJudge(Rate(10, 10), Rate(12, 12)).requirement(ASKED)
    with pytest.raises(ValueError, match="or take a better judge"):
        MeasuredJudge(Rate(500, 1000), Rate(500, 1000)).requirement(ASKED)
