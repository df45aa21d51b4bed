"""Who looks at a page: a participant with a session or a token of their own, or a stranger."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

from understudy.access import Scope
from understudy.conversation import Kind, Participant, Participants, Right
from understudy.server.errors import ApiError
from understudy.server.messages import MAX_BODY_BYTES

CSRF_FIELD = "csrf"
_RIGHTS: Mapping[Scope, frozenset[Right]] = {
    "read": frozenset({Right.READ}),
    "talk": frozenset({Right.READ, Right.POST, Right.MODERATE}),
    "teach": frozenset({Right.READ, Right.TEACH}),
    "train": frozenset({Right.READ, Right.TEACH}),
    "weights": frozenset({Right.READ, Right.TEACH}),
    "admin": frozenset(Right),
}
"""What a token's scope leaves of its participant's rights. Which scope a path takes, the doorkeeper knows."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request's participant. Rights are those of `participants.toml`, narrowed by a token's scopes.

    `name` is empty for a stranger, who may read what is open to everyone. `participants` gives a stranger, or
    a token, no more than they have: it may be asked directly. `csrf` stands in every form of a session, whose
    number is `session`; `scopes` is None but for a participant's API token.
    """

    name: str
    participants: Participants
    csrf: str = ""
    scopes: frozenset[Scope] | None = None
    session: int | None = None

    @property
    def known(self) -> bool:
        """Whether this is a participant."""
        return bool(self.name)

    def may(self, right: Right, file: str | None = None) -> bool:
        """Whether this visitor has the right, in this conversation if one is named."""
        if not self.known:
            return right is Right.READ and file is not None and self.participants.open_to_all(file)
        return self.participants.may(self.name, right, file)


def stranger(participants: Participants) -> Visitor:
    """Someone unknown: no participant, also where everyone who is known may do everything."""
    return Visitor("", replace(participants, people=MappingProxyType({}), unrestricted=False))


def narrowed(participants: Participants, name: str, scopes: frozenset[Scope], model: str) -> Participants:
    """The participants as a token of `name`'s with these scopes finds them."""
    left = frozenset(right for scope in scopes for right in _RIGHTS[scope])
    people = dict(participants.people)
    if participants.unrestricted:
        people[model] = Participant(model, model, None, Kind.MODEL, frozenset({Right.POST}))
        people[name] = Participant(name, name, None, Kind.PERSON, left)
    else:
        person = people[name]
        rights = frozenset(right for right in left if person.has(right))
        people[name] = replace(person, rights=rights)
    return replace(participants, people=MappingProxyType(people), unrestricted=False)


STRANGER = stranger(Participants())
"""Someone of whom nothing is known, in a workspace of which nothing is known."""


def visitor_of(request: Request) -> Visitor:
    """Who asks, as the doorkeeper found it."""
    visitor: Visitor = request.state.visitor
    return visitor


def identify(request: Request) -> Visitor:
    """Who asks now, looked up anew: a session may end, and rights change, while a connection stays open.

    For what reads: a form that was posted is not confirmed by it.
    """
    doorkeeper: Identifying = request.app.state.doorkeeper
    return doorkeeper.identify(request)


class Identifying(Protocol):
    """What knows people by what their requests carry."""

    def identify(self, request: Request) -> Visitor:
        """Who asks. Raises ApiError for a credential that is none."""
        ...


async def confirm(request: Request) -> None:
    """Let a posted form speak for the session that its browser has.

    A cookie alone says only which browser it was, not whose page made it post. So the doorkeeper leaves the
    visitor of such a post a stranger, and whoever never confirms has a stranger's rights.

    Raises ApiError(403) when the form is not from a page of this session's.
    """
    claim: Visitor | None = getattr(request.state, "claim", None)
    if claim is None:
        return
    given = (await posted(request)).get(CSRF_FIELD)
    if not isinstance(given, str) or not same(given, claim.csrf):
        raise foreign_form()
    request.state.visitor, request.state.claim = claim, None


async def posted(request: Request) -> FormData:
    """The fields of a posted form, read once. Raises ApiError(400) for what is no form of ours."""
    try:
        return await request.form(max_files=0, max_fields=1000, max_part_size=MAX_BODY_BYTES)
    except HTTPException as error:
        raise ApiError(400, f"expected a form: {error.detail}", code="invalid_form") from error


def same(given: str, expected: str) -> bool:
    """Whether two secrets are the same, in constant time; an empty one is the same as nothing."""
    return bool(expected) and hmac.compare_digest(
        given.encode(errors="surrogatepass"), expected.encode(errors="surrogatepass")
    )


def foreign_form() -> ApiError:
    """The refusal of a post that does not come from one of this session's own pages."""
    return ApiError(
        403,
        "this form is from another session or too old: load the page anew and send it again; what you wrote "
        "is still in the form when you go back",
        code="csrf",
    )
