"""Where scenarios come from, and how they are dealt into splits.

A scenario's split follows from its group (or else its own text) alone, so it never changes when others come
or go, and nothing can be in two splits.
"""

import hashlib
import itertools
import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from understudy.behaviours.scenarios import Scenario, Split
from understudy.conversation import Conversation
from understudy.lessons import ChatMessage, chat_context

SHARES: Mapping[Split, float] = {"train": 0.6, "development": 0.2, "test": 0.2}
"""How scenarios are dealt out."""
MOST_SCENARIOS = 100_000
"""Slots multiply: beyond this a file is taken for a mistake."""

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a scenario's prompt."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt with slots in braces: a text (the user's), or turns. `target` is what the judge looks for;
    without turns it is a document. Of JSON Lines, those of one `group` stay together in one split.
    """

    prompt: Text | list[Turn]
    target: str = ""
    group: str = ""

    @property
    def turns(self) -> list[Turn]:
        return [Turn("user", self.prompt)] if isinstance(self.prompt, str) else self.prompt


def split_of(scenario: Scenario) -> Split:
    """Which split a scenario belongs to: by its group, else its prompt, else the document that it is."""
    if scenario.group:
        text = scenario.group
    elif scenario.prompt:
        text = json.dumps([[turn.role, turn.content] for turn in scenario.prompt])
    else:
        text = scenario.target
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "test"


def deal(scenarios: Iterable[Scenario]) -> dict[Split, tuple[Scenario, ...]]:
    """Scenarios by split. A prompt that stands in two groups goes with the first of them."""
    dealt: dict[Split, list[Scenario]] = {split: [] for split in SHARES}
    homes: dict[tuple[ChatMessage, ...], Split] = {}
    for scenario in scenarios:
        split = split_of(scenario)
        if scenario.prompt:
            split = homes.setdefault(scenario.prompt, split)
        dealt[split].append(scenario)
    return {split: tuple(found) for split, found in dealt.items()}


def scenarios_of(
    templates: Iterable[Template], slots: Mapping[str, Sequence[str]], split_by: Sequence[str] = ()
) -> Iterator[Scenario]:
    """Templates filled with all combinations of their slots. Raises ValueError for slots without words."""
    unknown = [name for name in split_by if name not in slots]
    if unknown:
        raise ValueError(f"scenarios: expected split_by to name slots, got {unknown[0]!r} of {sorted(slots)}")
    count = 0
    for template in templates:
        for scenario in _filled(template, slots, split_by):
            count += 1
            if count > MOST_SCENARIOS:
                raise ValueError(f"scenarios: expected at most {MOST_SCENARIOS}, the slots multiply to more")
            yield scenario


def _filled(
    template: Template, slots: Mapping[str, Sequence[str]], split_by: Sequence[str]
) -> Iterator[Scenario]:
    used = slots_of(template)
    missing = [name for name in used if name not in slots]
    if missing:
        raise ValueError(
            f"scenarios: expected words for the slot {{{missing[0]}}}, slots has {sorted(slots)}"
        )
    parting = [name for name in used if name in split_by]
    if len(parting) + bool(template.group) > 1:
        raise ValueError(
            "scenarios: expected a template with a group or one slot of split_by, got "
            f"{', '.join(filter(None, [template.group, *parting]))}: their words would be in several splits"
        )
    for words in itertools.product(*(slots[name] for name in used)):
        yield fill(template, dict(zip(used, words, strict=True)), split_by)


def fill(template: Template, filling: Mapping[str, str], split_by: Sequence[str] = ()) -> Scenario:
    """The scenario of a template with its slots filled."""
    prompt = tuple(ChatMessage(turn.role, turn.content.format(**filling)) for turn in template.turns)
    group = template.group or " / ".join(filling[name] for name in split_by if name in filling)
    return Scenario(prompt, template.target.format(**filling), group)


def slots_of(template: Template) -> list[str]:
    """The names of a template's slots, in the order in which they appear. Raises ValueError."""
    texts = [*(turn.content for turn in template.turns), template.target]
    return list(dict.fromkeys(name for text in texts for name in _names(text)))


def _names(text: str) -> Iterator[str]:
    for _, name, form, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            raise ValueError(f"scenarios: expected slots such as {{thing}}, got {{{name}}} in {text!r}")
        yield name


def read_templates(file: Path) -> Iterator[Scenario]:
    """The scenarios in a file of JSON Lines, without slots. Raises ValueError with the line's number."""
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            given = msgspec.json.decode(line, type=Template)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{file.name}, line {number}: {error}") from error
        if not given.turns and not given.target:
            raise ValueError(f"{file.name}, line {number}: expected a prompt, or a document as the target")
        prompt = tuple(ChatMessage(turn.role, turn.content) for turn in given.turns)
        yield Scenario(prompt, given.target, given.group)


def prompts_in(
    conversation: Conversation, name: str, message: str = ""
) -> tuple[tuple[ChatMessage, ...], ...]:
    """What the model `name` was asked in a conversation: the path to each message that it replied to; or the
    path to one message. Raises ValueError when there is none, UnknownMessage for a message that is not there.
    """
    if message:
        return (chat_context(conversation.path(message), name),)
    asked = [
        one.id
        for one in conversation.walk()
        if one.author != name and not one.deleted and any(reply.author == name for reply in one.replies)
    ]
    if not asked:
        raise ValueError(f"expected messages that {name} replied to, found none in the conversation")
    return tuple(chat_context(conversation.path(one), name) for one in asked)
