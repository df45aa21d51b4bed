"""Who may do what: `participants.toml` at the root of a workspace, in Git like the conversations.

    [participants.ann]
    display = "Ann Lee"
    email = "ann@example.org"
    rights = ["post", "teach"]

    [participants.parrot]
    kind = "model"
    rights = ["post"]

    [conversations."conversations/board/"]
    access = "private"
    members = ["ann"]

    [conversations."conversations/news.md"]
    access = "open"

What stands in the newest commit counts. Without the file the workspace is one person's: everyone may do
everything.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from understudy.conversation.bodies import valid_name
from understudy.conversation.errors import InvalidName, InvalidParticipants, InvalidPath, NotAllowed
from understudy.conversation.files import FOLDER, SUFFIX, valid_path

PARTICIPANTS_FILE = "participants.toml"

_ACCESS = ("public", "private", "open")
_Name = TypeVar("_Name", bound=StrEnum)
_EMAIL = re.compile(r"[^\s<>@]+@[^\s<>@]+\Z")


class Right(StrEnum):
    """What a participant may do. Each includes `READ`; `ADMIN` includes all."""

    READ = "read"
    """Read public conversations, and those private ones that name the participant."""
    POST = "post"
    """Start threads, post, reply; edit and delete what one said oneself."""
    MODERATE = "moderate"
    """Move, split, rename, merge, and delete what others said. Not: change their words."""
    TEACH = "teach"
    """Edit what a model said."""
    ADMIN = "admin"
    """Everything, in every conversation, and change `participants.toml`."""


class Kind(StrEnum):
    """What a participant is."""

    PERSON = "person"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Participant:
    """One who speaks. `name` is what stands behind the `@`, and the author of the commits."""

    name: str
    display: str
    email: str | None
    kind: Kind
    rights: frozenset[Right]

    def has(self, right: Right) -> bool:
        """Whether this right, or one that includes it, was given."""
        return (
            right in self.rights or Right.ADMIN in self.rights or (right is Right.READ and bool(self.rights))
        )


@dataclass(frozen=True, slots=True)
class Access:
    """Who takes part in a conversation, or in all of a folder: everyone, or (private) its members.

    `open`: whoever is no participant may read it, too.
    """

    private: bool
    members: frozenset[str]
    open: bool = False


@dataclass(frozen=True, slots=True)
class Participants:
    """All who take part. `unrestricted`: there is no file, so everyone may do everything."""

    people: Mapping[str, Participant] = field(default_factory=lambda: MappingProxyType({}))
    conversations: Mapping[str, Access] = field(default_factory=lambda: MappingProxyType({}))
    unrestricted: bool = False

    def get(self, name: str) -> Participant | None:
        """The participant of this name, None for a stranger."""
        return self.people.get(name)

    def email(self, name: str) -> str | None:
        """The address that the participant's commits bear, None if none is written down."""
        person = self.people.get(name)
        return person.email if person else None

    def access(self, file: str) -> Access:
        """What the most exact entry says: the conversation's own, else its nearest folder's; else public."""
        places = [file]
        while "/" in file:
            file = file.rpartition("/")[0]
            places.append(file + "/")
        found = (self.conversations[place] for place in places if place in self.conversations)
        return next(found, Access(False, frozenset()))

    def may(self, name: str, right: Right | str, file: str | None = None) -> bool:
        """Whether this participant has the right, in this conversation if one is named."""
        person = self.people.get(name)
        if self.unrestricted:
            return True
        if person is None or not person.has(Right(right)):
            return False
        if file is None or person.has(Right.ADMIN):
            return True
        access = self.access(file)
        return not access.private or name in access.members

    def may_read(self, name: str, file: str) -> bool:
        """Whether this participant may read this conversation."""
        return self.may(name, Right.READ, file)

    def open_to_all(self, file: str) -> bool:
        """Whether someone who is no participant may read this conversation.

        Nothing is, in a workspace without a file: there "everyone" means whoever holds the files.
        """
        return not self.unrestricted and self.access(file).open

    def require(self, name: str, right: Right, file: str | None, what: str) -> None:
        """`NotAllowed` unless the participant has the right."""
        if self.may(name, right, file):
            return
        person = self.people.get(name)
        if person is None:
            reason = f"{PARTICIPANTS_FILE} knows no {name!r}"
        elif not person.has(right):
            given = ", ".join(sorted(person.rights)) or "none"
            reason = f"that takes the right {right.value!r}, {name} has: {given}"
        else:
            reason = f"it is private, and {name} is no member"
        place = f" in {file}" if file else ""
        raise NotAllowed(f"{name} may not {what}{place}: {reason}; an admin can change {PARTICIPANTS_FILE}")

    def require_change(self, name: str, author: str, file: str, what: str) -> None:
        """`NotAllowed` unless `name` may give a message of `author`'s another text.

        One's own message takes `post`, a model's also `teach`; other people's words no one changes.
        """
        if name == author:
            return self.require(name, Right.POST, file, what)
        said_by = self.people.get(author)
        if self.unrestricted or (said_by is not None and said_by.kind is Kind.MODEL):
            return self.require(name, Right.TEACH, file, f"{what} of the model {author}")
        self.require(name, Right.READ, file, what)
        raise NotAllowed(
            f"{name} may not {what} in {file}: {author} said it, and only {author} changes a person's words; "
            "reply to it instead"
        )


