"""Scenarios to choose from: made anew for every batch, and sifted before any is asked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from understudy.behaviours.difficulty import warmth
from understudy.behaviours.dream_log import Dropped, Made
from understudy.behaviours.likeness import HeldOut, Texts, text_of
from understudy.behaviours.paraphrasing import keeps, paraphrase
from understudy.behaviours.recombination import Sketch, Stock
from understudy.behaviours.scenarios import Scenario
from understudy.behaviours.specification import Invariant
from understudy.behaviours.subject import Dreamer, Speech

TRIES = 8
"""Recombinations drawn for each that is wanted: two in five are held out, and ever more were asked."""
OF_ONE_GROUP = 8
"""After so many of one group in a round no more of it are made: what was failed draws others of its kind, and
would soon be all there is. When it was, the model learned nothing else (docs/LOG.md). The last batch that has
some may bring a few above.
"""
PARAPHRASE_TOKENS = 64
"""A person's message that takes more is not ended, and dropped."""


@dataclass(frozen=True, slots=True)
class Imagined:
    """A scenario that may be asked."""

    invariant: Invariant
    sketch: Sketch
    made: Made

    @property
    def scenario(self) -> Scenario:
        return self.sketch.scenario


@dataclass(frozen=True, slots=True)
class Ground:
    """Where scenarios of one invariant come from: its stock, and those that were failed in this round."""

    stock: Stock
    failed: Sequence[Sketch]

    def draw(self, edge: float, random: Random) -> Sketch:
        """What to say anew: towards the edge rather what was failed, whose neighbours are not far from it."""
        if self.failed and random.random() < edge:
            return random.choice(self.failed)
        return self.stock.draw(random)


class Sieve:
    """What may be asked: nothing held out, nothing that was asked before, nothing without room for an answer.

    It counts what it drops, by invariant and reason.
    """

    def __init__(
        self, held: HeldOut, asked: Texts, groups: Mapping[tuple[str, str], int], dreamer: Dreamer
    ) -> None:
        """`asked` are the texts of all that was asked ever, `groups` counts what this round asked of each
        invariant's groups.
        """
        self._held, self._asked, self._groups, self._dreamer = held, asked, groups, dreamer
        self._offered = Texts()
        self._dropped: dict[str, Counter[Dropped]] = {}

    @property
    def dropped(self) -> dict[str, dict[Dropped, int]]:
        return {name: dict(sorted(counted.items())) for name, counted in sorted(self._dropped.items())}

    def passes(self, invariant: Invariant, scenario: Scenario) -> bool:
        """Whether it may be asked; each once."""
        text = text_of(scenario)
        if self._held.leaks(invariant, scenario):
            return self.drop(invariant, "leak")
        if scenario.group and self._groups.get((invariant.name, scenario.group), 0) >= OF_ONE_GROUP:
            return self.drop(invariant, "enough")
        if self._asked.has_alike(text) or self._offered.has_alike(text):
            return self.drop(invariant, "duplicate")
        if not self._has_room(invariant, scenario):
            return self.drop(invariant, "too long")
        self._offered.add(text)
        return True

    def drop(self, invariant: Invariant, why: Dropped) -> bool:
        """Count one; False, for whoever asks whether it passes."""
        self._dropped.setdefault(invariant.name, Counter())[why] += 1
        return False

    def _has_room(self, invariant: Invariant, scenario: Scenario) -> bool:
        """For the answer, and for another one with the answer and the instruction before it."""
        assert invariant.instruction is not None, "what cannot be instructed is not dreamed"
        whole = self._dreamer.length(invariant.instruction.into(scenario, "-"))
        return whole + 2 * invariant.max_tokens <= self._dreamer.context_length


def imagine(
    grounds: Mapping[str, Ground], each: int, dreamer: Dreamer, sieve: Sieve, edge: float, random: Random
) -> list[Imagined]:
    """About `each` scenarios of every invariant: half recombined, half said anew by the model."""
    found: list[Imagined] = []
    drawn: list[tuple[Invariant, Sketch]] = []
    for _, ground in sorted(grounds.items()):
        found += _recombined(ground.stock, sieve, (each + 1) // 2, random)
        drawn += [(ground.stock.invariant, ground.draw(edge, random)) for _ in range(each // 2)]
    speech = Speech(warmth(edge), PARAPHRASE_TOKENS, random.getrandbits(31))
    said = paraphrase([sketch for _, sketch in drawn], dreamer, speech, random)
    for (invariant, sketch), prompt in zip(drawn, said, strict=True):
        if prompt is None:
            sieve.drop(invariant, "not one turn")
        elif not keeps(sketch, prompt):
            sieve.drop(invariant, "words lost")
        elif sieve.passes(invariant, scenario := replace(sketch.scenario, prompt=prompt)):
            found.append(Imagined(invariant, replace(sketch, scenario=scenario), "paraphrased"))
    return found


def _recombined(stock: Stock, sieve: Sieve, count: int, random: Random) -> list[Imagined]:
    found: list[Imagined] = []
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        sketch = stock.draw(random)
        if sieve.passes(stock.invariant, sketch.scenario):
            found.append(Imagined(stock.invariant, sketch, "recombined"))
    return found
