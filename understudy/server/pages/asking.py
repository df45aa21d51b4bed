"""What people ask of the model in a conversation: answer this, stop, say it anew, say it in other ways,
revise it.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import Right, compare_words
from understudy.server.errors import ApiError
from understudy.server.messages import json_response
from understudy.server.pages.forms import MessageForm, StopForm
from understudy.server.pages.message_views import name_of
from understudy.server.pages.rendering import SECURITY, page, wants_json
from understudy.server.pages.routing import done, read_form, refusal_of
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import Visitor, visitor_of

log = logging.getLogger(__name__)


async def ask(request: Request) -> Response:
    """Let the model answer a message that it would leave alone. The answer streams to all readers."""
    form = await read_form(request, MessageForm)
    site, visitor = _require(request, Right.POST, form.file, "ask the model")
    await asyncio.to_thread(lambda: site.repository.read(form.file).message(form.id))
    site.board.start(_posting(site, site.answers.give(form.file, form.id)))
    return done(request, _back(form), {"asked": form.id, "by": visitor.name})


async def retry(request: Request) -> Response:
    """Let the model say its message anew, in place. The new words stream to all readers."""
    form = await read_form(request, MessageForm)
    site, _ = _require(request, Right.POST, form.file, "ask the model")
    posted = await _said(site.answers.retry(form.file, form.id, form.seen))
    site.board.poke()
    return done(request, _back(form), {"message": posted.message, "commit": posted.commit})


async def stop(request: Request) -> Response:
    """Cut short what the model is saying; what it said so far stands."""
    form = await read_form(request, StopForm)
    site, visitor = _require(request, Right.POST, form.file, "stop the model")
    speech = site.answers.speeches.stop(form.key, visitor.name)
    told = {"stopped": speech is not None}
    return done(request, f"/talk/{quote(name_of(form.file))}", told)


async def alternatives(request: Request) -> Response:
    """Other ways in which the model would say its message, side by side. To choose one is a correction."""
    form = await read_form(request, MessageForm)
    site, visitor = _require(request, Right.TEACH, form.file, "correct the model")
    head = site.repository.head()
    said = await _said(site.answers.alternatives(form.file, form.id))
    message = await asyncio.to_thread(lambda: site.repository.read(form.file, head).message(form.id))
    if wants_json(request):
        texts = [{"text": one.text, "weights": one.weight_commit} for one in said]
        return json_response({"alternatives": texts, "commit": head}, headers=SECURITY)
    return page(
        request,
        "alternatives.html",
        file=form.file,
        name=name_of(form.file),
        message=message,
        said=[(one, compare_words(message.body, one.text)) for one in said],
        seen=head,
        visitor_name=visitor.name,
    )


async def revision(request: Request) -> Response:
    """What the model would say in place of its message with this criticism of it in view: to be accepted, or
    edited first. Nothing is changed before that.
    """
    form = await read_form(request, MessageForm)
    site, _ = _require(request, Right.TEACH, form.file, "correct the model")
    head = site.repository.head()
    message, said = await _said(site.answers.revision(form.file, form.id))
    if wants_json(request):
        return json_response(
            {"message": message.id, "text": said.text, "weights": said.weight_commit, "commit": head},
            headers=SECURITY,
        )
    return page(
        request,
        "revision.html",
        file=form.file,
        name=name_of(form.file),
        message=message,
        criticism=form.id,
        said=said,
        changed=compare_words(message.body, said.text),
        seen=head,
    )


async def _said(work: "Coroutine[Any, Any, Any]") -> Any:
    """What the model said; what it cannot answer is the asker's to mend."""
    from understudy.participant import EmptyAnswer, NothingToAnswer

    try:
        return await work
    except (EmptyAnswer, NothingToAnswer) as error:
        raise ApiError(422, str(error), code="no_answer") from error


async def _posting(site: Site, work: "Coroutine[Any, Any, Any]") -> None:
    """Work whose outcome readers see on the page; a failure was told to them as it came, and is logged."""
    try:
        await work
    except Exception as error:  # noqa: BLE001  (refusal_of logs the traceback of what nobody expected)
        log.warning("the model was asked and gave no answer: %s", refusal_of(error).message)
    site.board.poke()


def _require(request: Request, right: Right, file: str, what: str) -> tuple[Site, Visitor]:
    site: Site = request.app.state.site
    visitor = visitor_of(request)
    visitor.participants.require(visitor.name, right, file, what)
    return site, visitor


def _back(form: MessageForm) -> str:
    return f"/talk/{quote(name_of(form.file))}?at={quote(form.id)}#{quote(form.id)}"
