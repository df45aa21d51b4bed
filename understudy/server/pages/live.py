"""`/live/<name>`: everything new in a conversation, as server-sent events; an event's id is its commit."""

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import Right
from understudy.server.errors import ApiError
from understudy.server.pages.message_views import file_of
from understudy.server.pages.rendering import SECURITY
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import Visitor, identify, visitor_of

RETRY_MILLISECONDS = 1000
PING_SECONDS = 15


async def follow_live(request: Request) -> Response:
    """What is new since the commit in `Last-Event-ID`, or in `since`, and then as it comes."""
    site: Site = request.app.state.site
    file = file_of(request.path_params["name"])
    require_reader(visitor_of(request), file)
    since = request.headers.get("last-event-id") or request.query_params.get("since")
    site.repository.revision(file)  # an unknown one is refused before the stream begins
    headers = {**SECURITY, "X-Accel-Buffering": "no"}
    events: Response = EventSourceResponse(
        _events(request, site, file, since), headers=headers, ping=PING_SECONDS
    )
    return events


def require_reader(visitor: Visitor, file: str) -> None:
    """Raises ApiError: 401 for a stranger, 403 for a participant who may not read this."""
    if visitor.may(Right.READ, file):
        return
    if not visitor.known:
        raise ApiError(401, "sign in to read this conversation", code="sign_in")
    visitor.participants.require(visitor.name, Right.READ, file, "read")
    raise ApiError(403, "this token may not read", code="scope")


async def _events(request: Request, site: Site, file: str, since: str | None) -> AsyncIterator[bytes]:
    yield ServerSentEvent(event="hello", data="{}", retry=RETRY_MILLISECONDS).encode()
    async for items in site.board.follow(file, since):
        visitor = visitor_of(request) if items else identify(request)  # the session may have ended meanwhile
        if not _may_still_read(visitor, site, file):
            return
        yield b"".join(item.encoded for item in items)


def _may_still_read(visitor: Visitor, site: Site, file: str) -> bool:
    participants = site.board.participants
    if not visitor.known:
        return participants.open_to_all(file)
    return participants.may(visitor.name, Right.READ, file)
