"""Who may pass to which page, and what a person's own token opens of the API.

A browser is known by its session's cookie, a script by a person's token or by the workspace's. What they may
do is asked of `participants.toml` as it stands at that moment.
"""

from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope as AsgiScope

from understudy.access import TOKEN_PREFIX, Scope, suggested_name
from understudy.conversation import Kind, Participants, Right, valid_name
from understudy.server.auth import ALWAYS_OPEN, READING_POSTS, SAFE_METHODS, bearer, route_path
from understudy.server.errors import ApiError
from understudy.server.pages.cookies import Cookies, cookie_key
from understudy.server.pages.limiting import Limiter
from understudy.server.pages.rendering import SECURITY, is_fragment, wants_json
from understudy.server.pages.routing import refusal_of, show_refusal
from understudy.server.pages.site import Site
from understudy.server.pages.visitors import STRANGER, Visitor, foreign_form, narrowed, same, stranger

AS_HEADER = "understudy-as"
"""Whose name the workspace's token acts under, percent-encoded; the owner's when it is not given."""
_ENTRANCES = frozenset({"join", "sign-in"})
"""Where strangers post."""
_PAGES = frozenset(
    {
        *("talk", "do", "part", "live", "m", "learn", "model", "people", "sign-out", "github", "assets"),
        *_ENTRANCES,
    }
)
_CLOSED = frozenset({"learn", "model", "people"})
"""What no stranger looks at; the other pages ask themselves what may be seen."""
_ACTION_SCOPES: Mapping[str, Scope] = {
    **dict.fromkeys(("approve", "propose-again", "refuse", "lesson-edit", "decide"), "teach"),
    **dict.fromkeys(("train-approved", "cancel"), "train"),
    "restore-weights": "weights",
}
"""What posting to `/do/...` takes of a token; `talk` where nothing else stands."""
_SESSIONS_ONLY = ("/people/me", "/join/", "/sign-in", "/sign-out", "/github/")
"""No token may be used to make another, or a session."""
_TRAINING = frozenset({"/train", "/train/cancel", "/finetune", "/lessons/train", "/checkpoint"})


