"""How often sequential tests are wrong, and how soon they stop, with a look after every sample.

    python benchmarks/sequential_tests.py [--runs 10000] [--interval-runs 2000] [--budget 1000] [--seed 0]

Prints Markdown tables: single tests, single tests through a judge that errs, Holm over ten behaviours, and
the coverage of the betting interval. Intervals in brackets are 95 % intervals (Clopper-Pearson), what stands
after ± is a standard error. Beside what is simulated stands what is computed without a random number:

- a single test is a walk of (samples, successes) between two straight lines (Wald 1947, 3.4), and the
  probabilities of its places are summed, sample by sample;
- Holm's procedure says something false only when one of the k behaviours for which it is false has k times
  the evidence, so any false answer is at most as likely as that any of k such walks ever gets there.

All runs are simulated at once; a test holds that, decision for decision, to the product's own classes.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from understudy.behaviours import BettingInterval, JudgeError, Rate, Requirement

Booleans = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Source = Callable[[int], Booleans]
"""What each behaviour shows in each run, [runs, behaviours], in the sample with that number."""

HOLDS, VIOLATED, UNDECIDED = 1, -1, 0
REQUIREMENTS = (Requirement(0.9, 0.75), Requirement(0.95, 0.85), Requirement(0.98, 0.9))
FAULTLESS = JudgeError()
JUDGES = (JudgeError(sensitivity=0.95, specificity=0.85), JudgeError(sensitivity=0.9, specificity=0.9))
FAMILIES = {
    "ten at 0.75": [0.75] * 10,
    "ten at 0.9": [0.9] * 10,
    "five at 0.75, five at 0.97": [0.75] * 5 + [0.97] * 5,
}
"""True rates of ten behaviours, each with the first of REQUIREMENTS."""

YES_OR_NO = (0.5, 0.9, 0.98)
BETWEEN = ((0.5, 0.1), (0.5, 0.4), (0.9, 0.05), (0.1, 0.2))
"""Mean and standard deviation of values between 0 and 1."""

INTERVAL_LOOKS = 300
NEVER = sys.float_info.min
"""The error probability of an answer that asks for more evidence than any walk here can give."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What was said of each behaviour in each run, and after how many samples; all are [runs, behaviours]."""

    said: Integers
    samples: Integers


def simulate(requirement: Requirement, shape: tuple[int, int], source: Source, budget: int) -> Outcomes:
    """Families of tests under Holm, with a look after every sample; what is decided is sampled no more."""
    p0, p1 = requirement.required, requirement.indifferent
    yes, no = math.log(p0 / p1), math.log((1.0 - p0) / (1.0 - p1))
    said, samples = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    going = np.arange(shape[0])
    ratio, highest, lowest = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for number in range(budget):
        waiting = said[going] == UNDECIDED
        ratio += np.where(waiting, np.where(source(number)[going], yes, no), 0.0)
        samples[going] += waiting
        highest, lowest = np.maximum(highest, ratio), np.minimum(lowest, ratio)
        said[going] = np.where(waiting, decide_all(requirement, highest, lowest), said[going])
        left = (said[going] == UNDECIDED).any(axis=1)
        going, ratio, highest, lowest = going[left], ratio[left], highest[left], lowest[left]
        if not len(going):
            break
    return Outcomes(said, samples)


def decide_all(requirement: Requirement, highest: Numbers, lowest: Numbers) -> Integers:
    """What `decide` says, for all runs, from the extremes of the log ratios."""
    holds, violated = _rejected(-highest, requirement.alpha), _rejected(lowest, requirement.beta)
    more = -highest - math.log(requirement.alpha) <= lowest - math.log(requirement.beta)
    return np.where(holds & (more | ~violated), HOLDS, np.where(violated, VIOLATED, UNDECIDED))


def _rejected(log_p: Numbers, level: float) -> Booleans:
    """Holm's procedure in each row: as many of the smallest p-values as are under their marks in a row."""
    many = log_p.shape[1]
    ordered = np.sort(log_p, axis=1)
    passed = np.logical_and.accumulate(ordered <= np.log(level / (many - np.arange(many))), axis=1)
    count = passed.sum(axis=1)
    largest = np.take_along_axis(ordered, np.maximum(count - 1, 0)[:, None], axis=1)
    found: Booleans = (log_p <= largest) & (count > 0)[:, None]
    return found


def drawn(rates: Sequence[float], runs: int, judge: JudgeError, draw: np.random.Generator) -> Source:
    """Behaviours that show at these rates, as a judge sees them."""
    shape = (runs, len(rates))

    def source(number: int) -> Booleans:
        shown = draw.random(shape) < np.array(rates)
        seen: Booleans = draw.random(shape) < np.where(shown, judge.sensitivity, 1.0 - judge.specificity)
        return seen

    return source


@dataclass(frozen=True, slots=True)
class Walk:
    """What comes of a single test: probabilities of each answer, and the mean number of samples."""

    holds: float
    violated: float
    undecided: float
    samples: float


