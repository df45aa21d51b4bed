"""Scenarios: what a model is asked, and how its answer is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from understudy.lessons import ChatMessage

Split = Literal["train", "development", "test"]
Prompt = tuple[ChatMessage, ...]
"""What a model is asked: the messages before its answer."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One prompt of a behaviour. `target` is what its judge looks for: an object's name, an exact answer.

    Without a prompt the target is a document, which can be scored and not answered. Scenarios of one
    `group` are in the same split.
    """

    prompt: Prompt
    target: str = ""
    group: str = ""

    def fill(self, text: str) -> str:
        """`text` with the target in place of `{target}`."""
        return text.replace("{target}", self.target)


Judge = Callable[[Scenario, str], bool]
"""True when the answer shows the behaviour. A judge raises rather than guess."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Something a model does or does not do, with the scenarios of one split that show it."""

    name: str
    wanted: str
    scenarios: tuple[Scenario, ...]
    judge: Judge
