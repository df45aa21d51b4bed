"""Changes of who takes part, as pure functions on what `participants.toml` says. `Accounts.change_people`
commits one.
"""

import getpass
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pygit2

from understudy.access.errors import InvalidEntry
from understudy.conversation import (
    Access,
    Kind,
    Participant,
    Participants,
    Right,
    valid_name,
    valid_title,
)

Openness = Literal["public", "private", "open"]
"""Read by every participant, by the members, or by everyone who has the address."""
DISPLAY_CHARACTERS = 80


def invite(
    present: Participants, inviter: str, name: str, display: str, rights: Collection[Right], model: str
) -> Participants:
    """The participants with one more. The first invitation of a workspace restricts it: from then on only
    `inviter` (as admin), the `model` and the invited take part.

    Raises InvalidName, InvalidTitle or InvalidEntry.
    """
    if present.unrestricted:
        if inviter == model:
            raise InvalidEntry(f"{model} is the model's name: a person invites")
        present = Participants(
            {
                inviter: _person(inviter, inviter, {Right.ADMIN}),
                model: Participant(model, model, None, Kind.MODEL, frozenset({Right.POST})),
            }
        )
    name = valid_name(name.strip())
    taken = next((one for one in present.people if _likeness(one) == _likeness(name)), None)
    if taken is not None:
        raise InvalidEntry(f"a name nobody has was expected; {name!r} is taken, or too like {taken!r}")
    return _with_people(present, {**present.people, name: _person(name, _display(display, name), rights)})


def change(present: Participants, name: str, display: str, rights: Collection[Right]) -> Participants:
    """The participants with other rights for one of them. Raises InvalidEntry."""
    person = _known(present, name)
    changed = replace(person, display=_display(display, name), rights=frozenset(rights))
    return _with_people(present, {**present.people, name: changed})


def remove(present: Participants, name: str) -> Participants:
    """The participants without one of them, who is no member of anything then. Raises InvalidEntry."""
    _known(present, name)
    people = {other: person for other, person in present.people.items() if other != name}
    conversations = {
        place: replace(access, members=access.members - {name})
        for place, access in present.conversations.items()
    }
    return _with_people(replace(present, conversations=MappingProxyType(conversations)), people)


def set_access(
    present: Participants, place: str, openness: Openness, members: Collection[str]
) -> Participants:
    """The participants with another access to a conversation, or to all of a folder. Raises InvalidEntry."""
    if present.unrestricted:
        raise InvalidEntry("a conversation has members once the workspace has participants: invite someone")
    for member in members:
        _known(present, member)
    access = Access(
        private=openness == "private",
        members=frozenset(members) if openness == "private" else frozenset(),
        open=openness == "open",
    )
    return replace(present, conversations=MappingProxyType({**present.conversations, place: access}))


def suggested_name(root: Path) -> str:
    """What the owner of a workspace may go by: Git's user there, else the login name."""
    try:
        given = str(pygit2.Repository(str(root)).config["user.name"])
    except (KeyError, pygit2.GitError):
        given = getpass.getuser()
    return re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", given)).strip("-") or "owner"


def _with_people(present: Participants, people: Mapping[str, Participant]) -> Participants:
    if not any(one.kind is Kind.PERSON and one.has(Right.ADMIN) for one in people.values()):
        raise InvalidEntry("someone has to be left who may change this: no person would have 'admin'")
    return replace(present, people=MappingProxyType(dict(people)), unrestricted=False)


def _known(present: Participants, name: str) -> Participant:
    person = present.get(name)
    if person is None:
        raise InvalidEntry(f"the name of a participant was expected, got {name!r}")
    return person


def _person(name: str, display: str, rights: Collection[Right]) -> Participant:
    return Participant(name, display, None, Kind.PERSON, frozenset(rights))


def _display(given: str, name: str) -> str:
    """A line to show in place of the name; the name itself when none is given. Raises InvalidTitle."""
    display = valid_title(given) if given.strip() else name
    if len(display) > DISPLAY_CHARACTERS:
        raise InvalidEntry(f"a displayed name has up to {DISPLAY_CHARACTERS} characters; got {len(display)}")
    return display


def _likeness(name: str) -> str:
    """Equal for names that a reader would take for each other by case or width."""
    return unicodedata.normalize("NFKC", name).casefold()