class WorkspaceDoorkeeper:
    """Knows the people of one workspace. Safe among threads."""

    def __init__(self, site: Site) -> None:
        workspace, settings = site.workspace, site.workspace.settings
        self.accounts = site.accounts
        self.cookies = Cookies(cookie_key(workspace.root), settings.access.public_url)
        self.limiter = Limiter(settings.access)
        self._repository = site.repository
        self._model = settings.model.name
        self._token = workspace.token
        self._public = urlsplit(settings.access.public_url or "").hostname
        self._suggested = suggested_name(workspace.root)

    @property
    def public_host(self) -> str | None:
        """The name under which a proxy passes on what comes from elsewhere; None without a proxy."""
        return self._public

    def is_page(self, path: str) -> bool:
        """Whether this is a page's path."""
        return path in ("", "/") or _section(path) in _PAGES

    async def admit(self, scope: AsgiScope) -> Response | None:
        """Leave the visitor in the request's state; or the answer when the page is closed to them.

        A form that a session posts is the session's only once `confirm` has looked at it.
        """
        request = Request(scope)
        request.state.visitor, request.state.claim = STRANGER, None
        path = route_path(scope)
        if _section(path) == "assets":
            return None
        try:
            visitor = await to_thread.run_sync(self.identify, request)
            request.state.visitor = visitor
            if visitor.scopes is not None:
                _check_page_scope(request.method, path, visitor.scopes)
            if request.method in SAFE_METHODS:
                return _sign_in_first(request, path) if _is_closed(path, visitor) else None
            self._check_post(request, path, visitor)
        except Exception as error:  # noqa: BLE001  (explain logs what nobody expected)
            return show_refusal(request, refusal_of(error))
        return None

    async def opens(self, scope: AsgiScope) -> bool:
        """Whether a route of the API is opened by a person's own token; raises ApiError when it is not."""
        request, path = Request(scope), route_path(scope)
        if path in ALWAYS_OPEN or not bearer(request.headers).startswith(TOKEN_PREFIX):
            return False
        try:
            visitor = await to_thread.run_sync(self.identify, request)
            request.state.visitor = visitor
            needed = _api_scope(request.method, path)
            if needed is None:
                raise ApiError(403, f"{path} takes the workspace's token, and no person's", code="scope")
            _check_scope(needed, visitor.scopes or frozenset())
            right = Right.READ if needed == "read" else Right.TEACH
            visitor.participants.require(visitor.name, right, None, f"use {path}")
        except Exception as error:
            raise refusal_of(error) from error
        return True

    def identify(self, request: Request) -> Visitor:
        """Who asks. Raises ApiError for a credential that is none."""
        present = self._repository.participants()
        credential = bearer(request.headers)
        if credential:
            return self._by_token(request, credential, present)
        secret = self.cookies.session(request)
        session = self.accounts.sessions.find(secret) if secret else None
        if secret is None or session is None or not self.takes_part(present, session.name):
            return stranger(present)
        return Visitor(session.name, present, self.cookies.csrf(secret), None, session.number)

    def takes_part(self, present: Participants, name: str) -> bool:
        """Whether this is a person of the workspace; before there are participants, anyone but the model."""
        person = present.get(name)
        if person is None:
            return present.unrestricted and name != self._model
        return person.kind is Kind.PERSON

    def owner(self, present: Participants) -> str:
        """Whom the workspace's token acts for when it does not say: the owner, or another admin."""
        names = [self.accounts.links.owner() or self._suggested, self._suggested]
        admins = sorted(name for name, one in present.people.items() if one.has(Right.ADMIN))
        fitting = [name for name in names if present.may(name, Right.ADMIN)]
        return [*fitting, *admins, self._suggested][0]

    def _by_token(self, request: Request, credential: str, present: Participants) -> Visitor:
        given = unquote(request.headers.get(AS_HEADER, ""))
        if same(credential, self._token):
            name = valid_name(given) if given else self.owner(present)
            if not present.unrestricted and present.get(name) is None:
                raise ApiError(403, f"participants.toml knows no {name!r}", code="unknown_participant")
            return Visitor(name, present)
        self.limiter.check_failures(request)
        token = self.accounts.tokens.find(credential) if credential.startswith(TOKEN_PREFIX) else None
        if token is None or not self.takes_part(present, token.name):
            self.limiter.failed(request)
            raise ApiError(
                401,
                "expected the header `Authorization: Bearer <token>` with a token of a participant's that is "
                "neither revoked nor past its time",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if given not in ("", token.name):
            raise ApiError(
                403, f"a token of {token.name}'s acts for {token.name}, got {given!r}", code="scope"
            )
        left = narrowed(present, token.name, token.scopes, self._model)
        return Visitor(token.name, left, scopes=token.scopes)

    def _check_post(self, request: Request, path: str, visitor: Visitor) -> None:
        site = request.headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none"):
            raise ApiError(
                403,
                f"expected a post of this server's own pages, got a {site} one",
                code="origin_not_allowed",
            )
        if _section(path) in _ENTRANCES:
            return
        if not visitor.known:
            raise ApiError(401, "sign in first: this browser has no session, or it is over", code="sign_in")
        if visitor.scopes is not None or visitor.csrf:
            self.limiter.post(visitor.name)
        if not visitor.csrf:
            return
        shown = request.headers.get("x-csrf-token")
        if shown is None:
            request.state.visitor, request.state.claim = stranger(visitor.participants), visitor
        elif not same(shown, visitor.csrf):
            raise foreign_form()


def doorkeeper_of(request: Request) -> WorkspaceDoorkeeper:
    """The application's doorkeeper."""
    found: WorkspaceDoorkeeper = request.app.state.doorkeeper
    return found


def local_path(given: str, otherwise: str = "/") -> str:
    """A path to go on to, if it can only be one of this server's; else another."""
    plain = given.startswith("/") and not given.startswith("//") and "\\" not in given and given.isprintable()
    return given if plain else otherwise


def _section(path: str) -> str:
    """The first part of a path; empty for the first page."""
    return path.removeprefix("/").partition("/")[0]


def _is_closed(path: str, visitor: Visitor) -> bool:
    return not visitor.known and _section(path) in _CLOSED


def _sign_in_first(request: Request, path: str) -> Response:
    if wants_json(request) or is_fragment(request):
        raise ApiError(401, "sign in to see this", code="sign_in")
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"/sign-in?next={quote(path + query, safe='')}", 303, headers=dict(SECURITY))


def _check_page_scope(method: str, path: str, scopes: frozenset[Scope]) -> None:
    if path.startswith(_SESSIONS_ONLY):
        raise ApiError(403, f"{path} takes a browser's session, no token opens it", code="scope")
    _check_scope("read" if method in SAFE_METHODS else action_scope(path), scopes)


def action_scope(path: str) -> Scope:
    """What posting to a page takes of a token."""
    if _section(path) == "people":
        return "admin"
    return _ACTION_SCOPES.get(path.removeprefix("/do/"), "talk")


def _check_scope(needed: Scope, scopes: frozenset[Scope]) -> None:
    if needed not in scopes:
        given = ", ".join(sorted(scopes))
        raise ApiError(
            403, f"that takes a token with the scope {needed!r}, this one has: {given}", code="scope"
        )


def _api_scope(method: str, path: str) -> Scope | None:
    """What a route of the API takes of a person's token; None when only the workspace's will do."""
    if method in SAFE_METHODS or path in READING_POSTS:
        return "read"
    if path in _TRAINING:
        return "train"
    if path.startswith("/weights/"):
        return "weights"
    return "teach" if path.startswith(("/behaviours/", "/lessons/")) else None
