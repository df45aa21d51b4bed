"""The forms in which people write, with a preview of what they write."""

import asyncio
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import Message, Right, paragraphs, plain_line, render_body
from understudy.server.errors import ApiError
from understudy.server.pages.forms import PreviewForm
from understudy.server.pages.live import require_reader
from understudy.server.pages.message_views import name_of
from understudy.server.pages.rendering import page
from understudy.server.pages.routing import read_form
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import Visitor, visitor_of

KINDS = ("reply", "edit", "move", "split", "post", "rename", "start")


async def show_editor(request: Request) -> Response:
    """A form to write in: `kind` is what comes of it, `id` or `thread` what it is about."""
    site: Site = request.app.state.site
    visitor, asked = visitor_of(request), request.query_params
    kind, file = asked.get("kind", ""), asked.get("file", "")
    if kind not in KINDS:
        raise ApiError(400, f"expected one of {', '.join(KINDS)}, got {kind!r}", code="invalid_request")
    shown: dict[str, Any] = {}
    if kind == "start":
        _require(visitor, Right.POST, file or None, "start a thread")
    else:
        require_reader(visitor, file)
        shown = await asyncio.to_thread(_about, site, visitor, kind, file, asked)
    return page(
        request,
        "editor.html",
        kind=kind,
        file=file,
        name=name_of(file),
        key=uuid.uuid4().hex,
        plain_line=plain_line,
        **{"message": None, "thread": None, "threads": (), "blocks": (), "seen": "", "body": "", **shown},
    )


def _about(site: Site, visitor: Visitor, kind: str, file: str, asked: Any) -> dict[str, Any]:
    head = site.repository.head()
    conversation = site.repository.read(file, head)
    shown: dict[str, Any] = {"seen": head, "threads": [thread.title for thread in conversation.threads]}
    if kind in ("post", "rename"):
        right = Right.POST if kind == "post" else Right.MODERATE
        _require(visitor, right, file, kind)
        thread = conversation.thread(asked.get("thread", ""))
        return {**shown, "thread": thread.title, "body": asked.get("body", "")}
    message = conversation.message(asked.get("id", ""))
    _require_about(visitor, kind, file, message)
    if kind == "edit":
        return {**shown, "message": message, "body": asked.get("body") or message.body}
    if kind == "split":
        blocks = [block[:200] for block in paragraphs(message.body)]
        return {**shown, "message": message, "blocks": blocks}
    return {**shown, "message": message, "body": asked.get("body", "")}


def _require_about(visitor: Visitor, kind: str, file: str, message: Message) -> None:
    if kind == "edit":
        visitor.participants.require_change(visitor.name, message.author, file, f"edit message {message.id}")
    else:
        right = Right.POST if kind == "reply" else Right.MODERATE
        _require(
            visitor, right, file, {"reply": "reply", "move": "move messages"}.get(kind, "split messages")
        )


def _require(visitor: Visitor, right: Right, file: str | None, what: str) -> None:
    if not visitor.known:
        raise ApiError(401, "sign in to write", code="sign_in")
    visitor.participants.require(visitor.name, right, file, what)


async def show_preview(request: Request) -> Response:
    """A body as it will be shown. Nothing is stored."""
    form = await read_form(request, PreviewForm)
    html = await asyncio.to_thread(render_body, form.body) if form.body.strip() else ""
    return page(request, "preview.html", html=html)
