"""Routes of the pages: forms read into types, refusals shown as pages."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from understudy.access import InvalidEntry, LinkRefused, UnknownEntry
from understudy.conversation import (
    Conflict,
    ConversationError,
    DuplicateThread,
    FileThere,
    InvalidPath,
    KeyReused,
    NotAllowed,
    RepositoryBusy,
    RepositoryFailure,
    StructureChanged,
    Unchanged,
    UnknownFile,
    UnknownMessage,
    UnknownRevision,
    UnknownThread,
)
from understudy.lessons import LessonError, UnknownLesson
from understudy.server.auth import SAFE_METHODS
from understudy.server.errors import ApiError
from understudy.server.messages import json_response
from understudy.server.operations import ApiRoute, Operation
from understudy.server.pages.rendering import SECURITY, is_fragment, page, wants_json
from understudy.server.pages.visitors import CSRF_FIELD, confirm, posted
from understudy.server.refusals import explain

Endpoint = Callable[[Request], Awaitable[Response]]
Form = TypeVar("Form", bound=msgspec.Struct)

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotAllowed, 403, "not_allowed"),
    (UnknownMessage, 404, "unknown_message"),
    (UnknownThread, 404, "unknown_thread"),
    (UnknownRevision, 404, "unknown_revision"),
    (InvalidPath, 404, "unknown_conversation"),
    (UnknownLesson, 404, "unknown_lesson"),
    (Conflict, 409, "conflict"),
    (Unchanged, 409, "unchanged"),
    (KeyReused, 409, "key_conflict"),
    (DuplicateThread, 409, "duplicate_thread"),
    (FileThere, 409, "conversation_exists"),
    (StructureChanged, 409, "malformed_file"),
    (RepositoryBusy, 503, "repository_busy"),
    (RepositoryFailure, 503, "repository_failure"),
    (LessonError, 409, "lesson_state"),
    (LinkRefused, 410, "link_refused"),
    (UnknownEntry, 404, "unknown_entry"),
    (InvalidEntry, 400, "invalid_request"),
    (ConversationError, 400, "invalid_request"),
)
"""What each refusal of a room below is over HTTP; the first that fits."""


class PageRoute(Route):
    """A route with one method whose failures are shown as a page, as a fragment, or to a script as JSON."""

    def __init__(self, method: str, path: str, endpoint: Endpoint) -> None:
        super().__init__(path, _shown(endpoint), methods=[method])


class ActionRoute(ApiRoute):
    """A form that is posted, by a person or a script, and that the API's document describes."""

    def __init__(self, path: str, endpoint: Endpoint, operation: Operation) -> None:
        super().__init__("POST", path, _shown(endpoint), operation)


def _shown(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its failures as answers. A post is a session's only once its form says so."""

    @functools.wraps(endpoint)
    async def shown(request: Request) -> Response:
        try:
            if request.method not in SAFE_METHODS:
                await confirm(request)
            return await endpoint(request)
        except ClientDisconnect:
            raise  # nobody is left to answer
        except Exception as error:  # noqa: BLE001  (explain logs what nobody expected)
            return show_refusal(request, refusal_of(error))

    return shown


def refusal_of(error: Exception) -> ApiError:
    """The ApiError that stands for any exception of the rooms below."""
    if isinstance(error, UnknownFile):  # what it says names the others, which not everyone may know of
        return ApiError(404, "there is no conversation of this name", code="unknown_conversation")
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return ApiError(status, str(error), code=code)
    return explain(error)


def show_refusal(request: Request, refusal: ApiError) -> Response:
    """A refusal as whoever asked can read it."""
    if wants_json(request):
        return json_response(refusal.body(), status=refusal.status, headers={**SECURITY, **refusal.headers})
    template = "notice.html" if is_fragment(request) else "refusal.html"
    return page(request, template, status=refusal.status, headers=refusal.headers, refusal=refusal)


async def read_form(request: Request, kind: type[Form]) -> Form:
    """The posted form as a `kind`. A field that stands several times is a list; an empty one counts as absent
    unless the field is a plain `str` without a default.

    Raises ApiError(400) that names the field.
    """
    given = await posted(request)
    fields: dict[str, Any] = {}
    for name in given:
        texts = [text for text in given.getlist(name) if not isinstance(text, UploadFile)]
        fields[name] = texts if _is_list(kind, name) else texts[-1]
    fields.pop(CSRF_FIELD, None)
    defaults = {field.name: not field.required for field in msgspec.structs.fields(kind)}
    fields = {name: text for name, text in fields.items() if text != "" or not defaults.get(name, False)}
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error), code="invalid_form") from error


def _is_list(kind: type[msgspec.Struct], name: str) -> bool:
    return any(
        field.name == name and "tuple" in str(field.type).lower() for field in msgspec.structs.fields(kind)
    )


def done(request: Request, to: str, told: Mapping[str, Any]) -> Response:
    """What an action answers: JSON to a script, an event to htmx, and else the page where it is seen."""
    if wants_json(request):
        return json_response(dict(told), headers=SECURITY)
    if is_fragment(request):
        event = msgspec.json.encode({"understudy:done": dict(told)}).decode()
        return Response(status_code=204, headers={**SECURITY, "HX-Trigger": _ascii(event)})
    return RedirectResponse(to, 303, headers=dict(SECURITY))


def _ascii(text: str) -> str:
    """JSON as a header can carry it."""
    return "".join(char if char.isascii() else f"\\u{ord(char):04x}" for char in text)
