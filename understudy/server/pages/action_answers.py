"""What the actions of the pages answer to a script, as types: the API's document is made from them."""

import msgspec


class Undo(msgspec.Struct):
    """What `/do/restore` takes to bring a deleted message back."""

    file: str
    id: str
    commit: str


class Done(msgspec.Struct, omit_defaults=True):
    """An action that was done: its commit, the message it is about as it is called now, and the ids that it
    changed, old to new. A correction names the `lesson` in it, a deletion how to undo it.
    """

    commit: str
    message: str
    moved: dict[str, str] = {}
    lesson: str | None = None
    undo: Undo | None = None


class Asked(msgspec.Struct):
    """What the model was asked to answer, and by whom. Its answer comes over `/live`, and is committed."""

    asked: str
    by: str


class Stopped(msgspec.Struct):
    """Whether there was something to stop."""

    stopped: bool


class Alternative(msgspec.Struct):
    """Another answer, and the weight commit it was said with."""

    text: str
    weights: str | None


class AlternativesAnswer(msgspec.Struct):
    """Other answers than the one that stands, and the commit at which that was read."""

    alternatives: list[Alternative]
    commit: str


class RevisionAnswer(msgspec.Struct):
    """What the model would say in place of its message, and the commit at which that was read."""

    message: str
    text: str
    weights: str | None
    commit: str
