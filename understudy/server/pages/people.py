"""People: who takes part, with which rights, and in which conversations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from understudy.access import InvalidEntry, Openness, change, invite, remove, set_access
from understudy.conversation import Access, Participants, Right, plain_line, valid_name
from understudy.server.messages import json_response
from understudy.server.pages.doorkeeper import doorkeeper_of
from understudy.server.pages.rendering import SECURITY, page, wants_json
from understudy.server.pages.routing import done, read_form
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import visitor_of

Name = Annotated[str, msgspec.Meta(max_length=200)]
PEOPLE = "/people"


class InviteForm(msgspec.Struct):
    """Someone new."""

    name: Name
    display: Name = ""
    rights: tuple[Right, ...] = (Right.READ,)


class ChangeForm(msgspec.Struct):
    """What a participant may do from now on."""

    name: Name
    display: Name = ""
    rights: tuple[Right, ...] = ()


class NameForm(msgspec.Struct):
    """A participant."""

    name: Name


class NumberForm(msgspec.Struct):
    """The number of a link, a session or a token."""

    number: Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class ConversationForm(msgspec.Struct):
    """Who takes part in a conversation."""

    place: Annotated[str, msgspec.Meta(max_length=1000)]
    openness: Openness
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PersonShown:
    """A participant as the page has them."""

    name: str
    display: str
    kind: str
    rights: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlaceShown:
    """A conversation or folder as the page has it."""

    place: str
    openness: Openness
    members: frozenset[str]


async def show_people(request: Request) -> Response:
    """Who takes part; for admins, with what changes it."""
    site, visitor = _site(request), visitor_of(request)
    present = site.repository.participants()
    admin = visitor.may(Right.ADMIN)
    files = [file for file in site.repository.files() if visitor.may(Right.READ, file)]
    folders = [place for place in present.conversations if place.endswith("/")] if admin else []
    return page(
        request,
        "people.html",
        people=[
            PersonShown(name, plain_line(one.display), one.kind.value, tuple(sorted(one.rights)))
            for name, one in sorted(present.people.items())
        ],
        places=[_place(place, present.access(place)) for place in sorted({*files, *folders})],
        admin=admin,
        unrestricted=present.unrestricted,
        links=site.accounts.links.open_ones() if admin else (),
        rights=tuple(Right),
        days=site.workspace.settings.access.invitation_days,
    )


async def invite_person(request: Request) -> Response:
    """Make someone a participant, and show the link that brings them in."""
    site, visitor = _site(request), visitor_of(request)
    form = await read_form(request, InviteForm)
    model = site.model_name

    def changed(present: Participants) -> Participants:
        return invite(present, visitor.name, form.name, form.display, form.rights, model)

    await _commit(request, changed)
    return await _invitation(request, valid_name(form.name.strip()))


async def link_person(request: Request) -> Response:
    """Another link for a participant who lost theirs."""
    site, visitor = _site(request), visitor_of(request)
    form = await read_form(request, NameForm)
    visitor.participants.require(visitor.name, Right.ADMIN, None, "make a link for someone")
    name = valid_name(form.name.strip())
    if not doorkeeper_of(request).takes_part(site.repository.participants(), name):
        raise InvalidEntry(f"the name of a person who takes part was expected, got {name!r}")
    return await _invitation(request, name)


async def change_person(request: Request) -> Response:
    """Give a participant other rights, or another name to show."""
    form = await read_form(request, ChangeForm)
    await _commit(request, lambda present: change(present, form.name, form.display, form.rights))
    return done(request, PEOPLE, {"name": form.name, "rights": sorted(form.rights)})


async def remove_person(request: Request) -> Response:
    """Someone takes no part any more: their sessions, links and tokens end now. What they said stays."""
    site, form = _site(request), await read_form(request, NameForm)
    await _commit(request, lambda present: remove(present, form.name))
    await to_thread.run_sync(site.accounts.forget, form.name)
    return done(request, PEOPLE, {"name": form.name})


async def revoke_link(request: Request) -> Response:
    """Take back a link that nobody used yet."""
    site, visitor = _site(request), visitor_of(request)
    form = await read_form(request, NumberForm)
    visitor.participants.require(visitor.name, Right.ADMIN, None, "take a link back")
    await to_thread.run_sync(site.accounts.links.revoke, form.number)
    return done(request, PEOPLE, {"number": form.number})


async def set_conversation(request: Request) -> Response:
    """Make a conversation private, public, or open to everyone."""
    form = await read_form(request, ConversationForm)
    await _commit(request, lambda present: set_access(present, form.place, form.openness, form.members))
    return done(request, PEOPLE, {"place": form.place, "openness": form.openness})


async def _commit(request: Request, changed: Callable[[Participants], Participants]) -> None:
    """Change who takes part, in one commit by the visitor. Nobody else's change is lost."""
    site, visitor = _site(request), visitor_of(request)
    visitor.participants.require(visitor.name, Right.ADMIN, None, "change who takes part")

    await to_thread.run_sync(site.accounts.change_people, site.repository, visitor.name, changed)


async def _invitation(request: Request, name: str) -> Response:
    site, visitor = _site(request), visitor_of(request)
    links, lasts = site.accounts.links, site.accounts.invitation_lasts
    secret = await to_thread.run_sync(links.make, "invitation", name, visitor.name, lasts)
    link = site.accounts.join_url(secret, str(request.base_url))
    title = f"An invitation for @{name}"
    return shown_once(request, title, link, f"Whoever opens it first comes in as @{name}.", PEOPLE)


def shown_once(request: Request, title: str, secret: str, meaning: str, back: str) -> Response:
    """A secret, on a page that nobody can come back to."""
    if wants_json(request):
        return json_response({"secret": secret}, headers=SECURITY)
    return page(request, "token.html", heading=title, secret=secret, meaning=meaning, back=back)


def _place(place: str, access: Access) -> PlaceShown:
    openness: Openness = "private" if access.private else "open" if access.open else "public"
    return PlaceShown(place, openness, access.members)


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site
