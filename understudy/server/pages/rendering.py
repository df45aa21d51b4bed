"""Templates and what every page carries: strict headers, who looks, how times and names are shown."""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import Right
from understudy.server.auth import bearer, route_path
from understudy.server.pages.visitors import visitor_of

FOLDER = Path(__file__).parent
SECURITY: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""On every page: nothing from elsewhere, no inline script or style, in no frame, in no cache."""


@functools.cache
def templates() -> jinja2.Environment:
    """The one environment; everything that is put into a template is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = moment
    environment.filters["moment_or_blank"] = moment_or_blank
    environment.filters["raw"] = Markup
    environment.globals["Right"] = Right
    return environment


def moment(when: datetime | str | None) -> str:
    """A time to the second in UTC, ISO 8601, for `<time>`; the page shows it in the reader's zone."""
    if when is None:
        return ""
    found = datetime.fromisoformat(when) if isinstance(when, str) else when
    aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment_or_blank(written: str) -> str:
    """As `moment`, of a time as it stands in a file; empty for one that no calendar has."""
    try:
        return moment(written)
    except ValueError:
        return ""


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **shown: Any,
) -> Response:
    """A whole page, or, for htmx, only what stands in its `main`.

    Templates find the `visitor`, the `site`, the `request`'s path and `shown`. A template begins with
    `{% extends layout %}` and fills the blocks `title` and `main`.
    """
    context = {
        "layout": "fragment.html" if is_fragment(request) else "base.html",
        "visitor": visitor_of(request),
        "site": request.app.state.site,
        "path": request.url.path,
        **shown,
    }
    text = templates().get_template(template).render(context)
    return Response(text, status, {**SECURITY, **(headers or {})}, media_type="text/html")


def fragment(template: str, **shown: Any) -> str:
    """A piece of a page that looks the same to everyone."""
    return templates().get_template(template).render(shown)


def is_fragment(request: Request) -> bool:
    """Whether htmx asks, for a part of the page that it has already."""
    return request.headers.get("hx-request") == "true" and "hx-boosted" not in request.headers


def wants_json(request: Request) -> bool:
    """Whether a script asks: with a token, for JSON, or for an action; a browser accepts a page."""
    accepted = request.headers.get("accept", "")
    if is_fragment(request) or "text/html" in accepted:
        return False
    is_action = request.method == "POST" and route_path(request.scope).startswith("/do/")
    return "application/json" in accepted or bool(bearer(request.headers)) or is_action
