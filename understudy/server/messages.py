"""JSON in and out: bodies read and checked against a msgspec type, answers written."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.server.errors import ApiError

T = TypeVar("T")

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest body: a million tokens of English fit three times. More lessons go in several requests."""
_SHOWN_CHARACTERS = 80


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` (anything msgspec encodes) as a JSON answer."""
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


async def read_body(request: Request, kind: type[T]) -> T:
    """The request's JSON body as a `kind`.

    Raises ApiError(400) that names the field, what it takes and what came; ApiError(413) for a body
    beyond MAX_BODY_BYTES.
    """
    return parse_body(await request.body(), kind)


def parse_body(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    """`raw` as a `kind`; raises ApiError(400)."""
    return convert(raw, kind, "")


def convert(raw: bytes | msgspec.Raw, kind: type[T], where: str) -> T:
    """The part of a body that stands at `where`, as a `kind`; raises ApiError(400) that names the field."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `")
        path = path.rstrip("`")
        unknown = re.search(r"unknown field `(.*)`", reason)
        if unknown:
            fields = getattr(kind, "__struct_fields__", ()) if path in ("", "$") else ()
            raise unknown_field(_join(where, path, unknown[1]), fields) from error
        missing = re.search(r"missing required field `(.*)`", reason)
        field = _join(where, path, missing[1] if missing else "")
        came = "" if missing else _shown(bytes(raw), path)
        raise ApiError(400, f"{field or 'body'}: {reason}{came}", param=field or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        came = "an empty body" if not bytes(raw).strip() else f"something else ({error})"
        raise ApiError(400, f"expected a JSON object as the body, got {came}") from error


def unknown_field(field: str, fields: Iterable[str]) -> ApiError:
    """The refusal of a field that nothing here reads."""
    known = ", ".join(fields)
    return ApiError(
        400,
        f"{field}: expected only the fields this server knows{f' ({known})' if known else ''}, "
        "got this one too",
        param=field,
        code="unknown_parameter",
    )


class BodyLimitMiddleware:
    """Refuses bodies beyond `MAX_BODY_BYTES` before they are held in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
            await _discard(receive)
            raise _too_large(int(declared))
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > MAX_BODY_BYTES:
                await _discard(receive)
                raise _too_large(came)
            return message

        await self._app(scope, counted, send)


async def _discard(receive: Receive) -> None:
    """Read on for a while and keep nothing: a client that is still sending would meet a closed connection
    before it read why."""
    discarded = 0
    while discarded <= MAX_BODY_BYTES:
        message = await receive()
        discarded += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _too_large(size_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"expected a body of at most {MAX_BODY_BYTES} bytes, got {size_bytes} or more: send less at once",
        code="body_too_large",
        headers={"Connection": "close"},
    )


def _join(where: str, path: str, field: str) -> str:
    """`lessons[0]`, `$.messages[1]` and `role` make `lessons[0].messages[1].role`."""
    return f"{where}{path.removeprefix('$')}{f'.{field}' if field else ''}".removeprefix(".")


def _shown(raw: bytes, path: str) -> str:
    """ ", got ..." with the value that stands at msgspec's path, when the path names one value."""
    value: Any = msgspec.json.decode(raw)
    for key, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", path):
        if key and isinstance(value, dict):
            value = value.get(key)
        elif index.isdigit() and isinstance(value, list):
            value = value[int(index)]
        else:
            break
    text = repr(value)
    return f", got {text[:_SHOWN_CHARACTERS]}{'...' if len(text) > _SHOWN_CHARACTERS else ''}"
