"""Invariants as people write them: one TOML file each, with what is wanted, scenarios, a judge, and marks.

A scenario's split follows from its own text, so it never changes when others come or go, and no text can be
in two splits.
"""

import hashlib
import itertools
import json
import re
import string
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from understudy.behaviours.scenarios import Scenario, Split
from understudy.behaviours.sequential import Requirement
from understudy.lessons import ChatMessage

SHARES: Mapping[Split, float] = {"train": 0.6, "development": 0.2, "test": 0.2}
"""How scenarios are dealt out."""
MOST_SCENARIOS = 100_000
"""Slots multiply: beyond this a file is taken for a mistake."""

Text = Annotated[str, msgspec.Meta(min_length=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]*$")]
Texts = Annotated[list[Text], msgspec.Meta(min_length=1)]


class InvalidInvariant(ValueError):
    """A file that is no invariant, or one that could never be decided."""


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a scenario's prompt."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt with slots in braces: a text (the user's), or turns. `target` is what the judge looks for."""

    prompt: Text | list[Turn]
    target: str = ""


class Scenarios(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where scenarios come from: templates filled with all combinations of slots, and files of JSON Lines."""

    templates: list[Template] = []
    slots: dict[Name, Texts] = {}
    files: list[Text] = []


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


class InvariantFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file. `kind`: whether it is to be learned (`wanted`) or must survive what is learned (`kept`)."""

    wanted: Text
    kind: Literal["wanted", "kept"]
    scenarios: Scenarios
    judge: RuleJudge
    required: float
    indifferent: float
    alpha: float = 0.05
    beta: float = 0.05


class Invariant(msgspec.Struct, frozen=True, kw_only=True):
    """What a model must do, or must go on doing, and how that is found out."""

    name: str
    wanted: str
    kind: Literal["wanted", "kept"]
    requirement: Requirement
    judge: RuleJudge
    scenarios: dict[Split, tuple[Scenario, ...]]


def read_invariants(folder: Path) -> tuple[Invariant, ...]:
    """All invariants of a folder, by name. Raises InvalidInvariant for the first that is none."""
    return tuple(read_invariant(file) for file in sorted(folder.glob("*.toml")))


def read_invariant(file: Path) -> Invariant:
    """The invariant in a TOML file, named like the file. Raises InvalidInvariant, naming the field."""
    try:
        given = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), InvariantFile)
        requirement = Requirement(given.required, given.indifferent, given.alpha, given.beta)
        _check_patterns(given.judge)
        found = list(dict.fromkeys(_scenarios(given.scenarios, file.parent)))
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise InvalidInvariant(f"{file}: {error}") from error
    splits: dict[Split, tuple[Scenario, ...]] = {
        split: tuple(one for one in found if split_of(one) == split) for split in SHARES
    }
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
    )


def split_of(scenario: Scenario) -> Split:
    """Which split a scenario belongs to, by its prompt alone."""
    text = json.dumps([[turn.role, turn.content] for turn in scenario.prompt])
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "test"


def _scenarios(given: Scenarios, folder: Path) -> Iterator[Scenario]:
    if not given.templates and not given.files:
        raise ValueError("scenarios: expected templates or files, got neither")
    count = 0
    for template in given.templates:
        for scenario in _filled(template, given.slots):
            count += 1
            if count > MOST_SCENARIOS:
                raise ValueError(f"scenarios: expected at most {MOST_SCENARIOS}, the slots multiply to more")
            yield scenario
    for name in given.files:
        yield from _read_lines(folder / name)


def _filled(template: Template, slots: Mapping[str, Sequence[str]]) -> Iterator[Scenario]:
    turns = [Turn("user", template.prompt)] if isinstance(template.prompt, str) else template.prompt
    texts = [*(turn.content for turn in turns), template.target]
    used = list(dict.fromkeys(name for text in texts for name in _slots_of(text)))
    missing = [name for name in used if name not in slots]
    if missing:
        raise ValueError(
            f"scenarios: expected words for the slot {{{missing[0]}}}, slots has {sorted(slots)}"
        )
    for words in itertools.product(*(slots[name] for name in used)):
        filling = dict(zip(used, words, strict=True))
        prompt = tuple(ChatMessage(turn.role, turn.content.format(**filling)) for turn in turns)
        yield Scenario(prompt, template.target.format(**filling))


def _slots_of(text: str) -> Iterator[str]:
    for _, name, form, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            raise ValueError(f"scenarios: expected slots such as {{thing}}, got {{{name}}} in {text!r}")
        yield name


def _read_lines(file: Path) -> Iterator[Scenario]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            given = msgspec.json.decode(line, type=Template)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{file.name}, line {number}: {error}") from error
        turns = [Turn("user", given.prompt)] if isinstance(given.prompt, str) else given.prompt
        yield Scenario(tuple(ChatMessage(turn.role, turn.content) for turn in turns), given.target)


def _found(pattern: str, scenario: Scenario, answer: str) -> bool:
    filled = pattern.replace("{target}", re.escape(scenario.target))
    return re.search(filled, answer) is not None


def _check_patterns(judge: RuleJudge) -> None:
    if not judge.accept and not judge.reject:
        raise ValueError("judge: expected patterns to accept or to reject, got neither")
    for pattern in (*judge.accept, *judge.reject):
        try:
            re.compile(pattern.replace("{target}", "x"))
        except re.error as error:
            raise ValueError(f"judge: expected a regular expression, got {pattern!r}: {error}") from error
