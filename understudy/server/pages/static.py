"""The pages' own scripts, styles and pictures. Nothing is loaded from anywhere else."""

import functools
import hashlib

from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import highlight_css
from understudy.server.errors import ApiError
from understudy.server.pages.rendering import FOLDER

_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}


async def send_asset(request: Request) -> Response:
    """One file by its name. Browsers ask each time whether it changed, so that an update is seen at once."""
    name = request.path_params["name"]
    known = _assets()
    if name not in known:
        raise ApiError(404, f"there is no asset {name!r}", code="unknown_url")
    content, kind, tag = known[name]
    headers = {"ETag": tag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)


@functools.cache
def _assets() -> dict[str, tuple[bytes, str, str]]:
    """Every asset's bytes, type and tag, read once: only these names are ever answered."""
    found = {file.name: file.read_bytes() for file in sorted((FOLDER / "assets").iterdir()) if file.is_file()}
    found["highlight.css"] = highlight_css().encode()
    return {
        name: (content, _KINDS[name[name.rindex(".") :]], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
        for name, content in found.items()
    }
