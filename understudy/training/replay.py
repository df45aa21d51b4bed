"""Replay: old examples mixed into a session, so that a lesson does not wash away what must stay."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from understudy.lessons import Example

_SHUFFLES = {"kept": "True", "other": "False", "learned": "learned"}
"""What tells the kinds' shuffles apart. Replay that was recorded depends on it: do not change it."""


class ReplayError(ValueError):
    """A replay pool that cannot serve the shares asked of it."""


@dataclass(frozen=True)
class Replay:
    """Which replay examples go with which lesson: a function of its fields, so a restart repeats it.

    After i lessons floor(i share / (1 - share)) examples have been replayed, so that they are `share` of
    all examples. There are three kinds: `kept` shows behaviour that must survive (also when it was learned),
    `learned` is a lesson learned before, and the rest is `other`. Of the first k replayed, ceil(k
    contrast_share) are kept; of the first m that are not, ceil(m lesson_share) are learned, as soon as the
    pool holds any: before the first lesson there are none, and other examples stand in. Each kind is dealt
    like a deck of cards: shuffled, used up, shuffled anew.

    Raises ReplayError when kept or other examples are needed and the pool holds none.
    """

    pool: Sequence[Example]
    share: float
    contrast_share: float
    lesson_share: float
    seed: int

    def __post_init__(self) -> None:
        if self.share == 0:
            return
        decks = self._decks
        learned_alone = bool(decks["learned"]) and self.lesson_share == 1
        needed = {
            "kept": self.contrast_share > 0,
            "other": self.contrast_share < 1 and not learned_alone,
        }
        missing = [kind for kind, wanted in needed.items() if wanted and not decks[kind]]
        if missing:
            held = ", ".join(f"{len(deck)} {kind}" for kind, deck in decks.items())
            raise ReplayError(
                f"expected {' and '.join(missing)} examples in the replay pool for a replay share of "
                f"{self.share:g}, a contrast share of {self.contrast_share:g} and a lesson share of "
                f"{self.lesson_share:g}, got {held}: add some, or set replay to 0"
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
        kept, is_kept = _dealt(draw, self.contrast_share)
        if is_kept:
            return self._card("kept", kept)
        rest = draw - kept
        learned, is_learned = _dealt(rest, self.lesson_share) if self._decks["learned"] else (0, False)
        return self._card("learned", learned) if is_learned else self._card("other", rest - learned)

    def _card(self, kind: str, number: int) -> Example:
        """Card `number` of all that were ever dealt from the kind's deck."""
        deck = self._decks[kind]
        turn, card = divmod(number, len(deck))
        order = random.Random(f"{self.seed} {_SHUFFLES[kind]} {turn}").sample(range(len(deck)), len(deck))
        return deck[order[card]]

    @cached_property
    def _decks(self) -> dict[str, list[Example]]:
        decks: dict[str, list[Example]] = {"kept": [], "learned": [], "other": []}
        for example in self.pool:
            decks["kept" if example.kept else "learned" if example.learned else "other"].append(example)
        return decks


def _dealt(draw: int, share: float) -> tuple[int, bool]:
    """How many of the draws before this one fell to a kind with this share, and whether this one does."""
    before, after = (math.ceil(draws * _exact(share)) for draws in (draw, draw + 1))
    return before, after > before


def _exact(share: float) -> Fraction:
    """0.1 as 1/10: the nearest binary number would put a floor or a ceiling one off."""
    return Fraction(share).limit_denominator(1_000_000)
