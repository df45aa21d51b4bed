"""What people do in conversations: each action is one commit, by them, with the rights they have."""

import asyncio
from collections.abc import Callable
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import Conflict, InvalidTarget, Posted, compare_words
from understudy.server.messages import json_response
from understudy.server.pages.forms import (
    DeleteForm,
    EditForm,
    MoveForm,
    PostForm,
    ReadForm,
    RenameForm,
    ReplyForm,
    RestoreForm,
    SplitForm,
    StartForm,
)
from understudy.server.pages.learn import lesson_preview, propose_now
from understudy.server.pages.message_views import file_of, name_of
from understudy.server.pages.rendering import SECURITY, is_fragment, page, wants_json
from understudy.server.pages.routing import done, read_form
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import Visitor, visitor_of


async def start_thread(request: Request) -> Response:
    """Open a thread, in a new conversation if there is none of this name."""
    form = await read_form(request, StartForm)
    file = file_of(form.name.strip())
    return await _do(
        request,
        file,
        lambda site, by: site.repository.start(file, form.title, by, form.body, key=form.key),
    )


async def post_message(request: Request) -> Response:
    """Say something at the end of a thread, in answer to no message."""
    form = await read_form(request, PostForm)
    return await _do(
        request,
        form.file,
        lambda site, by: site.repository.post(form.file, form.thread, by, form.body, key=form.key),
    )


async def reply(request: Request) -> Response:
    """Reply to a message."""
    form = await read_form(request, ReplyForm)
    return await _do(
        request,
        form.file,
        lambda site, by: site.repository.reply(
            form.file, form.id, by, form.body, expected_revision=form.seen, key=form.key
        ),
    )


async def edit(request: Request) -> Response:
    """Give a message another text. Of the model's message that is a correction: the lesson in it is shown,
    and nothing is trained before someone approves it. Where somebody else was faster, both texts are shown.
    """
    form = await read_form(request, EditForm)
    site, visitor = _asked(request)
    try:
        posted = await asyncio.to_thread(
            lambda: site.repository.edit(
                form.file, form.id, visitor.name, form.body, expected_revision=form.seen, key=form.key
            )
        )
    except Conflict as conflict:
        return _show_conflict(request, site, form, conflict)
    site.board.poke()
    entry = await asyncio.to_thread(propose_now, site, form.file, posted.message, posted.commit)
    if entry is None or wants_json(request):
        return _answer(request, form.file, posted, lesson=entry.short if entry else None)
    return page(
        request,
        "taught.html",
        name=name_of(form.file),
        message=posted.message,
        preview=await asyncio.to_thread(lesson_preview, site, visitor, entry),
    )


def _show_conflict(request: Request, site: Site, form: EditForm, conflict: Conflict) -> Response:
    head = site.repository.head()
    if wants_json(request):
        told = {"seen": conflict.seen, "submitted": conflict.submitted, "current": conflict.current}
        error = {"message": str(conflict), "type": "invalid_request_error", "param": None, "code": "conflict"}
        return json_response({"error": error, **told, "commit": head}, status=409, headers=SECURITY)
    return page(
        request,
        "conflict.html",
        status=200 if is_fragment(request) else 409,
        form=form,
        name=name_of(form.file),
        conflict=conflict,
        changed=compare_words(conflict.seen, conflict.current),
        seen=head,
    )


async def delete(request: Request) -> Response:
    """Take a message back; the answer says how to undo that."""
    form = await read_form(request, DeleteForm)
    site, visitor = _asked(request)
    posted = await asyncio.to_thread(
        lambda: site.repository.delete(
            form.file, form.id, visitor.name, expected_revision=form.seen, key=form.key
        )
    )
    site.board.poke()
    undo = {"file": form.file, "id": posted.message, "commit": posted.commit}
    query = urlencode({"deleted": posted.message, "in": posted.commit})
    told = {"commit": posted.commit, "message": posted.message, "undo": undo}
    return done(request, f"/talk/{quote(name_of(form.file))}?{query}", told)


async def restore_message(request: Request) -> Response:
    """Bring a deleted message back, as it was."""
    form = await read_form(request, RestoreForm)
    return await _do(
        request,
        form.file,
        lambda site, by: site.repository.restore(form.file, form.id, form.commit, by, key=form.key),
    )


async def move(request: Request) -> Response:
    """Put a message and all below it into another thread, or into a new one."""
    form = await read_form(request, MoveForm)
    if (form.thread is None) == (form.title is None):
        raise InvalidTarget("choose a thread to move it to, or give a new one's title: one of the two")
    return await _do(
        request,
        form.file,
        lambda site, by: site.repository.move(
            form.file,
            form.id,
            form.thread,
            by,
            title=form.title,
            expected_revision=form.seen,
            key=form.key,
        ),
    )


async def split(request: Request) -> Response:
    """Open a thread about one paragraph of a message."""
    form = await read_form(request, SplitForm)
    return await _do(
        request,
        form.file,
        lambda site, by: site.repository.split(
            form.file,
            form.id,
            form.paragraph,
            form.title,
            by,
            expected_revision=form.seen,
            key=form.key,
        ),
    )


async def rename(request: Request) -> Response:
    """Give a thread another title."""
    form = await read_form(request, RenameForm)
    return await _do(
        request,
        form.file,
        lambda site, by: site.repository.rename(form.file, form.thread, form.title, by, key=form.key),
    )


async def mark_read(request: Request) -> Response:
    """Note that the visitor has read a conversation up to a commit."""
    form = await read_form(request, ReadForm)
    site, visitor = _asked(request)
    site.repository.revision(form.file, form.commit, reader=visitor.name)
    await asyncio.to_thread(site.index.mark_read, visitor.name, file=form.file, revision=form.commit)
    return Response(status_code=204, headers=dict(SECURITY))


async def _do(request: Request, file: str, act: Callable[[Site, str], Posted]) -> Response:
    """One operation by the visitor, told to all readers at once."""
    site, visitor = _asked(request)
    posted = await asyncio.to_thread(act, site, visitor.name)
    site.board.poke()
    return _answer(request, file, posted)


def _answer(request: Request, file: str, posted: Posted, lesson: str | None = None) -> Response:
    told = {"commit": posted.commit, "message": posted.message, "moved": dict(posted.moved)}
    if lesson is not None:
        told["lesson"] = lesson
    query = urlencode({"at": posted.message, "posted": posted.commit})
    return done(request, f"/talk/{quote(name_of(file))}?{query}#{posted.message}", told)


def _asked(request: Request) -> tuple[Site, Visitor]:
    site: Site = request.app.state.site
    return site, visitor_of(request)
