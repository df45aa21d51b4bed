"""Ask a model every scenario of some behaviours and count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from understudy.behaviours.rates import Rate
from understudy.behaviours.scenarios import Behaviour, Scenario
from understudy.lessons import ChatMessage

Answer = Callable[[Sequence[tuple[ChatMessage, ...]]], Sequence[str]]
"""Answers many prompts, one string each, in order."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """How often a behaviour showed, with every answer kept so that a person can read them."""

    behaviour: str
    rate: Rate
    answers: tuple[tuple[Scenario, str, bool], ...]


def measure(behaviours: Sequence[Behaviour], answer: Answer) -> dict[str, Measurement]:
    """Put all scenarios to the model in one call and judge each answer.

    Raises ValueError when a behaviour has no scenario or the model did not answer every prompt: a
    scenario that never reached the model must not count as anything.
    """
    for behaviour in behaviours:
        if not behaviour.scenarios:
            raise ValueError(f"behaviour {behaviour.name!r} has no scenarios: nothing can be measured")
    prompts = [scenario.prompt for behaviour in behaviours for scenario in behaviour.scenarios]
    answers = list(answer(prompts))
    if len(answers) != len(prompts):
        raise ValueError(f"expected {len(prompts)} answers, got {len(answers)}: not every scenario was answered")
    found: dict[str, Measurement] = {}
    start = 0
    for behaviour in behaviours:
        own = answers[start : start + len(behaviour.scenarios)]
        start += len(own)
        judged = tuple(
            (scenario, text, behaviour.judge(scenario, text))
            for scenario, text in zip(behaviour.scenarios, own, strict=True)
        )
        shown = sum(verdict for _, _, verdict in judged)
        found[behaviour.name] = Measurement(behaviour.name, Rate(shown, len(judged)), judged)
    return found
