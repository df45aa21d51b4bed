"""Rates with intervals: how often something happened, and how sure we may be of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`successes` out of `n` independent scenarios.

    Intervals are Clopper-Pearson (1934): exact, so their coverage is never below what they say.
    """

    successes: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.n:
            raise ValueError(f"expected 0 <= successes <= n, got {self.successes} of {self.n}")

    @property
    def value(self) -> float:
        """The observed share; 0 scenarios have none."""
        if self.n == 0:
            raise ValueError("a rate over 0 scenarios has no value: give at least one scenario")
        return self.successes / self.n

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The exact two-sided interval at `confidence`."""
        if self.n == 0:
            return (0.0, 1.0)
        from scipy.stats import binomtest  # half a second, that commands which count nothing need not wait

        found = binomtest(self.successes, self.n).proportion_ci(confidence, method="exact")
        return (float(found.low), float(found.high))

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}] n={self.n}"