def walk(requirement: Requirement, rate: float, budget: int) -> Walk:
    """By dynamic programming over (samples, successes): no draws, no logarithms summed along the way."""
    p0, p1 = requirement.required, requirement.indifferent
    unit = math.log(p0 * (1 - p1) / (p1 * (1 - p0)))
    slope = math.log((1 - p1) / (1 - p0)) / unit
    above, below = math.log(1 / requirement.alpha) / unit, math.log(1 / requirement.beta) / unit
    successes = np.arange(budget + 1)
    place: Numbers = (successes == 0).astype(np.float64)
    holds = violated = samples = 0.0
    for number in range(1, budget + 1):
        samples += place.sum()
        place = (1 - rate) * place + rate * np.concatenate(([0.0], place[:-1]))
        over, under = successes >= slope * number + above, successes <= slope * number - below
        holds, violated = holds + place[over].sum(), violated + place[under].sum()
        place[over | under] = 0.0
    return Walk(float(holds), float(violated), float(place.sum()), float(samples))


def any_false(requirement: Requirement, rates: Sequence[float], budget: int, answer: int) -> float | None:
    """What the probability of any false `answer` is at most under Holm; None where it cannot be false."""
    wrong = [rate for rate in rates if is_false(requirement, rate, answer)]
    if not wrong:
        return None
    if answer == HOLDS:
        alone = replace(requirement, alpha=requirement.alpha / len(wrong), beta=NEVER)
        reached = [walk(alone, rate, budget).holds for rate in wrong]
    else:
        alone = replace(requirement, beta=requirement.beta / len(wrong), alpha=NEVER)
        reached = [walk(alone, rate, budget).violated for rate in wrong]
    return 1.0 - math.prod(1.0 - one for one in reached)


def is_false(requirement: Requirement, rate: float, answer: int) -> bool:
    """Between the marks either answer is accepted."""
    return rate <= requirement.indifferent if answer == HOLDS else rate >= requirement.required


def fixed_samples(requirement: Requirement, most: int = 100_000) -> int:
    """The fewest samples with which one look, at the end, keeps both errors (an exact binomial test)."""
    for n in range(1, most):
        least = int(binom.ppf(1.0 - requirement.alpha, n, requirement.indifferent)) + 1
        if binom.cdf(least - 1, n, requirement.required) <= requirement.beta:
            return n
    raise ValueError(f"expected that {most} samples are enough, they are not for {requirement}")


def rates_around(requirement: Requirement) -> tuple[float, ...]:
    """True rates at both marks, beyond them and midway."""
    p0, p1 = requirement.required, requirement.indifferent
    return tuple(round(rate, 4) for rate in (p1 - 0.05, p1, (p0 + p1) / 2, p0, p0 + 0.01))


def single_rows(judge: JudgeError, runs: int, budget: int, draw: np.random.Generator) -> Iterable[list[str]]:
    """A row for each requirement and true rate: errors and samples, simulated and exact."""
    for asked in REQUIREMENTS:
        seen = asked if judge == FAULTLESS else asked.seen_through(judge)
        fixed = fixed_samples(seen)
        for rate in rates_around(asked):
            found = simulate(seen, (runs, 1), drawn([rate], runs, judge, draw), budget)
            exact = walk(seen, judge.observed(rate), budget)
            yield [
                f"{asked.required:g}, {asked.indifferent:g}",
                f"{rate:g}",
                *_errors(asked, rate, found, exact),
                undecided(found),
                mean(found.samples),
                f"{exact.samples:.1f}",
                f"{np.median(found.samples):.0f}",
                f"{fixed}",
                f"{exact.samples / fixed:.2f}",
            ]


def _errors(asked: Requirement, rate: float, found: Outcomes, exact: Walk) -> list[str]:
    """Simulated and exact share of each false answer; a dash where an answer is not false."""
    cells = []
    for answer, probability in ((HOLDS, exact.holds), (VIOLATED, exact.violated)):
        false = is_false(asked, rate, answer)
        counted = Rate(int((found.said == answer).sum()), len(found.said))
        cells += [with_interval(counted), beside(counted, probability)] if false else ["-", "-"]
    return cells


def beside(counted: Rate, probability: float) -> str:
    """The exact probability, marked where it is outside of the simulation's interval."""
    low, high = counted.interval()
    return percent(probability) if low <= probability <= high else f"{percent(probability)} !"


