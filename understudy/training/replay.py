"""Replay: old examples mixed into a session, so that a lesson does not wash away what must stay."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from understudy.lessons import Example


class ReplayError(ValueError):
    """A replay pool that cannot serve the shares asked of it."""


@dataclass(frozen=True)
class Replay:
    """Which replay examples go with which lesson: a function of its fields, so a restart repeats it.

    After i lessons floor(i share / (1 - share)) examples have been replayed, so that they are `share` of
    all examples; of the first k replayed, ceil(k contrast_share) are `kept` ones, which show behaviour
    that must survive. Each kind is dealt like a deck of cards: shuffled, used up, shuffled anew.

    Raises ReplayError when a kind is needed that the pool does not hold.
    """

    pool: Sequence[Example]
    share: float
    contrast_share: float
    seed: int

    def __post_init__(self) -> None:
        if self.share == 0:
            return
        kept = sum(example.kept for example in self.pool)
        needed = {"kept": self.contrast_share > 0, "other": self.contrast_share < 1}
        held = {"kept": kept > 0, "other": kept < len(self.pool)}
        missing = [kind for kind, wanted in needed.items() if wanted and not held[kind]]
        if missing:
            raise ReplayError(
                f"expected {' and '.join(missing)} examples in the replay pool for a replay share of "
                f"{self.share:g} and a contrast share of {self.contrast_share:g}, got {kept} kept and "
                f"{len(self.pool) - kept} other: add some, or set replay to 0"
            )

    def due(self, lesson: int) -> tuple[Example, ...]:
        """The examples that go with the lesson of this number, counted from 1 over all sessions."""
        if lesson < 1:
            raise ValueError(f"expected a lesson number from 1, got {lesson}")
        return tuple(self._draw(draw) for draw in range(self._total(lesson - 1), self._total(lesson)))

    def _total(self, lessons: int) -> int:
        share = _exact(self.share)
        return math.floor(lessons * share / (1 - share))

    def _draw(self, draw: int) -> Example:
        contrast = _exact(self.contrast_share)
        kept_before = math.ceil(draw * contrast)
        kept = math.ceil((draw + 1) * contrast) > kept_before
        deck = [example for example in self.pool if example.kept is kept]
        turn, card = divmod(kept_before if kept else draw - kept_before, len(deck))
        order = random.Random(f"{self.seed} {kept} {turn}").sample(range(len(deck)), len(deck))
        return deck[order[card]]


def _exact(share: float) -> Fraction:
    """0.1 as 1/10: the nearest binary number would put a floor or a ceiling one off."""
    return Fraction(share).limit_denominator(1_000_000)
