"""Sequential tests of a rate: look after every sample, stop when it is plain, be right as often as said.

What is tested is a success rate p against two marks: `required` (p0), at which a behaviour holds, and
`indifferent` (p1), below it, at which it does not. Between them either answer is accepted.

- False "holds" (said where p <= p1): probability at most `alpha`, over the whole run.
- False "violated" (said where p >= p0): at most `beta`.

Both come from Ville's inequality (1939): a nonnegative supermartingale that starts at 1 ever reaches 1/a with
probability at most a. So looking after every sample costs nothing, and neither does stopping at any time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Decision = Literal["holds", "violated", "undecided"]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Requirement:
    """What is asked of a rate, and how often the answer may be wrong."""

    required: float
    indifferent: float
    alpha: float = 0.05
    beta: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 <= self.indifferent < self.required <= 1.0:
            raise ValueError(
                f"expected 0 <= indifferent < required <= 1, got indifferent {self.indifferent} and required "
                f"{self.required}: the indifferent rate is the one at which the behaviour no longer holds"
            )
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name}: expected a probability between 0 and 1, got {value}")

    def seen_through(self, judge: "JudgeError") -> "Requirement":
        """The same requirement of the rate at which a judge with errors says yes.

        Raises ValueError when the judge cannot tell the two rates apart.
        """
        judge.must_tell()
        required, indifferent = judge.observed(self.required), judge.observed(self.indifferent)
        return Requirement(required, indifferent, self.alpha, self.beta)


@dataclass(frozen=True, slots=True)
class JudgeError:
    """How often a judge says yes where the behaviour shows, and no where it does not."""

    sensitivity: float = 1.0
    specificity: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("sensitivity", self.sensitivity), ("specificity", self.specificity)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}: expected a probability between 0 and 1, got {value}")

    def must_tell(self) -> None:
        """Raises ValueError when it says yes no more often where the behaviour shows than elsewhere."""
        if self.sensitivity + self.specificity <= 1.0:
            raise ValueError(
                f"expected a judge that says yes more often where the behaviour shows, got one that says it "
                f"{self.sensitivity:.2f} of the time there and {1 - self.specificity:.2f} elsewhere"
            )

    def observed(self, rate: float) -> float:
        """The rate of yes at a true rate (Rogan and Gladen 1978, eq. 1)."""
        return rate * self.sensitivity + (1.0 - rate) * (1.0 - self.specificity)

    def corrected(self, observed: float) -> float:
        """The true rate at a rate of yes (Rogan and Gladen 1978, eq. 2), kept between 0 and 1.

        Raises ValueError when the judge cannot tell where the behaviour shows.
        """
        self.must_tell()
        gain = self.sensitivity + self.specificity - 1.0
        return min(1.0, max(0.0, (observed - (1.0 - self.specificity)) / gain))


class LikelihoodRatio:
    """The sequential probability ratio test (Wald 1945) of `required` against `indifferent`, for yes or no.

    Its thresholds are 1/alpha and 1/beta, which hold exactly; Wald's (1-beta)/alpha only nearly. The ratio
    is a supermartingale for every rate at or beyond its mark, so the marks stand for all rates beyond them.
    """

    def __init__(self, requirement: Requirement) -> None:
        self.requirement = requirement
        self.successes = self.samples = 0
        self._log_ratio = self._highest = self._lowest = 0.0
        p0, p1 = requirement.required, requirement.indifferent
        self._yes, self._no = _log_quotient(p0, p1), _log_quotient(1.0 - p0, 1.0 - p1)

    def add(self, shown: bool) -> None:
        """One more sample."""
        self.samples += 1
        self.successes += shown
        self._log_ratio += self._yes if shown else self._no
        self._highest = max(self._highest, self._log_ratio)
        self._lowest = min(self._lowest, self._log_ratio)

    @property
    def p_not_held(self) -> float:
        """An anytime p-value of "the rate is at or under `indifferent`": small when the behaviour holds."""
        return math.exp(-self._highest)

    @property
    def p_held(self) -> float:
        """An anytime p-value of "the rate is at or over `required`": small when it is violated."""
        return math.exp(self._lowest)

    @property
    def decision(self) -> Decision:
        """What can be said by now."""
        return decide([self])[0]


class BettingInterval:
    """A confidence sequence for the mean of values in [0, 1], by hedged betting.

    Waudby-Smith and Ramdas 2024 (arXiv 2010.09686), section 4: for each candidate mean m a gambler bets that
    the values lie above it and one that they lie below; means at which their capital ever reached 1/alpha are
    out. It holds at all times at once, for values that are not yes or no as well.
    """

    def __init__(self, alpha: float = 0.05, grid: int = 1001) -> None:
        self._alpha = alpha
        self._means: Numbers = np.linspace(0.0, 1.0, grid)
        self._log_above: Numbers = np.zeros(grid)
        self._log_below: Numbers = np.zeros(grid)
        self._inside = np.ones(grid, dtype=bool)
        self._sum, self._deviations = 0.5, 0.25  # one imagined value of 1/2 with variance 1/4, as the paper's
        self.samples = 0

    def add(self, value: float) -> None:
        """One more value. Raises ValueError outside of [0, 1]."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"expected a value between 0 and 1, got {value}")
        t = self.samples + 1
        variance = self._deviations / t
        bet = math.sqrt(2.0 * math.log(2.0 / self._alpha) / (variance * t * math.log(1.0 + t)))
        with np.errstate(divide="ignore"):
            up = np.minimum(bet, 0.5 / self._means)
            down = np.minimum(bet, 0.5 / (1.0 - self._means))
        self._log_above += np.log1p(up * (value - self._means))
        self._log_below += np.log1p(-down * (value - self._means))
        capital = np.maximum(self._log_above, self._log_below) - math.log(2.0)
        self._inside &= capital < -math.log(self._alpha)
        self.samples = t
        self._sum += value
        self._deviations += (value - self._sum / (t + 1)) ** 2

    def interval(self) -> tuple[float, float]:
        """The means that are left, to the grid's next value outwards; all of them when none is left."""
        if not self._inside.any():
            return 0.0, 1.0
        step = self._means[1]
        places = np.flatnonzero(self._inside)
        low, high = self._means[places[0]], self._means[places[-1]]
        return float(max(0.0, low - step)), float(min(1.0, high + step))


