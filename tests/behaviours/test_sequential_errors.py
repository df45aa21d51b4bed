"""The errors of sequential tests over ten thousand runs with a look after every sample, and by an exact road.

The simulation of all runs at once is the benchmark's (benchmarks/sequential_tests.py). It is held here to the
product's classes, decision for decision and sample for sample, and to probabilities without a random number.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from loading import load_script

from understudy.behaviours import Decision, JudgeError, LikelihoodRatio, Rate, Requirement, decide

RUNS = 10_000
BUDGET = 1_000
REQUIREMENT = Requirement(required=0.9, indifferent=0.75)
FAMILIES = ([0.75] * 10, [0.9] * 10, [0.75] * 5 + [0.97] * 5)
CODES: dict[Decision, int] = {"holds": 1, "violated": -1, "undecided": 0}


bench = load_script("benchmarks", "sequential_tests")


def by_the_product(
    requirement: Requirement, shown: npt.NDArray[np.bool_]
) -> tuple[list[Decision], list[int]]:
    """One family, shown[samples, behaviours]: a sample of each that is undecided, a look, and so on."""
    tests = [LikelihoodRatio(requirement) for _ in shown.T]
    said: list[Decision] = ["undecided"] * len(tests)
    for row in shown:
        for test, one, old in zip(tests, row, said, strict=True):
            if old == "undecided":
                test.add(bool(one))
        said = [new if old == "undecided" else old for old, new in zip(said, decide(tests), strict=True)]
        if "undecided" not in said:
            break
    return said, [test.samples for test in tests]


@pytest.mark.parametrize("rates", [*FAMILIES, [0.8, 0.82, 0.84] * 3, [0.75], [0.9]])
@pytest.mark.parametrize(
    "requirement",
    [REQUIREMENT, Requirement(0.9, 0.75, alpha=0.2, beta=0.01), Requirement(0.87, 0.75, alpha=0.3, beta=0.3)],
)
def test_the_simulation_is_the_product(requirement: Requirement, rates: list[float]) -> None:
    draw = np.random.default_rng(1)
    shown = draw.random((25, 150, len(rates))) < np.array(rates)
    found = bench.simulate(requirement, (25, len(rates)), lambda number: shown[:, number], 150)
    for run, said, samples in zip(shown, found.said, found.samples, strict=True):
        decisions, counted = by_the_product(requirement, run)
        assert [CODES[one] for one in decisions] == list(said)
        assert counted == list(samples)


def test_the_simulation_decides_as_the_product_whatever_the_evidence() -> None:
    draw = np.random.default_rng(2)
    requirement = Requirement(0.9, 0.75, alpha=0.1, beta=0.05)
    highest, lowest = draw.exponential(3.0, (2_000, 6)), -draw.exponential(3.0, (2_000, 6))
    found = bench.decide_all(requirement, highest, lowest)
    for row, *evidence in zip(found, highest, lowest, strict=True):
        assert [CODES[one] for one in decide(_with_evidence(requirement, *evidence))] == list(row)
    both = (highest > math.log(6 / 0.1)) & (lowest < -math.log(6 / 0.05))
    assert (found[both] == 1).any() and (found[both] == -1).any()


def _with_evidence(
    requirement: Requirement, highest: Sequence[float], lowest: Sequence[float]
) -> list[LikelihoodRatio]:
    tests = [LikelihoodRatio(requirement) for _ in highest]
    for test, high, low in zip(tests, highest, lowest, strict=True):
        test._highest, test._lowest = float(high), float(low)
    return tests


@pytest.mark.parametrize("rates", FAMILIES)
def test_over_ten_behaviours_any_error_is_as_rare(rates: list[float]) -> None:
    draw = np.random.default_rng(3)
    found = bench.simulate(REQUIREMENT, (RUNS, 10), bench.drawn(rates, RUNS, JudgeError(), draw), BUDGET)
    for answer, level in ((bench.HOLDS, REQUIREMENT.alpha), (bench.VIOLATED, REQUIREMENT.beta)):
        wrong = bench.count_any_false(REQUIREMENT, rates, found, answer)
        most = bench.any_false(REQUIREMENT, rates, BUDGET, answer)
        if most is None:
            assert wrong.successes == 0
        else:
            assert most <= level
            assert wrong.interval(0.999)[0] <= most
    right = np.where(np.array(rates) <= REQUIREMENT.indifferent, bench.VIOLATED, bench.HOLDS)
    assert np.mean(found.said == right) > 0.98


def test_without_holm_an_error_among_ten_is_common() -> None:
    """So the test above could fail."""
    draw = np.random.default_rng(4)
    alone = bench.simulate(REQUIREMENT, (20_000, 1), bench.drawn([0.75], 20_000, JudgeError(), draw), BUDGET)
    family = bench.Outcomes(alone.said.reshape(-1, 10), alone.samples.reshape(-1, 10))
    wrong = bench.count_any_false(REQUIREMENT, [0.75] * 10, family, bench.HOLDS)
    assert wrong.interval(0.999)[0] > 0.3


@pytest.mark.parametrize(
    "judge",
    [JudgeError(), JudgeError(0.95, 0.85), JudgeError(0.9, 0.9)],
    ids=["faultless", "asymmetric", "0.9"],
)
@pytest.mark.parametrize("asked", [REQUIREMENT, Requirement(0.95, 0.85), Requirement(0.98, 0.9, 0.1, 0.02)])
def test_simulated_and_exact_agree_and_keep_the_promise(asked: Requirement, judge: JudgeError) -> None:
    draw = np.random.default_rng(5)
    seen = asked.seen_through(judge)
    for rate in bench.rates_around(asked):
        found = bench.simulate(seen, (RUNS, 1), bench.drawn([rate], RUNS, judge, draw), BUDGET)
        exact = bench.walk(seen, judge.observed(rate), BUDGET)
        for answer, probability in ((bench.HOLDS, exact.holds), (bench.VIOLATED, exact.violated)):
            low, high = Rate(int((found.said == answer).sum()), RUNS).interval(0.9999)
            assert low <= probability <= high
        error = found.samples.std() / math.sqrt(RUNS)
        assert found.samples.mean() == pytest.approx(exact.samples, abs=4 * error)
        assert rate > asked.indifferent or exact.holds <= asked.alpha
        assert rate < asked.required or exact.violated <= asked.beta


@pytest.mark.parametrize("rate", [0.2, 0.3, 0.55, 0.8, 0.95])
def test_the_exact_road_is_the_product_over_every_sequence(rate: float) -> None:
    requirement, length = Requirement(0.8, 0.3, alpha=0.05, beta=0.1), 12
    sums: dict[Decision, float] = dict.fromkeys(CODES, 0.0)
    samples = 0.0
    for sequence in itertools.product((True, False), repeat=length):
        probability = math.prod(rate if one else 1 - rate for one in sequence)
        [said], [counted] = by_the_product(requirement, np.array(sequence)[:, None])
        sums[said] += probability
        samples += probability * counted
    exact = bench.walk(requirement, rate, length)
    assert sums == pytest.approx(
        {"holds": exact.holds, "violated": exact.violated, "undecided": exact.undecided}, abs=1e-12
    )
    assert samples == pytest.approx(exact.samples)
    assert min(sums.values()) > 0


@pytest.mark.parametrize("requirement", [REQUIREMENT, Requirement(0.95, 0.85), Requirement(0.98, 0.9)])
def test_at_the_marks_about_half_of_a_fixed_number_is_enough(requirement: Requirement) -> None:
    fixed = bench.fixed_samples(requirement)
    for rate in (requirement.required, requirement.indifferent):
        assert bench.walk(requirement, rate, BUDGET).samples < 0.65 * fixed
