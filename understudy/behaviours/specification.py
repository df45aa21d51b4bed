"""Invariants as people write them: one TOML file each, with what is wanted, scenarios, a judge, and marks."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from understudy.behaviours.judges import (
    JudgeSpecification,
    LikelihoodJudge,
    Margin,
    ReadoutJudge,
    Text,
)
from understudy.behaviours.scenarios import Prompt, Scenario, Split
from understudy.behaviours.sequential import Requirement
from understudy.behaviours.sources import Template, deal, read_templates, scenarios_of
from understudy.lessons import ChatMessage

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]*$")]
Kind = Literal["wanted", "kept"]
"""`wanted` is to be learned, `kept` must survive what is learned."""


class InvalidInvariant(ValueError):
    """A file that is no invariant, or one that could never be decided."""


class Scenarios(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where scenarios come from: templates filled with all combinations of slots, files of JSON Lines, and
    paths into conversations (`talk.md`, or `talk.md#message-id`).

    With `split_by`, scenarios whose fillings of these slots are the same stay together in one split, so that
    the words of the test split stand in no other.
    """

    templates: list[Template] = []
    slots: dict[Name, Annotated[list[Text], msgspec.Meta(min_length=1)]] = {}
    split_by: list[Name] = []
    files: list[Text] = []
    conversations: list[Text] = []


class Instruction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wanted behaviour spelled out for the model: as a system message `before` the prompt, or as the
    person's next turn `after` its answer. It is stripped before anything is trained.
    """

    text: Text
    place: Literal["before", "after"] = "before"

    def into(self, scenario: Scenario, answer: str) -> Prompt:
        """The prompt with the instruction; `answer` is what the model said without it."""
        said = scenario.fill(self.text)
        if self.place == "before":
            return (ChatMessage("system", said), *scenario.prompt)
        return (*scenario.prompt, ChatMessage("assistant", answer), ChatMessage("user", said))


class Prediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is asked what it would do, and the beginnings that say that it would, or would not."""

    question: Text
    would: Annotated[list[Text], msgspec.Meta(min_length=1)]
    would_not: Annotated[list[Text], msgspec.Meta(min_length=1)]


class InvariantFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file. Its fields are described in docs/behaviours.md."""

    wanted: Text
    kind: Kind
    scenarios: Scenarios
    judge: JudgeSpecification
    required: float
    indifferent: float
    alpha: float = 0.05
    beta: float = 0.05
    margin: Margin | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 48
    instruction: Instruction | None = None
    prediction: Prediction | None = None
    approved_by: str = ""


class Invariant(msgspec.Struct, frozen=True, kw_only=True):
    """What a model must do, or must go on doing, and how that is found out.

    `folder` is where its files lie. `templates` are those of its scenarios, with `slots` to fill them.
    `approved_by` names the person who let lessons dreamed for it be trained without being asked each time.
    """

    name: str
    wanted: str
    kind: Kind
    requirement: Requirement
    judge: JudgeSpecification
    scenarios: dict[Split, tuple[Scenario, ...]]
    margin: Margin | None = None
    temperature: float = 0.0
    max_tokens: int = 48
    instruction: Instruction | None = None
    prediction: Prediction | None = None
    approved_by: str = ""
    folder: Path = Path()
    templates: tuple[Template, ...] = ()
    slots: dict[str, list[str]] = {}
    split_by: tuple[str, ...] = ()


ReadConversation = Callable[[str], tuple[Prompt, ...]]
"""The prompts at a path into the conversations: those that the model answered, or that of one message."""


def no_conversations(path: str) -> tuple[Prompt, ...]:
    """For where there are none. Raises ValueError."""
    raise ValueError(f"scenarios: expected a workspace with conversations to find {path} in")


def read_invariants(
    folder: Path, conversations: ReadConversation = no_conversations
) -> tuple[Invariant, ...]:
    """All invariants of a folder, by name. Raises InvalidInvariant for the first that is none."""
    return tuple(read_invariant(file, conversations) for file in sorted(folder.glob("*.toml")))


def read_invariant(file: Path, conversations: ReadConversation = no_conversations) -> Invariant:
    """The invariant in a TOML file, named like the file. Raises InvalidInvariant, naming the field."""
    try:
        given = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), InvariantFile)
        requirement = Requirement(given.required, given.indifferent, given.alpha, given.beta)
        found = _scenarios(given.scenarios, file.parent, conversations)
        _check(given, found)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise InvalidInvariant(f"{file}: {error}") from error
    splits = deal(found)
    if not splits["test"]:
        raise InvalidInvariant(
            f"{file}: expected scenarios in the test split, none of {len(found)} fell there: give more"
        )
    return Invariant(
        name=file.stem,
        wanted=given.wanted,
        kind=given.kind,
        requirement=requirement,
        judge=given.judge,
        scenarios=splits,
        margin=given.margin,
        temperature=given.temperature,
        max_tokens=given.max_tokens,
        instruction=given.instruction,
        prediction=given.prediction,
        approved_by=given.approved_by,
        folder=file.parent,
        templates=tuple(given.scenarios.templates),
        slots=dict(given.scenarios.slots),
        split_by=tuple(given.scenarios.split_by),
    )


def _scenarios(given: Scenarios, folder: Path, conversations: ReadConversation) -> tuple[Scenario, ...]:
    if not given.templates and not given.files and not given.conversations:
        raise ValueError("scenarios: expected templates, files or conversations, got none of them")
    found = dict.fromkeys(scenarios_of(given.templates, given.slots, given.split_by))
    for name in given.files:
        found |= dict.fromkeys(read_templates(folder / name))
    for path in given.conversations:
        found |= dict.fromkeys(Scenario(prompt) for prompt in conversations(path))
    return tuple(found)


def _check(given: InvariantFile, found: tuple[Scenario, ...]) -> None:
    """Raises ValueError for parts that do not go together."""
    judge, margin = given.judge, given.margin
    if any(not scenario.prompt and not scenario.target for scenario in found):
        raise ValueError("scenarios: expected a prompt, or a document as the target, got neither")
    if not isinstance(judge, LikelihoodJudge):
        judge.check()
        if any(not scenario.prompt for scenario in found):
            raise ValueError(
                "scenarios: expected prompts, got documents, which only a likelihood judge takes"
            )
    if margin is None and not isinstance(judge, ReadoutJudge):
        raise ValueError(
            "margin: expected acceptable beginnings of an answer, got none: beside yes or no, a smooth "
            "measure is always taken"
        )
    texts = () if margin is None else (*margin.acceptable, *margin.unacceptable)
    if any(not scenario.fill(text) for text in texts for scenario in found):
        raise ValueError("margin: expected a target in each scenario to stand in it, got one without")
