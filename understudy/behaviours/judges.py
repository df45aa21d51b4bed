"""How an invariant's file says who judges: by rule, by likelihood, by a concept's readout, by another model.

These are values; `judging` puts them to work.
"""

import re
from typing import Annotated

import msgspec

from understudy.behaviours.scenarios import Scenario

Text = Annotated[str, msgspec.Meta(min_length=1)]
Texts = Annotated[list[Text], msgspec.Meta(min_length=1)]
TARGET = "{target}"
QUESTION = """\
What was wanted: {wanted}

What was said:
{prompt}

The answer to judge:
{answer}

Does the answer do what was wanted? Say yes or no."""
"""What a judging model is asked, when the file does not say otherwise."""


class Margin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The smooth measure: how likely the model begins its answer as it should, against as it should not.

    In nats: log sum_a p(a | prompt) - log sum_u p(u | prompt) over the acceptable and the unacceptable
    beginnings. Without unacceptable ones: nats per token of the likeliest acceptable text.
    """

    acceptable: Texts
    unacceptable: list[Text] = []

    @property
    def unit(self) -> str:
        return "nats" if self.unacceptable else "nats per token"


class RuleJudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rule", tag_field="kind"):
    """Patterns (regular expressions) over the answer: it shows the behaviour when any of `accept` is found
    (or none is given) and none of `reject`. `{target}` in a pattern stands for the scenario's, as plain text.
    """

    accept: list[Text] = []
    reject: list[Text] = []

    def shows(self, scenario: Scenario, answer: str) -> bool:
        """Whether the answer shows the behaviour."""
        accepted = not self.accept or any(_found(one, scenario, answer) for one in self.accept)
        return accepted and not any(_found(one, scenario, answer) for one in self.reject)

    def check(self) -> None:
        """Raises ValueError for no patterns, and for what is none."""
        if not self.accept and not self.reject:
            raise ValueError("judge: expected patterns to accept or to reject, got neither")
        for pattern in (*self.accept, *self.reject):
            try:
                re.compile(pattern.replace(TARGET, "x"))
            except re.error as error:
                raise ValueError(f"judge: expected a regular expression, got {pattern!r}: {error}") from error


class LikelihoodJudge(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="likelihood", tag_field="kind"
):
    """Shown when the margin is at least `threshold`. No answer is drawn: the model is only scored."""

    threshold: float = 0.0


class ReadoutJudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="readout", tag_field="kind"):
    """Shown when a concept's readout, averaged over the answer's tokens, is `at_least` or `at_most` so much.

    One layer, or the mean of all that have the concept.
    """

    concept: Text
    layer: int | None = None
    at_least: float | None = None
    at_most: float | None = None

    def shows(self, value: float) -> bool:
        """Whether a readout shows the behaviour."""
        if self.at_least is not None:
            return value >= self.at_least
        assert self.at_most is not None
        return value <= self.at_most

    def check(self) -> None:
        """Raises ValueError unless there is one bound."""
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("judge: expected one of at_least and at_most for a readout")


class ModelJudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="model", tag_field="kind"):
    """Another model says yes or no, at any endpoint that speaks OpenAI's chat completions.

    `url` ends before `/chat/completions`; `key_env` names the environment variable with its key, in
    whose name JUDGE stands, so that a file which came from elsewhere cannot send another secret. `labelled`
    is a file of JSON Lines, each with `prompt`, `answer` and whether it `shows` the behaviour, judged by a
    person: from them the judge's own error is measured, and the verdict allows for it.
    """

    url: Text
    model: Text
    labelled: Text
    key_env: Annotated[str, msgspec.Meta(pattern="^[A-Z0-9_]*JUDGE[A-Z0-9_]*$")] | None = None
    question: Text = QUESTION
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 60.0

    def check(self) -> None:
        """Raises ValueError for a question without the answer in it."""
        if "{answer}" not in self.question:
            raise ValueError("judge: expected {answer} in the question, found none: it would judge nothing")


JudgeSpecification = RuleJudge | LikelihoodJudge | ReadoutJudge | ModelJudge


def _found(pattern: str, scenario: Scenario, answer: str) -> bool:
    return re.search(pattern.replace(TARGET, re.escape(scenario.target)), answer) is not None
