"""Scenarios: what a model is asked, and how its answer is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from understudy.lessons import ChatMessage

Split = Literal["train", "development", "test"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One prompt of a behaviour. `target` is what its judge looks for: an object's name, an exact answer."""

    prompt: tuple[ChatMessage, ...]
    target: str = ""


Judge = Callable[[Scenario, str], bool]
"""True when the answer shows the behaviour. A judge raises rather than guess."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Something a model does or does not do, with the scenarios of one split that show it."""

    name: str
    wanted: str
    scenarios: tuple[Scenario, ...]
    judge: Judge