UNRESTRICTED = Participants(unrestricted=True)
"""A workspace without `participants.toml`."""


def read_participants(text: str) -> Participants:
    """The participants in a `participants.toml`, or `InvalidParticipants` with the place of the mistake."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidParticipants(f"{PARTICIPANTS_FILE} is not TOML: {error}") from error
    tables = _only(document, "the file", {"participants": dict, "conversations": dict})
    people = {
        name: _participant(name, entry, f"participants.{name}")
        for name, entry in tables.get("participants", {}).items()
    }
    if not any(person.has(Right.ADMIN) for person in people.values()):
        raise InvalidParticipants(
            f"{PARTICIPANTS_FILE} gives no one the right 'admin': someone has to be able to change it"
        )
    conversations = {
        _place(place): _access(entry, f"conversations.{place!r}", people)
        for place, entry in tables.get("conversations", {}).items()
    }
    return Participants(MappingProxyType(people), MappingProxyType(conversations))


def write_participants(participants: Participants) -> str:
    """The text of a `participants.toml` that `read_participants` reads as these participants.

    What an entry has by default is left out; comments are not kept. `InvalidParticipants` for what no file
    says: no one who can change it, someone who is listed under another name, what is not Unicode, a workspace
    without the file.
    """
    import tomli_w  # here, so that starting a program does not pay for it

    if participants.unrestricted:
        raise InvalidParticipants(f"a workspace where all may do everything has no {PARTICIPANTS_FILE}")
    text = tomli_w.dumps(
        {
            "participants": {name: _written_person(one) for name, one in participants.people.items()},
            "conversations": {
                place: _written_access(access) for place, access in participants.conversations.items()
            },
        }
    )
    if re.search("[\ud800-\udfff]", text) or read_participants(text) != participants:
        raise InvalidParticipants(f"{PARTICIPANTS_FILE} cannot say this: {participants!r}")
    return text


def _written_person(person: Participant) -> dict[str, Any]:
    found: dict[str, Any] = {"display": person.display} if person.display != person.name else {}
    if person.email is not None:
        found["email"] = person.email
    if person.kind is not Kind.PERSON:
        found["kind"] = person.kind.value
    return {**found, "rights": sorted(person.rights, key=list(Right).index)}


def _written_access(access: Access) -> dict[str, Any]:
    name = "private" if access.private else "open" if access.open else "public"
    return {"access": name, **({"members": sorted(access.members)} if access.members else {})}


def valid_email(email: str) -> str:
    """An e-mail address that can stand in a commit, or `InvalidName`."""
    if not _EMAIL.match(email):
        raise InvalidName(f"an e-mail address was expected, like name@example.org; got {email!r}")
    return email


def _participant(name: str, entry: Any, where: str) -> Participant:
    fields = {"display": str, "email": str, "kind": str, "rights": list}
    found = _only(entry, where, fields)
    try:
        if valid_name(name) != name:
            raise InvalidName(f"a name stands in Unicode's composed form (NFC); got {name!r}")
        email = valid_email(found["email"]) if "email" in found else None
    except InvalidName as error:
        raise InvalidParticipants(f"{where} in {PARTICIPANTS_FILE}: {error}") from error
    kind = _one_of(Kind, found.get("kind", Kind.PERSON), f"{where}.kind")
    rights = frozenset(_one_of(Right, right, f"{where}.rights") for right in found.get("rights", ["read"]))
    return Participant(name, found.get("display", name), email, kind, rights)


def _access(entry: Any, where: str, people: Mapping[str, Participant]) -> Access:
    found = _only(entry, where, {"access": str, "members": list})
    access, members = found.get("access", "public"), found.get("members", [])
    if access not in _ACCESS:
        raise InvalidParticipants(f"{where}.access is 'public', 'private' or 'open'; got {access!r}")
    strangers = [member for member in members if member not in people]
    if strangers:
        raise InvalidParticipants(f"{where}.members names {strangers[0]!r}, who is no participant")
    return Access(access == "private", frozenset(members), access == "open")


def _place(place: str) -> str:
    try:
        valid_path(place + "x" + SUFFIX if place.endswith("/") else place)
    except InvalidPath as error:
        raise InvalidParticipants(
            f"conversations in {PARTICIPANTS_FILE} are named like '{FOLDER}/name{SUFFIX}', "
            f"or as a folder like '{FOLDER}/name/'; got {place!r}"
        ) from error
    return place


def _only(entry: Any, where: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """The table, if it has no other keys than these and their values are of these types."""
    if not isinstance(entry, dict):
        raise InvalidParticipants(f"{where} in {PARTICIPANTS_FILE} is a table; got {entry!r}")
    for key, value in entry.items():
        if key not in fields:
            raise InvalidParticipants(
                f"{where} in {PARTICIPANTS_FILE} has {', '.join(fields)}; got an unknown {key!r}"
            )
        if not isinstance(value, fields[key]):
            raise InvalidParticipants(
                f"{where}.{key} in {PARTICIPANTS_FILE} is a {fields[key].__name__}; got {value!r}"
            )
    return entry


def _one_of(kind: type[_Name], value: Any, where: str) -> _Name:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(repr(member.value) for member in kind)
        raise InvalidParticipants(
            f"{where} in {PARTICIPANTS_FILE} is one of {known}; got {value!r}"
        ) from error
