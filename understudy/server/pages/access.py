"""Coming in and going out: one-time links, signing in and out."""

import re
from typing import Annotated
from urllib.parse import quote

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from understudy.access import Link, LinkRefused
from understudy.conversation import InvalidName, Participants, Right, plain_line, valid_name
from understudy.server.errors import ApiError
from understudy.server.pages.devices import device_of
from understudy.server.pages.doorkeeper import WorkspaceDoorkeeper, doorkeeper_of, local_path
from understudy.server.pages.github import is_configured, return_from_github, start_github
from understudy.server.pages.me import (
    end_session,
    make_device_link,
    make_token,
    revoke_token,
    show_me,
    unbind_github,
)
from understudy.server.pages.people import (
    change_person,
    invite_person,
    link_person,
    remove_person,
    revoke_link,
    set_conversation,
    show_people,
)
from understudy.server.pages.rendering import SECURITY, page
from understudy.server.pages.routing import PageRoute, done, read_form
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import visitor_of

NO_PATH = {"Referrer-Policy": "strict-origin"}
"""On a page whose path is a secret. Not `no-referrer`: with that, browsers post forms with `Origin: null`."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{20,100}\Z")


class JoinForm(msgspec.Struct):
    """Under which name, where the link leaves it open, and where to go then."""

    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    next: str = "/"


class SignInForm(msgspec.Struct):
    """A one-time link, or only its last part."""

    link: Annotated[str, msgspec.Meta(max_length=2000)]
    next: str = "/"


def access_routes() -> list[PageRoute]:
    """All addresses of people and access."""
    return [
        PageRoute("GET", "/join/{secret}", show_join),
        PageRoute("POST", "/join/{secret}", join),
        PageRoute("GET", "/sign-in", show_sign_in),
        PageRoute("POST", "/sign-in", sign_in),
        PageRoute("POST", "/sign-out", sign_out),
        PageRoute("GET", "/github/start", start_github),
        PageRoute("GET", "/github/callback", return_from_github),
        PageRoute("GET", "/people", show_people),
        PageRoute("POST", "/people/invite", invite_person),
        PageRoute("POST", "/people/change", change_person),
        PageRoute("POST", "/people/remove", remove_person),
        PageRoute("POST", "/people/link", link_person),
        PageRoute("POST", "/people/link/revoke", revoke_link),
        PageRoute("POST", "/people/conversation", set_conversation),
        PageRoute("GET", "/people/me", show_me),
        PageRoute("POST", "/people/me/device", make_device_link),
        PageRoute("POST", "/people/me/session/end", end_session),
        PageRoute("POST", "/people/me/token", make_token),
        PageRoute("POST", "/people/me/token/revoke", revoke_token),
        PageRoute("POST", "/people/me/github/unbind", unbind_github),
    ]


async def show_join(request: Request) -> Response:
    """Who invites whom. Looking uses nothing up: a chat program's preview opens links too."""
    keeper, site = doorkeeper_of(request), _site(request)
    present = site.repository.participants()
    try:
        link = keeper.accounts.links.look(request.path_params["secret"])
        _check_name(keeper, present, link)
    except LinkRefused:
        keeper.limiter.attempt(request)
        raise
    person = present.get(link.name)
    return page(
        request,
        "join.html",
        headers=NO_PATH,
        link=link,
        display=plain_line(person.display) if person else link.name,
        suggested=keeper.owner(present),
        owners=() if present.unrestricted else _owners(keeper, present),
        next=local_path(request.query_params.get("next", "/")),
    )


async def join(request: Request) -> Response:
    """Use the link up, and give this browser a session."""
    keeper, visitor = doorkeeper_of(request), visitor_of(request)
    keeper.limiter.attempt(request)
    form = await read_form(request, JoinForm)
    device = device_of(request.headers.get("user-agent", ""))

    def enter() -> tuple[str, str]:
        secret, present = request.path_params["secret"], _site(request).repository.participants()
        link = keeper.accounts.links.look(secret)
        name = _owner_name(keeper, present, form.name) if link.kind == "owner" else link.name
        _check_name(keeper, present, link)
        session = keeper.accounts.enter(secret, name, device)
        if visitor.session is not None:
            keeper.accounts.sessions.end(visitor.session, visitor.name)
        return name, session

    name, session = await to_thread.run_sync(enter)
    response = done(request, local_path(form.next), {"name": name})
    keeper.cookies.open_session(response, request, session)
    return response


async def show_sign_in(request: Request) -> Response:
    """How to come in."""
    return page(
        request,
        "sign_in.html",
        next=local_path(request.query_params.get("next", "/")),
        github=is_configured(_site(request).workspace.settings.access),
    )


async def sign_in(request: Request) -> Response:
    """Take a pasted link to its own page, where it says whom it signs in."""
    doorkeeper_of(request).limiter.attempt(request)
    form = await read_form(request, SignInForm)
    secret = re.split(r"[?#]", form.link.strip().rpartition("/join/")[2])[0].rstrip("/")
    if not _SECRET.match(secret):
        raise ApiError(
            400, "expected a one-time link, or the letters behind its /join/: copy all of it", code="no_link"
        )
    to = f"/join/{secret}?next={quote(local_path(form.next), safe='')}"
    return RedirectResponse(to, 303, headers={**SECURITY, **NO_PATH})


async def sign_out(request: Request) -> Response:
    """End this browser's session."""
    keeper, visitor = doorkeeper_of(request), visitor_of(request)
    if visitor.session is not None:
        await to_thread.run_sync(keeper.accounts.sessions.end, visitor.session, visitor.name)
    response = done(request, "/", {})
    keeper.cookies.close_session(response, request)
    return response


def _check_name(keeper: WorkspaceDoorkeeper, present: Participants, link: Link) -> None:
    """Raises LinkRefused for a link of someone who takes no part any more."""
    if link.kind != "owner" and not keeper.takes_part(present, link.name):
        raise LinkRefused(f"this link is for {link.name}, who takes no part here any more: ask an admin")


def _owners(keeper: WorkspaceDoorkeeper, present: Participants) -> tuple[str, ...]:
    """Whom the owner's link can sign in where there are participants."""
    admins = [name for name, one in present.people.items() if one.has(Right.ADMIN)]
    return tuple(sorted(name for name in admins if keeper.takes_part(present, name)))


def _owner_name(keeper: WorkspaceDoorkeeper, present: Participants, given: str) -> str:
    """The name that the owner chose. Raises InvalidName."""
    name = valid_name(given.strip())
    if not keeper.takes_part(present, name) or not present.may(name, Right.ADMIN):
        owners = ", ".join(_owners(keeper, present)) or "any but the model's"
        raise InvalidName(f"expected the name of one who may do everything here ({owners}), got {name!r}")
    return name


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site
