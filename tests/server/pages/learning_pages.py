"""The pages of lessons and weights over a small workspace, without the rest of the server."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from understudy.conversation import ConversationRepository, Participants
from understudy.lessons import ChatMessage, Decisions, Ledger, LedgerEntry, Lesson, LessonResult, Source
from understudy.server import open_engine
from understudy.server.pages.learn import learn_routes
from understudy.server.pages.model import model_routes
from understudy.server.pages.visitors import Visitor
from understudy.server.training import TrainingService
from understudy.training import TrainerHandle
from understudy.workspace import Workspace

PEOPLE = """
[participants.maya]
rights = ["admin"]
[participants.jonas]
rights = ["post", "teach"]
[participants.lena]
rights = ["post"]
[participants.understudy]
kind = "model"
rights = ["post"]
[conversations."conversations/secret.md"]
access = "private"
members = ["jonas", "understudy"]
"""
HOSTILE = "</textarea><script>alert(1)</script><img src=x onerror=alert(1)> \"&' {{ 7 * 191 }}"


@dataclass(frozen=True)
class SmallSite:
    """What these pages ask of a site."""

    workspace: Workspace
    service: TrainingService
    repository: ConversationRepository
    ledger: Ledger
    model_name: str = "understudy"

    @property
    def engine(self) -> Any:
        return self.service.engine


class Named:
    """Whoever the header `x-name` names."""

    def __init__(self, app: ASGIApp, repository: ConversationRepository) -> None:
        self._app, self._repository = app, repository

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            name = dict(scope["headers"]).get(b"x-name", b"").decode()
            participants = self._repository.participants()
            scope.setdefault("state", {})["visitor"] = Visitor(name, participants, csrf="a-token")
        await self._app(scope, receive, send)


@dataclass
class Pages:
    """The pages, with one client for everyone."""

    site: SmallSite
    client: TestClient
    said: list[str] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return self.site.ledger

    def get(self, path: str, name: str = "maya", **query: str) -> tuple[int, str]:
        """Status and page."""
        found = self.client.get(path, params=query, headers={"x-name": name})
        return found.status_code, found.text

    def see(self, path: str, name: str = "maya", **query: str) -> str:
        """A page that is there."""
        status, text = self.get(path, name, **query)
        assert status == 200, text
        return text

    def part(self, path: str, name: str = "maya", **query: str) -> str:
        """A fragment, as htmx asks for it."""
        found = self.client.get(path, params=query, headers={"x-name": name, "hx-request": "true"})
        assert found.status_code == 200 and "<html" not in found.text, found.text
        return found.text

    def do(self, action: str, fields: Mapping[str, str | Sequence[str]], name: str = "maya") -> int:
        """The status of a posted form; 303 is done."""
        data = {key: value if isinstance(value, str) else list(value) for key, value in fields.items()}
        found = self.client.post(f"/do/{action}", data=data, headers={"x-name": name}, follow_redirects=False)
        self.said.append(found.text)
        return found.status_code


def small_pages(workspace: Workspace, service: TrainingService) -> Pages:
    """The pages of a workspace whose trainer rests."""
    return Pages(*_app(workspace, service, None))


@contextmanager
def training_pages(workspace: Workspace) -> Iterator[Pages]:
    """The pages of a workspace with its trainer at work while the block runs."""
    with open_engine(workspace) as engine:
        trainer = TrainerHandle(engine.manifest, engine.directory, log_file=workspace.trainer_log)
        service = TrainingService(workspace, engine, trainer)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            running = asyncio.create_task(service.run())
            try:
                yield
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await trainer.close()

        site, client = _app(workspace, service, lifespan)
        with client:
            yield Pages(site, client)


def _app(workspace: Workspace, service: TrainingService, lifespan: Any) -> tuple[SmallSite, TestClient]:
    repository = workspace.repository
    site = SmallSite(workspace, service, repository, workspace.ledger)
    app = Starlette(
        routes=[*learn_routes(), *model_routes()],
        middleware=[Middleware(Named, repository=repository)],
        lifespan=lifespan,
    )
    app.state.site = site
    return site, TestClient(app, headers={"Accept": "text/html"})


def people(workspace: Workspace) -> Participants:
    """Write PEOPLE down."""
    workspace.repository.set_participants(PEOPLE, "maya")
    return workspace.repository.participants()


def correct(workspace: Workspace, file: str, said: str, better: str, by: str = "jonas") -> tuple[str, str]:
    """A question, the model's answer and a person's correction of it; returns the message and the commit."""
    repository = workspace.repository
    asked = repository.start(f"conversations/{file}.md", f"About {file}", by, f"What of {file}?")
    answer = repository.reply(f"conversations/{file}.md", asked.message, "understudy", said)
    edited = repository.edit(f"conversations/{file}.md", answer.message, by, better)
    return edited.message, edited.commit


def imported(ledger: Ledger, chosen: str, rejected: str | None = "No.") -> LedgerEntry:
    """A lesson that came from no conversation."""
    source = Source("/data/lessons.jsonl", "", "line 1", "", "", "")
    return ledger.propose(Lesson((ChatMessage("user", "Tea?"),), chosen, rejected, source)).entry


def learned(workspace: Workspace, entry: LedgerEntry, commit: str | None = None) -> Decisions:
    """Take a proposed lesson through a session, as the server would."""
    ledger = workspace.ledger
    ledger.approve(entry.id, "maya")
    ledger.begin_session("s" * 32, [entry.id], {"lr": 1e-3})
    result = LessonResult(
        2.5, 0.25, False, -10.0, -1.0, answer_before="Said before.", answer_after="Said after."
    )
    ledger.finish_session("s" * 32, commit, {entry.id: result})
    return Decisions(ledger.path)
