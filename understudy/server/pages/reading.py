"""The pages that only show: the list of conversations, a conversation and its parts, a message's history."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from understudy.conversation import (
    MATCH_END,
    MATCH_START,
    Activity,
    Conversation,
    ConversationError,
    Message,
    Piece,
    Revision,
    Right,
    compare_words,
    plain_line,
)
from understudy.server.errors import ApiError
from understudy.server.pages import windows
from understudy.server.pages.live import require_reader
from understudy.server.pages.message_views import empty_threads, file_of, name_of, place_of
from understudy.server.pages.rendering import page
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import Visitor, visitor_of

_FOUND = 50


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation in the list, with its threads, the one where someone spoke last first."""

    file: str
    name: str
    newest: str
    threads: tuple[Activity, ...]
    messages: int
    authors: tuple[str, ...]
    unread: int


async def show_list(request: Request) -> Response:
    """The conversations that the visitor may read, newest first; with `q`, the messages that say it."""
    site, visitor = _asked(request)
    query = request.query_params.get("q", "").strip()
    if not visitor.known:
        files = [file for file in site.repository.files() if visitor.may(Right.READ, file)]
        if not files:
            return RedirectResponse("/sign-in", 303)
        return page(request, "open.html", names=[name_of(file) for file in files], plain_line=plain_line)
    found: Sequence[Any] = ()
    problem = ""
    if query:
        try:
            found = await asyncio.to_thread(site.index.search, query, reader=visitor.name, limit=_FOUND)
        except ConversationError as error:
            problem = str(error)
    listed = () if query else await asyncio.to_thread(_list, site, visitor)
    may_post = visitor.may(Right.POST)
    return page(
        request,
        "list.html",
        listed=listed,
        query=query,
        found=[(entry, name_of(entry.file), _marked(entry.snippet or entry.body[:200])) for entry in found],
        problem=problem,
        may_post=may_post,
        plain_line=plain_line,
    )


def _list(site: Site, visitor: Visitor) -> tuple[Listed, ...]:
    unread = Counter(entry.file for entry in site.index.unread(visitor.name, reader=visitor.name))
    by_file: dict[str, list[Activity]] = {}
    for activity in site.index.activity(reader=visitor.name):
        by_file.setdefault(activity.file, []).append(activity)
    for file in site.repository.files(reader=visitor.name):
        by_file.setdefault(file, [])
    return tuple(
        Listed(
            file,
            name_of(file),
            threads[0].newest if threads else "",
            tuple(threads),
            sum(thread.messages for thread in threads),
            tuple(dict.fromkeys(author for thread in threads for author in thread.authors)),
            unread[file],
        )
        for file, threads in by_file.items()
    )


def _marked(snippet: str) -> list[tuple[str, bool]]:
    """A snippet in parts, each with whether it matched."""
    parts: list[tuple[str, bool]] = []
    snippet = " ".join(snippet.split())
    for piece in snippet.split(MATCH_START):
        hit, mark, rest = piece.partition(MATCH_END)
        parts += (
            [(plain_line(hit), True), (plain_line(rest), False)] if mark else [(plain_line(piece), False)]
        )
    return [part for part in parts if part[0]]


async def show_conversation(request: Request) -> Response:
    """A conversation: all of it, or a part around `at`, the first unread message, or its end."""
    site, visitor = _asked(request)
    file = file_of(request.path_params["name"])
    require_reader(visitor, file)
    asked = request.query_params
    shown = await asyncio.to_thread(_conversation, site, visitor, file, asked.get("at"))
    undo = {"id": asked["deleted"], "commit": asked["in"]} if {"deleted", "in"} <= set(asked) else None
    return page(request, "talk.html", **shown, undo=undo, posted=asked.get("posted"))