def decide(tests: Sequence[LikelihoodRatio]) -> list[Decision]:
    """What can be said of several behaviours at once, by Holm's procedure (1979) over each kind of claim.

    The probability that any "holds" is false is at most the smallest alpha, that any "violated" is false at
    most the smallest beta, whenever one looks. Where both could be said, the rate lies between the marks, and
    what has more evidence is said.
    """
    holds = _rejected([(test.p_not_held, test.requirement.alpha) for test in tests])
    violated = _rejected([(test.p_held, test.requirement.beta) for test in tests])
    found: list[Decision] = []
    for test, yes, no in zip(tests, holds, violated, strict=True):
        if yes and no:
            yes = test.p_not_held / test.requirement.alpha <= test.p_held / test.requirement.beta
            no = not yes
        found.append("holds" if yes else "violated" if no else "undecided")
    return found


def _rejected(p_values: Sequence[tuple[float, float]]) -> list[bool]:
    """Holm: the smallest p-value against level / m, the next against level / (m - 1), until one is above."""
    level = min((level for _, level in p_values), default=0.0)
    order = sorted(range(len(p_values)), key=lambda place: p_values[place][0])
    rejected = [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place][0] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def _log_quotient(a: float, b: float) -> float:
    """log(a / b); minus infinity for a = 0. `b` may be 0 only where the other outcome decides at once."""
    if a == 0.0:
        return -math.inf
    return math.inf if b == 0.0 else math.log(a / b)
