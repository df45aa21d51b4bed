"""Ask a model every scenario of some behaviours and count."""

from collections.abc import Callable, Mapping, Sequence
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

    Behaviours may share scenarios: each prompt is asked once, and its answer judged by each of them.
    Raises ValueError when a behaviour has no scenario or the model did not answer every prompt: a
    scenario that never reached the model must not count as anything.
    """
    for behaviour in behaviours:
        if not behaviour.scenarios:
            raise ValueError(f"behaviour {behaviour.name!r} has no scenarios: nothing can be measured")
    prompts = list(dict.fromkeys(scenario.prompt for one in behaviours for scenario in one.scenarios))
    answers = list(answer(prompts))
    if len(answers) != len(prompts):
        raise ValueError(
            f"expected {len(prompts)} answers, got {len(answers)}: not every scenario was answered"
        )
    said = dict(zip(prompts, answers, strict=True))
    return {behaviour.name: _judge(behaviour, said) for behaviour in behaviours}


def _judge(behaviour: Behaviour, said: Mapping[tuple[ChatMessage, ...], str]) -> Measurement:
    judged = tuple(
        (scenario, said[scenario.prompt], behaviour.judge(scenario, said[scenario.prompt]))
        for scenario in behaviour.scenarios
    )
    return Measurement(behaviour.name, Rate(sum(shown for *_, shown in judged), len(judged)), judged)
