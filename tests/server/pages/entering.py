"""An application with the pages of people and access, and browsers that come in, without a real browser."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.testclient import TestClient
from workspace_server import idle_service, small_workspace

from understudy.access import Accounts, change, invite
from understudy.config import ServerSettings
from understudy.conversation import Right
from understudy.server.auth import GuardMiddleware
from understudy.server.messages import BodyLimitMiddleware, json_response
from understudy.server.pages.access import access_routes
from understudy.server.pages.doorkeeper import WorkspaceDoorkeeper
from understudy.server.pages.routing import PageRoute
from understudy.server.pages.site import Site, open_site
from understudy.server.pages.static import send_asset
from understudy.server.pages.visitors import visitor_of
from understudy.server.refusals import ErrorsMiddleware
from understudy.server.training import TrainingService
from understudy.workspace import Workspace

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
URL = "http://127.0.0.1:8423"
FILE = "conversations/talk.md"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Browser(TestClient):
    """Keeps cookies, stays where it is sent, and fills a form's hidden fields from the page it is on."""

    def submit(self, path: str, /, **fields: object) -> httpx2.Response:
        """Post a form as it stands on a page of this browser's session."""
        return self.post(path, data={"csrf": self.csrf(), **fields}, headers={"Origin": URL})

    def csrf(self) -> str:
        """What this session's forms carry."""
        found = re.search(r'name="csrf" value="([0-9A-Za-z_-]+)"', self.get("/people/me").text)
        return found[1] if found else ""

    @property
    def name(self) -> str:
        """Who this browser is signed in as."""
        return str(self.get("/do/who", headers={"Accept": "application/json"}).json()["name"])


async def who(request: Request) -> Response:
    """What a page that shows or changes something finds out about its visitor."""
    visitor = visitor_of(request)
    site: Site = request.app.state.site
    rights = [right.value for right in Right if visitor.may(right, FILE)]
    asked = [right.value for right in Right if visitor.participants.may(visitor.name, right, FILE)]
    return json_response({"name": visitor.name, "rights": rights, "asked": asked, "model": site.model_name})


async def done(request: Request) -> Response:
    """A route of the API's that did what it was asked for."""
    return json_response({"done": True})


API = (
    "/train",
    "/finetune",
    "/checkpoint",
    "/lessons/train",
    "/weights/restore",
    "/behaviours/decide",
    "/score",
)


@dataclass(frozen=True)
class Pages:
    """The application, what it keeps, and the clock that its accounts go by."""

    app: Starlette
    site: Site
    clock: Clock

    @property
    def accounts(self) -> Accounts:
        return self.site.accounts

    def browser(self, *, url: str = URL, address: str = "127.0.0.1") -> Browser:
        """A new browser, without cookies."""
        return Browser(self.app, url, follow_redirects=False, client=(address, 5000))

    def signed_in(self, name: str) -> Browser:
        """A browser that came in by a link of its own."""
        browser = self.browser()
        link = self.accounts.links.make("invitation", name, "maya", timedelta(days=1))
        assert browser.post(f"/join/{link}").status_code == 303
        return browser

    def invite(self, name: str, *rights: Right) -> None:
        """Make someone a participant, as maya."""
        self.accounts.change_people(
            self.site.repository,
            "maya",
            lambda present: invite(present, "maya", name, "", rights, self.site.model_name),
        )

    def give(self, name: str, *rights: Right) -> None:
        """Change a participant's rights, as maya."""
        self.accounts.change_people(
            self.site.repository, "maya", lambda present: change(present, name, "", rights)
        )


@contextmanager
def service_for_pages(folder: Path) -> Iterator[TrainingService]:
    """An engine and an idle trainer: what pages about people need of them is that they are there."""
    with idle_service(small_workspace(folder)) as service:
        yield service


def open_pages(
    folder: Path, service: TrainingService, *, settings: str = "", routes: Sequence[BaseRoute] = ()
) -> Pages:
    """The pages of a workspace of its own."""
    model = service.engine.directory
    workspace = Workspace.create(folder, model=model, copy_model=False, replay=(), settings=settings)
    clock, site = Clock(), open_site(workspace, service.engine, service)
    site = replace(site, accounts=Accounts(workspace.root, workspace.settings.access, clock))
    keeper = WorkspaceDoorkeeper(site)
    app = Starlette(
        routes=[
            *access_routes(),
            PageRoute("GET", "/", who),
            PageRoute("GET", "/assets/{name}", send_asset),
            PageRoute("GET", "/learn", who),
            PageRoute("GET", "/do/who", who),
            PageRoute("POST", "/do/who", who),
            Route("/do/forgotten", who, methods=["POST"]),  # no PageRoute: nobody confirms the form
            *(PageRoute("POST", f"/do/{verb}", who) for verb in ("approve", "cancel", "restore-weights")),
            *(Route(path, done, methods=["POST"]) for path in API),
            *(Route(path, done) for path in ("/health", "/train/status")),
            *routes,
        ],
        middleware=[
            Middleware(ErrorsMiddleware),
            Middleware(GuardMiddleware, host=ServerSettings().host, token=workspace.token, doorkeeper=keeper),
            Middleware(BodyLimitMiddleware),
        ],
    )
    app.state.site, app.state.doorkeeper = site, keeper
    return Pages(app, site, clock)


def path_of(link: str) -> str:
    """The path of an address."""
    return urlsplit(link).path


def shown_secret(page: httpx2.Response) -> str:
    """The link or token that a page shows once."""
    assert page.status_code == 200, page.text
    found = re.search(r'class="secret" readonly value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]
