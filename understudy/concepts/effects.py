"""What steering does to answers, measured: their perplexity, what a probe finds, what still can be used."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from understudy.concepts.auroc import Average
from understudy.engine import BadRequest, Steer

MOST_PERPLEXITY = 1.5
"""How many times as perplexing as its own answers a steered one may be to the model."""
SHOWN_FROM = 1.0
"""The z-score from which on an answer as a whole is taken to show a concept."""

Steering = tuple[Steer, ...]


@dataclass(frozen=True, slots=True)
class SweptAnswer:
    """What was said to prompt number `prompt`, and what the model makes of it when nothing is steered.

    `nats` is the negative log-likelihood of its tokens, the end of the turn included where it was said.
    `readout` is the concept's, the mean over the tokens before that end; None where there are none. `ended`:
    not cut off at the most tokens that there may be.
    """

    prompt: int
    text: str
    token_ids: tuple[int, ...]
    nats: float
    readout: float | None
    ended: bool


Probe = Callable[[SweptAnswer], bool]
"""Whether what is looked for is in an answer."""


@dataclass(frozen=True)
class Effect:
    """What a steering does: its answers, prompt by prompt and sample by sample, as the reference's.

    `found` is what the probe says of each, `changed` whether it reads otherwise than the reference's.
    `perplexity` is that of the tokens of all answers: its interval is a bootstrap's over answers to these
    prompts (percentiles: Efron and Tibshirani 1993, chapter 13).
    """

    steering: Steering
    answers: tuple[SweptAnswer, ...]
    found: tuple[bool, ...]
    changed: tuple[bool, ...]
    perplexity: Average

    @property
    def strength(self) -> float:
        """That of its first steer; 0 for the reference."""
        return self.steering[0].strength if self.steering else 0.0

    @property
    def hits(self) -> int:
        return sum(self.found)

    @property
    def empty(self) -> int:
        """Answers without a word."""
        return sum(not answer.text for answer in self.answers)

    @property
    def readout(self) -> float | None:
        """The mean over answers that can be read; None where none can."""
        read = [answer.readout for answer in self.answers if answer.readout is not None]
        return float(np.mean(read)) if read else None


@dataclass(frozen=True)
class UsableRange:
    """The effects that do not break the model, in their order, and which of them does most: None where none
    does more than no steering at all.
    """

    effects: tuple[Effect, ...]
    best: Effect | None


def words_probe(words: Sequence[str]) -> Probe:
    """Whether any of these words, or runs of words, stands in the answer, in whatever case.

    Raises BadRequest without a word.
    """
    given = sorted({word.strip() for word in words} - {""}, key=len, reverse=True)
    if not given:
        raise BadRequest(f"expected at least one word to look for in answers, got {list(words)}")
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, given)) + r")(?!\w)", re.IGNORECASE)
    return lambda answer: pattern.search(answer.text) is not None


def readout_probe(least: float = SHOWN_FROM) -> Probe:
    """Whether the model reads the concept in the answer, steered or not, at least so strongly."""
    return lambda answer: answer.readout is not None and answer.readout >= least


def usable(
    effects: Sequence[Effect], *, most_perplexity: float = MOST_PERPLEXITY, fewest: bool = False
) -> UsableRange:
    """Of a sweep's effects those whose perplexity stays below so many times the reference's: also at every
    weaker strength of the same sign, but for `clamp`, which does something at 0 too.

    The best of them has the most hits, or with `fewest` the fewest; of several the weakest.
    """
    reference, *steered = effects
    bound = most_perplexity * reference.perplexity.value
    kept = tuple(
        one
        for one in steered
        if all(other.perplexity.value < bound for other in steered if other is one or _weaker(other, one))
    )
    sign = -1 if fewest else 1
    better = [one for one in kept if sign * one.hits > sign * reference.hits]
    best = max(better, key=lambda one: (sign * one.hits, -abs(one.strength)), default=None)
    return UsableRange(kept, best)


def _weaker(other: Effect, one: Effect) -> bool:
    """Whether one leads through the other: the same steering of the same sign, not so strong."""
    alike = _without_strength(other.steering) == _without_strength(one.steering)
    clamps = any(steer.mode == "clamp" for steer in one.steering)
    same_sign = other.strength * one.strength > 0
    return alike and not clamps and same_sign and abs(other.strength) < abs(one.strength)


def _without_strength(steering: Steering) -> Steering:
    return tuple(replace(steer, strength=1.0) for steer in steering)