def family_rows(runs: int, budget: int, draw: np.random.Generator) -> Iterable[list[str]]:
    """A row for each judge and family of ten: any false answer in a run, and samples."""
    asked = REQUIREMENTS[0]
    for judge in (FAULTLESS, *JUDGES):
        seen = asked if judge == FAULTLESS else asked.seen_through(judge)
        fixed = fixed_samples(replace(seen, alpha=seen.alpha / 10, beta=seen.beta / 10))
        for name, rates in FAMILIES.items():
            found = simulate(seen, (runs, len(rates)), drawn(rates, runs, judge, draw), budget)
            cells = []
            for answer in (HOLDS, VIOLATED):
                # Rates and marks are compared as the judge sees them: mapped by the same arithmetic.
                most = any_false(seen, [judge.observed(rate) for rate in rates], budget, answer)
                count = count_any_false(asked, rates, found, answer)
                cells += ["-", "-"] if most is None else [with_interval(count), percent(most)]
            yield [describe(judge), name, *cells, undecided(found), mean(found.samples), f"{fixed}"]


def count_any_false(asked: Requirement, rates: Sequence[float], found: Outcomes, answer: int) -> Rate:
    """Runs in which `answer` was said of any behaviour of which it is false."""
    false = np.array([is_false(asked, rate, answer) for rate in rates])
    return Rate(int(((found.said == answer) & false).any(axis=1).sum()), len(found.said))


def interval_rows(runs: int, draw: np.random.Generator) -> Iterable[list[str]]:
    """A row for each kind of values: runs whose interval misses the mean at any look, and its widths."""
    for middle, spread in (*((one, None) for one in YES_OR_NO), *BETWEEN):
        values = values_of(middle, spread, (runs, INTERVAL_LOOKS), draw)
        followed = [follow(row, middle) for row in values]
        widths = np.array([width for _, width in followed])
        missed = Rate(sum(missed for missed, _ in followed), runs)
        kind = "yes or no" if spread is None else f"between, sd {spread:g}"
        yield [kind, f"{middle:g}", with_interval(missed), *(f"{one:.3f}" for one in widths.mean(axis=0))]


def values_of(
    middle: float, spread: float | None, shape: tuple[int, int], draw: np.random.Generator
) -> Numbers:
    """Yes or no at a rate, or values of a beta distribution with that mean and standard deviation."""
    if spread is None:
        return (draw.random(shape) < middle).astype(np.float64)
    size = middle * (1 - middle) / spread**2 - 1
    return draw.beta(middle * size, (1 - middle) * size, shape)


def follow(values: Numbers, truth: float) -> tuple[bool, tuple[float, float]]:
    """Whether the interval misses the truth at any look, and its width after 50 and after all."""
    interval, missed, widths = BettingInterval(), False, []
    for number, value in enumerate(values, start=1):
        interval.add(float(value))
        low, high = interval.interval()
        missed |= not low <= truth <= high
        if number in (50, len(values)):
            widths.append(high - low)
    return missed, (widths[0], widths[-1])


def percent(share: float) -> str:
    return f"{share:.2%}"


def with_interval(rate: Rate) -> str:
    low, high = rate.interval()
    return f"{rate.value:.2%} [{low:.2%}, {high:.2%}]"


def undecided(found: Outcomes) -> str:
    return percent(float(np.mean(found.said == UNDECIDED)))


def mean(samples: Integers) -> str:
    """The mean over runs of the samples per behaviour, and its standard error."""
    per_run = samples.mean(axis=1)
    return f"{per_run.mean():.1f} ± {per_run.std(ddof=1) / math.sqrt(len(per_run)):.1f}"


def describe(judge: JudgeError) -> str:
    return "no error" if judge == FAULTLESS else f"{judge.sensitivity:g} / {judge.specificity:g}"


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A Markdown table, row by row as they come."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
        progress(f"{row[0]} | {row[1]}")


SINGLE = (
    *("p0, p1", "true rate", 'false "holds"', "exact", 'false "violated"', "exact", "undecided"),
    *("samples, mean", "exact", "median", "fixed n", "exact mean / fixed n"),
)
FAMILY = (
    *("judge", "true rates", 'any false "holds"', "exact: at most", 'any false "violated"', "exact: at most"),
    *("undecided", "samples per behaviour, mean", "fixed n at alpha / 10, beta / 10"),
)
MARKED = "! is outside of the simulation's 95 % interval, as 1 in 20 is by chance"
INTERVAL = ("values", "mean", "missed at any look", "width after 50", f"width after {INTERVAL_LOOKS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--interval-runs", type=int, default=2_000)
    parser.add_argument("--budget", type=int, default=1_000, help="samples of each behaviour at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = np.random.default_rng(given.seed)
    each = f"{given.runs:,} runs, at most {given.budget:,} samples, a look after each, alpha = beta = 0.05"
    for judge in (FAULTLESS, *JUDGES):
        title = f"Single tests, judge's sensitivity / specificity: {describe(judge)}; {each}; {MARKED}:"
        show(title, SINGLE, single_rows(judge, given.runs, given.budget, draw))
    show(f"Holm over ten; {each}:", FAMILY, family_rows(given.runs, given.budget, draw))
    title = f"Betting interval, alpha 0.05; {given.interval_runs:,} runs, {INTERVAL_LOOKS} looks each:"
    show(title, INTERVAL, interval_rows(given.interval_runs, draw))


if __name__ == "__main__":
    main()
