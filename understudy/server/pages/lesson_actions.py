"""What people do about lessons and sessions: approve, refuse, word anew, cancel, decide."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import NotAllowed, Right
from understudy.lessons import KeepOrRevert, LedgerEntry, UnknownLesson, digest
from understudy.server.errors import ApiError
from understudy.server.pages.doorkeeper import local_path
from understudy.server.pages.lesson_views import Reach
from understudy.server.pages.routing import done, read_form
from understudy.server.pages.visitors import Visitor, visitor_of
from understudy.server.training_routes import carried_out

if TYPE_CHECKING:
    from understudy.server.pages.site import Site

T = TypeVar("T")
MOST = 500
"""Lessons that one press of a button may decide about."""


class ApproveForm(msgspec.Struct):
    """Lessons to approve, and what a session of their own has otherwise than the workspace's settings."""

    ids: tuple[str, ...] = ()
    why: str = ""
    back: str = "/learn"
    objective: str | None = None
    lr: float | None = None
    epochs: int | None = None
    replay: float | None = None
    rank: int | None = None

    @property
    def overrides(self) -> dict[str, Any]:
        names = ("objective", "lr", "epochs", "replay", "rank")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class RefuseForm(msgspec.Struct):
    """Lessons that are not to be trained."""

    ids: tuple[str, ...] = ()
    reason: str = ""
    back: str = "/learn"


class EditForm(msgspec.Struct):
    """Another wording of what should be said."""

    id: str
    chosen: str
    back: str = ""


class SessionForm(msgspec.Struct):
    """A session, to be called off."""

    session: str
    back: str = "/learn"


class DecideForm(msgspec.Struct):
    """A person's decision about a session that waits for one."""

    session: str
    decision: KeepOrRevert
    why: str = ""
    back: str = "/learn"


async def approve(request: Request) -> Response:
    """Let lessons be trained, all of them or none."""
    form = await read_form(request, ApproveForm)
    return await _approve(request, form, form.why)


async def propose_again(request: Request) -> Response:
    """Let reverted or refused lessons be trained once more."""
    form = await read_form(request, ApproveForm)
    return await _approve(request, form, form.why or "another try")


async def _approve(request: Request, form: ApproveForm, why: str) -> Response:
    site: Site = request.app.state.site
    visitor = visitor_of(request)
    entries = await _taught(site, visitor, form.ids)
    keys = [entry.id for entry in entries]
    approved = await site.service.approve(keys, visitor.name, why=why, overrides=form.overrides)
    told = {"did": "approved", "lessons": [entry.id for entry in approved]}
    return done(request, local_path(form.back, "/learn"), told)


async def refuse(request: Request) -> Response:
    """Decide that lessons are not to be trained."""
    site: Site = request.app.state.site
    form, visitor = await read_form(request, RefuseForm), visitor_of(request)
    entries = await _taught(site, visitor, form.ids)

    def refuse_all() -> list[str]:
        return [site.ledger.refuse(entry.id, visitor.name, form.reason).id for entry in entries]

    refused = await to_thread.run_sync(refuse_all)
    return done(request, local_path(form.back, "/learn"), {"did": "refused", "lessons": refused})


async def train_now(request: Request) -> Response:
    """Have approved lessons trained that do not train by themselves, or failed before."""
    site: Site = request.app.state.site
    form, visitor = await read_form(request, RefuseForm), visitor_of(request)
    entries = await _taught(site, visitor, form.ids)
    wrong = next((entry for entry in entries if entry.state != "approved"), None)
    if wrong is not None:
        raise ApiError(409, f"expected approved lessons, {wrong.short} is {wrong.state}", code="lesson_state")
    site.service.train_soon([entry.id for entry in entries])
    return done(
        request,
        local_path(form.back, "/learn"),
        {"did": "training", "lessons": [entry.id for entry in entries]},
    )


async def edit_lesson(request: Request) -> Response:
    """Word a proposed lesson anew: another takes its place, and it is refused."""
    site: Site = request.app.state.site
    form, visitor = await read_form(request, EditForm), visitor_of(request)
    made = await to_thread.run_sync(_word_anew, site, visitor, form)
    told = {"did": "worded", "lessons": [made.id]}
    return done(request, local_path(form.back, f"/learn/{made.short}"), told)


def _word_anew(site: "Site", visitor: Visitor, form: EditForm) -> LedgerEntry:
    """The old one is refused, not superseded: a superseded lesson comes back where its correction is mined
    anew, which stands in the conversation as it was.
    """
    old = Reach.of(site, visitor).find_taught(site, form.id)
    chosen = form.chosen.replace("\r\n", "\n").strip()
    if old.state != "proposed":
        raise ApiError(
            409,
            f"expected a lesson that is proposed, {old.short} is {old.state}: edit the message to propose "
            "another",
            code="lesson_state",
        )
    if not chosen:
        raise ApiError(400, "chosen: expected what the model is to say, got nothing", param="chosen")
    now = datetime.now(UTC).isoformat()
    source = replace(old.lesson.source, author=visitor.name, time=now)
    lesson = replace(old.lesson, chosen=chosen, source=source)
    try:
        there = site.ledger.get(digest(lesson))
    except UnknownLesson:
        site.ledger.refuse(old.id, visitor.name, f"worded anew as {digest(lesson)[:12]}")
        return site.ledger.propose(lesson).entry
    raise ApiError(
        409,
        f"this wording is in the ledger already: lesson {there.short}, {there.state}",
        code="lesson_state",
    )


async def cancel(request: Request) -> Response:
    """Have the running session undone."""
    site: Site = request.app.state.site
    form, visitor = await read_form(request, SessionForm), visitor_of(request)
    require_teacher(visitor, "cancel a session")
    told = await carried_out(site.service.cancel(form.session))
    return done(request, local_path(form.back, "/learn"), {"did": "cancelled", **told})


async def decide(request: Request) -> Response:
    """Keep or revert a session that waits for a person."""
    site: Site = request.app.state.site
    form, visitor = await read_form(request, DecideForm), visitor_of(request)
    require_teacher(visitor, "decide about a session")
    known = {one.session for one in site.service.decider.waiting}
    if form.session not in known:
        raise ApiError(
            409,
            "expected a session that waits for a decision: it was decided meanwhile",
            code="no_open_decision",
        )
    told = await carried_out(site.service.answer(form.session, form.decision, visitor.name, form.why))
    return done(request, local_path(form.back, "/learn"), {"did": "decided", **told})


# ---------------------------------------------------------------------- parts


async def _taught(site: "Site", visitor: Visitor, ids: tuple[str, ...]) -> list[LedgerEntry]:
    """The lessons, each once, all of which the visitor decides about."""
    if not 1 <= len(ids) <= MOST:
        raise ApiError(400, f"expected 1 to {MOST} lessons, got {len(ids)}: choose some", code="invalid_form")

    def find() -> list[LedgerEntry]:
        reach = Reach.of(site, visitor)
        return list({entry.id: entry for entry in (reach.find_taught(site, one) for one in ids)}.values())

    return await to_thread.run_sync(find)


def require_teacher(visitor: Visitor, what: str) -> None:
    """Raises NotAllowed unless the visitor may teach in this workspace."""
    if not visitor.known or not visitor.may(Right.TEACH):
        raise NotAllowed(f"{visitor.name or 'a stranger'} may not {what}: that takes the right 'teach'")
