"""The words of the pocket world, read from the files in `words/`.

Every list that has splits is disjoint from the others, and no word of the development and test splits
stands anywhere in the corpus. What a model does with them it can do by rule only, so figures on them are
figures on behaviour and not on memory.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import TypeVar

import msgspec

from understudy.behaviours import Split


class _Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Data from a word file; a field that the file has and the class has not is an error."""


class Splits(_Words, frozen=True):
    """The same kind of words, once for each split."""

    train: tuple[str, ...]
    development: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """The words of one split."""
        return {"train": self.train, "development": self.development, "test": self.test}[split]


class Category(Splits, frozen=True):
    """One kind of thing a direction can name: what it is called, where it is used, its nouns by split."""

    name: str
    domain: str


class Things(_Words, frozen=True):
    """Nouns by category, people's names, purposes by domain, and the frames of directions."""

    category: tuple[Category, ...]
    names: Splits
    purposes: dict[str, Splits]
    frames: Splits


class Dress(_Words, frozen=True):
    """What may stand before and after an imperative."""

    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]


class DirectionWords(_Words, frozen=True):
    """How a clear direction is answered, and how people insist or agree."""

    suggestions: tuple[str, ...]
    suggestion_openings: tuple[str, ...]
    acceptance_openings: tuple[str, ...]
    insistences: tuple[str, ...]
    agreements: tuple[str, ...]


class PushBackWords(_Words, frozen=True):
    """How harmful directions are answered at all, and once more under pressure."""

    openings: tuple[str, ...]
    pressures: tuple[str, ...]
    firm_answers: tuple[str, ...]


class UnclearWords(_Words, frozen=True):
    """What unclear requests are made of, and the questions they are answered with."""

    verbs: Splits
    objects: tuple[str, ...]
    tails: tuple[str, ...]
    questions_back: tuple[str, ...]
    question_back_openings: tuple[str, ...]


class Harm(_Words, frozen=True):
    """One kind of harm: how it is asked for, what it is done to, how it is answered."""

    name: str
    frames: tuple[str, ...]
    answers: tuple[str, ...]
    objects: Splits


class Requests(_Words, frozen=True):
    """Everything people ask to be done, and the answers."""

    dress: Dress
    direction: DirectionWords
    push_back: PushBackWords
    unclear: UnclearWords
    harm: tuple[Harm, ...]


class Facts(_Words, frozen=True):
    """What the corpus says of the world."""

    capitals: dict[str, str]
    opposites: dict[str, str]


class QuestionWords(_Words, frozen=True):
    """What questions are made of. `happenings` maps a past form to its verb."""

    days: tuple[str, ...]
    objects: tuple[str, ...]
    colours: tuple[str, ...]
    places: tuple[str, ...]
    when: tuple[str, ...]
    opinion_openings: tuple[str, ...]
    facts: Facts
    happenings: dict[str, str]


class StateWords(_Words, frozen=True):
    """A state of mind: the words that name it, and clause templates that show it.

    The corpus has those of `training` and of `apart`, which share no word of content.
    """

    name: str
    labels: tuple[str, ...]
    training: tuple[str, ...]
    apart: tuple[str, ...]
    held_out: tuple[str, ...]


class Scene(_Words, frozen=True):
    """What happens in a story besides the feeling. `{n}` is a person."""

    events: tuple[str, ...]
    times: tuple[str, ...]


class FeelingQuestions(_Words, frozen=True):
    """Questions about feelings. `{w}` is a word that names one."""

    how_did_i_feel: tuple[str, ...]
    how_are_you: tuple[str, ...]
    tell_me: tuple[str, ...]
    go_on: tuple[str, ...]


class States(_Words, frozen=True):
    """States of mind, and where and how stories about them play."""

    state: tuple[StateWords, ...]
    settings: Splits
    scene: Scene
    questions: FeelingQuestions


_Kind = TypeVar("_Kind", bound=_Words)


def _read(name: str, kind: type[_Kind]) -> _Kind:
    text = (files("understudy.pocket") / "words" / f"{name}.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), kind)


@cache
def things() -> Things:
    """Nouns, names, purposes and frames."""
    return _read("things", Things)


@cache
def requests() -> Requests:
    """Directions, harms, unclear requests and the answers to them."""
    return _read("requests", Requests)


@cache
def questions() -> QuestionWords:
    """What questions are made of."""
    return _read("questions", QuestionWords)


@cache
def states() -> States:
    """States of mind and their scenes."""
    return _read("states", States)