def _conversation(site: Site, visitor: Visitor, file: str, at: str | None) -> dict[str, Any]:
    head = site.repository.head()
    conversation = site.repository.read(file, head)
    count = len(conversation.messages)
    unread = None
    if at is None and visitor.known and count > windows.SIZE:
        new = site.index.unread(visitor.name, file=file)
        others = sum(message.author != visitor.name for message in conversation.messages)
        unread = new[0].id if 0 < len(new) < others else None  # who was never here begins at the end
    window = windows.opening(conversation.messages, at, unread)
    participants = visitor.participants
    model = participants.get(site.model_name)
    return {
        "file": file,
        "name": name_of(file),
        "commit": head,
        "rows": site.views.rows(file, conversation, window, site.origins.of(file), participants),
        "empty": [site.views.heading(file, thread) for thread in empty_threads(conversation)],
        "window": window,
        "count": count,
        "first": conversation.messages[window.start].id if window else "",
        "last": conversation.messages[window.stop - 1].id if window else "",
        "threads": _contents(conversation),
        "may_post": visitor.may(Right.POST, file),
        "may_teach": visitor.may(Right.TEACH, file),
        "model_display": plain_line(model.display if model else site.model_name),
        "access": participants.access(file),
        "plain_line": plain_line,
    }


def _contents(conversation: Conversation) -> list[tuple[str, str, int]]:
    """Of each thread its title, its first message and how many it has."""
    return [
        (plain_line(thread.title), thread.messages[0].id, sum(1 for _ in thread.walk()))
        for thread in conversation.threads
        if thread.messages
    ]


async def show_piece(request: Request) -> Response:
    """The messages before or after a message that the page shows."""
    site, visitor = _asked(request)
    file, before, after = (request.query_params.get(name, "") for name in ("file", "before", "after"))
    require_reader(visitor, file)
    conversation = await asyncio.to_thread(site.repository.read, file)
    place = place_of(conversation.messages, before or after)
    if place is None:
        conversation.message(before or after)  # says what there is
        raise AssertionError("a message that is there has a place")
    count = len(conversation.messages)
    window = windows.before(place) if before else windows.after(place + 1, count)

    def rows() -> str:
        origins = site.origins.of(file)
        return site.views.rows(file, conversation, window, origins, visitor.participants)

    return page(
        request,
        "piece.html",
        file=file,
        name=name_of(file),
        rows=await asyncio.to_thread(rows),
        earlier=conversation.messages[window.start].id if before and window.start > 0 else "",
        later=conversation.messages[window.stop - 1].id if not before and window.stop < count else "",
    )


async def show_menu(request: Request) -> Response:
    """What this visitor may do with a message."""
    site, visitor, file, message = await _message(request)
    is_model = message.author == site.model_name
    conversation_rights = {right: visitor.may(right, file) for right in Right}
    parent = message.parent
    return page(
        request,
        "menu.html",
        file=file,
        name=name_of(file),
        message=message,
        is_model=is_model,
        own=message.author == visitor.name,
        rights=conversation_rights,
        criticism=parent is not None and parent.author == site.model_name and not is_model,
        concepts=site.engine.directions is not None,
        link=f"/m/{quote(name_of(file))}/{message.id}",
    )


async def show_history(request: Request) -> Response:
    """The wordings of a message, each with what changed, word by word."""
    site, _, file, message = await _message(request)
    revisions = await asyncio.to_thread(site.repository.history, file, message.id)
    steps: list[tuple[Revision, tuple[Piece, ...]]] = [(one, ()) for one in revisions[:1]]
    steps += [(new, compare_words(old.body, new.body)) for old, new in pairwise(revisions)]
    return page(request, "history.html", message=message, steps=list(reversed(steps)), name=name_of(file))


async def go_to_message(request: Request) -> Response:
    """A permanent link: to where the message stands now, also if it was moved."""
    site, visitor = _asked(request)
    file, identity = file_of(request.path_params["name"]), request.path_params["id"]
    anchor = f"{file}#{identity}"
    place = await asyncio.to_thread(site.index.resolve, anchor)
    require_reader(visitor, place.file)
    query = urlencode({"at": place.id})
    return RedirectResponse(f"/talk/{quote(name_of(place.file))}?{query}#{place.id}", 303)


def _asked(request: Request) -> tuple[Site, Visitor]:
    site: Site = request.app.state.site
    return site, visitor_of(request)


async def _message(request: Request) -> tuple[Site, Visitor, str, Message]:
    """The message that a fragment is about, which the visitor may read."""
    site, visitor = _asked(request)
    file, identity = request.query_params.get("file", ""), request.query_params.get("id", "")
    require_reader(visitor, file)
    if not visitor.known:
        raise ApiError(401, "sign in to take part", code="sign_in")
    conversation = await asyncio.to_thread(site.repository.read, file)
    return site, visitor, file, conversation.message(identity)
