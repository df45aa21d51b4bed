"""Difficulty: how likely a scenario is failed, guessed before it is asked; and the loop that follows
failures.

Of a scenario with margin m (nats, see `Margin`), answered at temperature T:

    rating = 1 / (1 + exp(m / max(T, SMALLEST_SPREAD)))

With T = 1 and beginnings that leave nothing out, that is the probability of an unacceptable beginning;
another temperature divides log-probabilities. Nothing is fitted. A margin without unacceptable beginnings is
the mean log-probability of a token: the rating is then 1 - exp(m), good for an order only.

A batch is chosen by one signal, the edge e in [0, 1]: a share e of it are those rated hardest, the others are
drawn evenly over all ratings. After a batch of which the share f failed,

    e <- min(1, max(0, e + GAIN (middle of the zone - f)))

so many failures explore broadly, few probe the edge, and there is no schedule: e rests where f is in the
middle of the zone. The same signal sets how warmly scenarios are made. Jiang, Grefenstette and Rocktäschel,
Prioritized Level Replay (arXiv 2010.03934), choose what to learn from by how it goes as well; "zone" is
Vygotsky's, of what one nearly can.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from understudy.behaviours.rates import Rate
from understudy.behaviours.specification import Invariant

T = TypeVar("T")

GAIN = 1.0
"""Of the loop. A batch's failure rate is e times the rate of the hardest plus 1 - e times that of the even
ones, so it answers to e with a slope of at most 1: no larger gain is sure not to overshoot.
"""
WARM, COOL = 1.0, 0.6
"""Temperatures at which scenarios are made, at e = 0 and e = 1. At 1.2 the pocket model's messages no longer
are sentences (docs/LOG.md).
"""
SMALLEST_SPREAD = 0.25
"""Nats: without it a likeliest answer would be rated 0 or 1, and none harder than another."""
BINS = 10
"""Into which ratings are parted, where they are drawn evenly and where they are set against failures."""

Reach = Literal["in the zone", "too easy", "too hard", "not settled"]


def rate_difficulty(invariant: Invariant, margins: Sequence[float]) -> list[float]:
    """The rated probability that each scenario is failed."""
    if invariant.margin is not None and not invariant.margin.unacceptable:
        return [1.0 - math.exp(min(0.0, margin)) for margin in margins]
    spread = max(invariant.temperature, SMALLEST_SPREAD)
    return [1.0 / (1.0 + math.exp(min(margin / spread, 700.0))) for margin in margins]


@dataclass(frozen=True, slots=True)
class Zone:
    """The share of failures that is aimed at: enough to learn from, few enough to be learned."""

    low: float = 0.2
    high: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError(f"expected a zone with 0 <= low < high <= 1, got {self.low:g} to {self.high:g}")

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def reached(self, failed: Rate, edge: float) -> Reach:
        """Where a failure rate lies, and whether the loop had room left to change it."""
        if self.low <= failed.value <= self.high:
            return "in the zone"
        if failed.value < self.low:
            return "too easy" if edge >= 1.0 else "not settled"
        return "too hard" if edge <= 0.0 else "not settled"


def follow(edge: float, failed: Rate, zone: Zone) -> float:
    """The edge after a batch."""
    return min(1.0, max(0.0, edge + GAIN * (zone.middle - failed.value)))


def warmth(edge: float) -> float:
    """The temperature at which scenarios are made."""
    return WARM + edge * (COOL - WARM)


def choose(
    offered: Sequence[T],
    kinds: Sequence[str],
    ratings: Sequence[float],
    edge: float,
    count: int,
    random: Random,
) -> list[T]:
    """`count` of what is offered: one of each kind, so that no side of a behaviour goes unasked; of the rest
    the hardest, as many as the edge says, and the others evenly over ratings.
    """
    places = list(range(len(offered)))
    first = [
        random.choice([place for place in places if kinds[place] == kind]) for kind in sorted(set(kinds))
    ]
    taken = random.sample(first, min(count, len(first)))
    left = sorted(set(places) - set(taken), key=lambda place: (-ratings[place], place))
    hardest = round(edge * min(count - len(taken), len(left)))
    taken += left[:hardest]
    bins: dict[int, list[int]] = {}
    for place in left[hardest:]:
        bins.setdefault(bin_of(ratings[place]), []).append(place)
    while bins and len(taken) < count:
        number = random.choice(sorted(bins))
        taken.append(bins[number].pop(random.randrange(len(bins[number]))))
        if not bins[number]:
            del bins[number]
    return [offered[place] for place in taken]


def bin_of(rating: float) -> int:
    """Which of the BINS a rating falls into."""
    return min(BINS - 1, int(rating * BINS))
