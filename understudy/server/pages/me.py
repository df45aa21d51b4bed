"""One's own access: signed-in browsers, links for other devices, API tokens, the login at GitHub."""

from datetime import timedelta
from typing import Annotated

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from understudy.access import DEVICE_LASTS, SCOPES, Accounts, Scope
from understudy.conversation import plain_line
from understudy.server.errors import ApiError
from understudy.server.pages.github import is_configured
from understudy.server.pages.people import NumberForm, shown_once
from understudy.server.pages.rendering import page
from understudy.server.pages.routing import done, read_form
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import Visitor, visitor_of

ME = "/people/me"
SCOPE_MEANINGS: dict[Scope, str] = {
    "read": "read pages, and the API's reading routes",
    "talk": "write in conversations",
    "teach": "approve lessons, decide about sessions",
    "train": "start and cancel training, bring the model directory up to date",
    "weights": "bring earlier weights back, take others on",
    "admin": "invite and remove people",
}


class TokenForm(msgspec.Struct):
    """A new token; without `days` it lasts until it is revoked."""

    label: Annotated[str, msgspec.Meta(max_length=100)]
    scopes: tuple[Scope, ...] = ()
    days: Annotated[int, msgspec.Meta(ge=1, le=3650)] | None = None


class NoFields(msgspec.Struct):
    """Nothing but the button."""


async def show_me(request: Request) -> Response:
    """What can come in as me, and how to end it."""
    site, visitor = _mine(request)
    accounts = site.accounts
    return page(
        request,
        "me.html",
        sessions=accounts.sessions.of(visitor.name),
        tokens=accounts.tokens.of(visitor.name),
        meanings=SCOPE_MEANINGS,
        scopes=SCOPES,
        person=visitor.participants.get(visitor.name),
        github=is_configured(site.workspace.settings.access),
        login=accounts.logins.of(visitor.name),
        days=site.workspace.settings.access.session_days,
    )


async def make_device_link(request: Request) -> Response:
    """A link that signs me in on another device."""
    site, visitor = _mine(request)
    await read_form(request, NoFields)
    make = site.accounts.links.make
    secret = await to_thread.run_sync(make, "device", visitor.name, visitor.name, DEVICE_LASTS)
    link = site.accounts.join_url(secret, str(request.base_url))
    minutes = round(DEVICE_LASTS.total_seconds() / 60)
    meaning = f"Open it on your other device within {minutes} minutes; it signs in @{visitor.name}, once."
    return shown_once(request, "A link for another device", link, meaning, ME)


async def end_session(request: Request) -> Response:
    """Sign one of my browsers out."""
    site, visitor = _mine(request)
    form = await read_form(request, NumberForm)
    await to_thread.run_sync(site.accounts.sessions.end, form.number, visitor.name)
    return done(request, ME, {"number": form.number})


async def make_token(request: Request) -> Response:
    """A token for a script of mine."""
    site, visitor = _mine(request)
    form = await read_form(request, TokenForm)
    lasts = None if form.days is None else timedelta(days=form.days)

    def make(accounts: Accounts) -> str:
        return accounts.tokens.make(visitor.name, plain_line(form.label), form.scopes, lasts)

    secret = await to_thread.run_sync(make, site.accounts)
    meaning = f"Send it as `Authorization: Bearer ...`; it acts for @{visitor.name} within its scopes."
    return shown_once(request, "A new API token", secret, meaning, ME)


async def revoke_token(request: Request) -> Response:
    """End a token of mine."""
    site, visitor = _mine(request)
    form = await read_form(request, NumberForm)
    await to_thread.run_sync(site.accounts.tokens.revoke, form.number, visitor.name)
    return done(request, ME, {"number": form.number})


async def unbind_github(request: Request) -> Response:
    """My account at GitHub signs me in no more."""
    site, visitor = _mine(request)
    await read_form(request, NoFields)
    await to_thread.run_sync(site.accounts.logins.unbind, visitor.name)
    return done(request, ME, {})


def _mine(request: Request) -> tuple[Site, Visitor]:
    """Raises ApiError(403) unless a browser's session asks: no token makes another."""
    site: Site = request.app.state.site
    visitor = visitor_of(request)
    if visitor.session is None:
        raise ApiError(403, "expected a browser's session: no token opens this page", code="scope")
    return site, visitor
