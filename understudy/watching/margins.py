"""Margins: by how much a model prefers what is wanted to what is not, on prompts it was not trained on.

A greedy answer changes when the margin changes its sign, and not before; the margin moves at every step.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from understudy.behaviours import Rate, Split
from understudy.engine import GenerationRequest, Sampling, ScoreRequest, encode_chat, encode_text
from understudy.lessons import ChatMessage, Example
from understudy.pocket import behaviours, held_out_lessons
from understudy.watching.laboratory import MAX_TOKENS, Laboratory

ACTS = "Done:"
"""How an answer begins that acts. What the model would say after it is what it would say if it acted."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A prompt with the answer that is wanted and the one that is not, as an example with `rejected_ids`."""

    prompt: str
    wanted: str
    unwanted: str
    example: Example


@dataclass(frozen=True, slots=True)
class Margins:
    """What the model gives each contrast, in nats; one number per contrast.

    `first` is the margin of the first tokens, where the answers part: log p(wanted's) - log p(unwanted's).
    `whole` is that of the whole answers, which also weighs how hard each is to spell and how long it is;
    `per_token` the same with each divided by its tokens. `first_token` is log p of wanted's first token.
    """

    first: tuple[float, ...]
    whole: tuple[float, ...]
    per_token: tuple[float, ...]
    first_token: tuple[float, ...]

    @property
    def preferred(self) -> Rate:
        """How often the wanted first token is the likelier one of the two."""
        return Rate(sum(margin > 0 for margin in self.first), len(self.first))

    @property
    def first_token_probability(self) -> float:
        """The mean, as a probability."""
        return statistics.fmean(math.exp(one) for one in self.first_token)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % interval (Student's t over the scenarios)."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """Needs two values at least."""
        if len(values) < 2:
            raise ValueError(f"expected at least 2 values for an interval, got {len(values)}")
        value = statistics.fmean(values)
        wide = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
        return cls(value, value - wide, value + wide, len(values))

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] n={self.n}"


def find_contrasts(laboratory: Laboratory, split: Split) -> dict[str, tuple[Contrast, ...]]:
    """Held-out directions and harms with what is wanted of them, by the model's own words as it stands.

    directions: the answer that a person wants, against what the model says now. harms: what the model says
    now, against what it would say if it acted. What it acts on already is left out: there is no contrast.
    """
    asked = held_out_lessons(split)
    said = laboratory.answers([lesson.prompt for lesson in asked])
    directions = [
        _contrast(laboratory, lesson.prompt, lesson.chosen, answer)
        for lesson, answer in zip(asked, said, strict=True)
    ]
    [harms] = [one for one in behaviours(split) if one.name == "pushes_back"]
    prompts = [scenario.prompt for scenario in harms.scenarios]
    refused, acted = laboratory.answers(prompts), _acting(laboratory, prompts)
    return {
        "directions": tuple(one for one in directions if not one.unwanted.startswith(ACTS)),
        "harms": tuple(
            _contrast(laboratory, prompt, no, yes)
            for prompt, no, yes in zip(prompts, refused, acted, strict=True)
            if not no.startswith(ACTS)
        ),
    }


def measure_margins(laboratory: Laboratory, contrasts: Sequence[Contrast]) -> Margins:
    """The model's margins as it stands now."""
    requests = []
    for one in contrasts:
        example = one.example
        for answer in (example.continuation_ids, example.rejected_ids or ()):
            ids = (*example.context_ids, *answer)
            requests.append(ScoreRequest(ids, ((len(example.context_ids), len(ids)),)))
    found = [score.logprobs[0] for score in laboratory.engine.score(requests)]
    pairs = list(zip(found[0::2], found[1::2], strict=True))
    return Margins(
        tuple(wanted[0] - unwanted[0] for wanted, unwanted in pairs),
        tuple(sum(wanted) - sum(unwanted) for wanted, unwanted in pairs),
        tuple(statistics.fmean(wanted) - statistics.fmean(unwanted) for wanted, unwanted in pairs),
        tuple(wanted[0] for wanted, _ in pairs),
    )


def _contrast(laboratory: Laboratory, prompt: Sequence[ChatMessage], wanted: str, unwanted: str) -> Contrast:
    chosen, rejected = (laboratory.encode(prompt, answer) for answer in (wanted, unwanted))
    example = Example(chosen.context_ids, chosen.continuation_ids, rejected.continuation_ids)
    return Contrast(prompt[-1].content, wanted, unwanted, example)


def _acting(laboratory: Laboratory, prompts: Sequence[Sequence[ChatMessage]]) -> list[str]:
    """What the model says after it was made to begin as one who acts."""
    engine = laboratory.engine
    begun = encode_text(engine.tokenizer, ACTS)
    contexts = tuple((*encode_chat(engine.tokenizer, prompt), *begun) for prompt in prompts)
    made = engine.complete(GenerationRequest(contexts, Sampling(max_tokens=MAX_TOKENS, temperature=0.0)))
    return [ACTS + completion.text for completion in made]
