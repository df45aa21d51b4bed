"""The pages of the lessons: what is proposed, what is being learned, and what came of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from understudy.conversation import NotAllowed, Right
from understudy.lessons import SessionDecision, UnknownSession
from understudy.server.errors import ApiError
from understudy.server.pages import lesson_actions
from understudy.server.pages.answers_now import AnswersNow
from understudy.server.pages.evidence import read_decisions
from understudy.server.pages.lesson_views import (
    CLIPPED_DIFF,
    CLIPPED_PAGE,
    PAGE,
    STATES,
    LessonCard,
    Reach,
    Wanted,
    clip,
    lesson_card,
    lesson_preview,
    list_lessons,
    preview_context,
    propose_now,
    settings_context,
    teachers,
)
from understudy.server.pages.progress import read_progress
from understudy.server.pages.rendering import page
from understudy.server.pages.routing import PageRoute
from understudy.server.pages.visitors import Visitor, visitor_of

if TYPE_CHECKING:
    from understudy.server.pages.site import Site

__all__ = ["LearnPages", "entered", "learn_routes", "lesson_preview", "propose_now", "read_query"]

LEARNED_SHOWN = 5
"""Lessons of a session that has just ended."""
Query = TypeVar("Query", bound=msgspec.Struct)


def learn_routes() -> list[Route]:
    """Lessons and sessions. `/learn/{id}` takes the beginning of a lesson's id."""
    pages = LearnPages()
    return [
        PageRoute("GET", "/learn", pages.lessons),
        PageRoute("GET", "/learn/{id}", pages.lesson),
        PageRoute("GET", "/learn/{id}/edit", pages.edit),
        PageRoute("GET", "/part/progress", pages.progress),
        PageRoute("GET", "/part/answer-now", pages.answer_now),
        PageRoute("GET", "/part/lesson-preview", pages.preview),
        PageRoute("POST", "/do/approve", lesson_actions.approve),
        PageRoute("POST", "/do/propose-again", lesson_actions.propose_again),
        PageRoute("POST", "/do/refuse", lesson_actions.refuse),
        PageRoute("POST", "/do/train-approved", lesson_actions.train_now),
        PageRoute("POST", "/do/lesson-edit", lesson_actions.edit_lesson),
        PageRoute("POST", "/do/cancel", lesson_actions.cancel),
        PageRoute("POST", "/do/decide", lesson_actions.decide),
    ]


class LearnPages:
    """The reading half; what it generated it remembers."""

    def __init__(self) -> None:
        self._said = AnswersNow()

    async def lessons(self, request: Request) -> Response:
        """All lessons by state, the session that runs, and those that wait for a decision."""
        site, visitor = await entered(request)
        wanted = read_query(request, Wanted)
        reach = await to_thread.run_sync(Reach.of, site, visitor)
        found = await to_thread.run_sync(list_lessons, site, reach, wanted)
        if wanted.page > found.pages:
            raise ApiError(404, f"expected a page from 1 to {found.pages}, got {wanted.page}")
        asked = site.service.decider.waiting
        held = {one.session: _lessons_of(site, reach, one.session) for one in asked}
        return page(
            request,
            "learn.html",
            found=found,
            wanted=wanted,
            states=STATES,
            progress=read_progress(site.service, site.ledger),
            was=site.service.sessions.ended or "",
            ended=[],
            learned=[],
            decisions=read_decisions(asked),
            held=held,
            may_teach=visitor.may(Right.TEACH),
            trains_itself=site.workspace.settings.training.on_approval,
            **settings_context(site),
        )

    async def lesson(self, request: Request) -> Response:
        """One lesson: what it teaches, who decides, what became of it, what the model says now."""
        site, visitor = await entered(request)
        reach = await to_thread.run_sync(Reach.of, site, visitor)
        entry = reach.find(site, request.path_params["id"])
        decisions = site.service.decider.gatekeeper.decisions
        decided = decisions.of(entry.session) if entry.session else ()
        return page(
            request,
            "lesson.html",
            card=await to_thread.run_sync(lesson_card, entry, reach, CLIPPED_DIFF),
            clip=clip,
            most=CLIPPED_PAGE,
            teachers=teachers(site, visitor, entry.lesson.source.file),
            history=site.ledger.history(entry.id),
            trainings=list(reversed(site.ledger.trainings(entry.id))),
            decisions=read_decisions(decided),
            open_session=entry.session if _waits(decided) else None,
            may_decide=visitor.may(Right.TEACH),
            **settings_context(site),
        )

    async def edit(self, request: Request) -> Response:
        """A proposed lesson, to be worded anew before it is approved."""
        site, visitor = await entered(request)
        reach = await to_thread.run_sync(Reach.of, site, visitor)
        entry = reach.find_taught(site, request.path_params["id"])
        if entry.state != "proposed":
            raise ApiError(409, f"only a proposed lesson is worded anew; {entry.short} is {entry.state}")
        return page(request, "lesson_edit.html", card=lesson_card(entry, reach), clip=clip)

    async def progress(self, request: Request) -> Response:
        """The session that runs, or what came of the last one, if that is not `was`: the reader knows it."""
        site, visitor = await entered(request)
        found, was = read_progress(site.service, site.ledger), request.query_params.get("was", "")
        ended = found.ended if found.session is None and found.ended != was else None
        decided = site.service.decider.gatekeeper.decisions.of(ended) if ended else ()
        reach = await to_thread.run_sync(Reach.of, site, visitor)
        return page(
            request,
            "progress.html",
            progress=found,
            was=was,
            ended=read_decisions(decided[-1:]),
            learned=_lessons_of(site, reach, decided[-1].session)[:LEARNED_SHOWN] if decided else [],
            may_teach=visitor.may(Right.TEACH),
        )

    async def answer_now(self, request: Request) -> Response:
        """What the model says now in a lesson's context."""
        site, visitor = await entered(request)
        reach = await to_thread.run_sync(Reach.of, site, visitor)
        entry = reach.find(site, request.query_params.get("lesson", ""))
        said = await self._said.say(site, entry)
        return page(request, "answer_now.html", said=said, entry=entry)

    async def preview(self, request: Request) -> Response:
        """What a correction would teach, as `lesson_preview` shows it below a message."""
        site, visitor = await entered(request)
        reach = await to_thread.run_sync(Reach.of, site, visitor)
        entry = reach.find(site, request.query_params.get("lesson", ""))
        shown = await to_thread.run_sync(preview_context, site, reach, entry)
        return page(request, "preview_part.html", **shown)


def read_query(request: Request, kind: type[Query]) -> Query:
    """The query as a `kind`; what is empty counts as absent. Raises ApiError(400)."""
    given = {name: text for name, text in request.query_params.items() if text}
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error), code="invalid_query") from error


async def entered(request: Request) -> "tuple[Site, Visitor]":
    """The site and who asks. Lessons are for participants, whatever conversations are open to everyone."""
    visitor = visitor_of(request)
    if not visitor.known or not visitor.may(Right.READ):
        raise NotAllowed("lessons and weights are for participants: sign in")
    return request.app.state.site, visitor


def _waits(decided: Sequence[SessionDecision]) -> bool:
    return bool(decided) and decided[-1].choice == "ask"


def _lessons_of(site: "Site", reach: Reach, named: str) -> list[LessonCard]:
    """The lessons of a session that the visitor may see; none where it was over a request's examples."""
    try:
        session = site.ledger.session(named)
    except UnknownSession:
        return []
    entries = [site.ledger.get(identity) for identity in session.lesson_ids[:PAGE]]
    return [lesson_card(entry, reach) for entry in entries if reach.may_see(entry.lesson)]
