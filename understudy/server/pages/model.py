"""The pages of the model: its weight commits, what each taught and did, and the way back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from understudy.conversation import Right
from understudy.server.errors import ApiError
from understudy.server.pages.doorkeeper import local_path
from understudy.server.pages.evidence import read_decisions
from understudy.server.pages.learn import entered, read_query
from understudy.server.pages.lesson_actions import require_teacher
from understudy.server.pages.lesson_views import Reach
from understudy.server.pages.model_views import (
    CHOICES,
    INITIAL,
    PAGE,
    CommitLog,
    Ledgered,
    commit_cards,
    compare_commits,
    plot_over_time,
    taught,
)
from understudy.server.pages.plots import line_plot
from understudy.server.pages.readouts import show_readout
from understudy.server.pages.rendering import SECURITY, page
from understudy.server.pages.routing import PageRoute, done, read_form
from understudy.server.pages.visitors import Visitor, visitor_of
from understudy.server.pages.weight_reports import PLOTS, WeightReports
from understudy.server.training_routes import carried_out

if TYPE_CHECKING:
    from understudy.server.pages.site import Site
    from understudy.weights import WeightCommit

_PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A picture is a document of its own, with styles inside and nothing that runs."""


class Timeline(msgspec.Struct, frozen=True):
    """The query of `/model`."""

    page: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1


class Pair(msgspec.Struct, frozen=True):
    """Two commits, by the beginnings of their ids; `initial` are the weights as they came."""

    a: str = INITIAL
    b: str = INITIAL


class RestoreForm(msgspec.Struct):
    """Which weights to bring back: those of a commit, or (`parent`) those before it; empty: as they came."""

    commit: str = ""
    parent: bool = False
    back: str = "/model"


def model_routes() -> list[Route]:
    """Weights and readouts. `/model/{commit}` takes the beginning of a commit's id."""
    pages = ModelPages()
    return [
        PageRoute("GET", "/model", pages.timeline),
        PageRoute("GET", "/model/compare", pages.compare),
        PageRoute("GET", "/model/{commit}", pages.commit),
        PageRoute("GET", "/model/{commit}/{plot}.svg", pages.picture),
        PageRoute("GET", "/part/movement", pages.movement),
        PageRoute("GET", "/part/readout", show_readout),
        PageRoute("POST", "/do/restore-weights", pages.restore),
    ]


class ModelPages:
    """Endpoints that share what was read and measured."""

    def __init__(self) -> None:
        self._log = CommitLog()
        self._made: WeightReports | None = None

    async def timeline(self, request: Request) -> Response:
        """All weight commits, newest first."""
        site, visitor = await entered(request)
        wanted = read_query(request, Timeline)
        commits = await to_thread.run_sync(self._log.read, site)
        pages = max(1, -(-len(commits) // PAGE))
        if wanted.page > pages:
            raise ApiError(404, f"expected a page from 1 to {pages}, got {wanted.page}")
        newest = list(reversed(commits))
        shown = newest[(wanted.page - 1) * PAGE : wanted.page * PAGE]
        ledgered, reach = await to_thread.run_sync(_ledgered, site, visitor)
        return page(
            request,
            "model.html",
            cards=commit_cards(commits, shown, ledgered, reach),
            number=wanted.page,
            pages=pages,
            total=len(commits),
            plots=plot_over_time(commits),
            choices=newest[:CHOICES],
            initial=INITIAL,
            may_restore=visitor.may(Right.TEACH),
        )

    async def commit(self, request: Request) -> Response:
        """One weight commit: its lessons, settings, outcomes and decisions."""
        site, visitor = await entered(request)
        commits = await to_thread.run_sync(self._log.read, site)
        found = find_commit(commits, request.path_params["commit"])
        ledgered, reach = await to_thread.run_sync(_ledgered, site, visitor)
        result: dict[str, Any] = found.details.get("result") or {}
        losses = [(float(n), one) for n, one in enumerate(result.get("losses") or (), 1) if one is not None]
        decisions = site.service.decider.gatekeeper.decisions
        decided = decisions.of(found.session) if found.session else ()
        label = f"Loss of each step, from {losses[0][1]:.3g} to {losses[-1][1]:.3g}" if losses else ""
        [card] = commit_cards(commits, [found], ledgered, reach)
        return page(
            request,
            "commit.html",
            card=card,
            lessons=[taught(identity, ledgered, reach) for identity in found.lessons],
            settings=found.details.get("settings") or {},
            result=result,
            outcomes=result.get("outcomes") or [],
            losses=line_plot(losses, label),
            decisions=read_decisions(decided),
            waits=bool(decided) and decided[-1].choice == "ask",
            may_restore=visitor.may(Right.TEACH),
        )

    async def movement(self, request: Request) -> Response:
        """What moved between two commits, layer by layer; between neighbours also as pictures."""
        site, _ = await entered(request)
        a, b = await self._pair(request, site)
        moved = await self._reports(site).movement(a, b)
        commits = await to_thread.run_sync(self._log.read, site)
        own = next((one for one in commits if one.id == b and one.parent == a), None)
        layers = sorted(moved.layers.items(), key=lambda pair: -pair[1].change)
        groups = sorted(moved.groups().items(), key=lambda pair: -pair[1].change)[:12]
        return page(
            request,
            "movement.html",
            moved=moved,
            layers=layers[:12],
            groups=groups,
            pictures=[(name, PLOTS[name]) for name in (["heads"] if moved.heads else []) + ["matrices"]],
            commit=own.id if own is not None else None,
        )

    async def picture(self, request: Request) -> Response:
        """A plot of one commit, as an image."""
        site, _ = await entered(request)
        commits = await to_thread.run_sync(self._log.read, site)
        found = find_commit(commits, request.path_params["commit"])
        drawn = await self._reports(site).picture(found.id, request.path_params["plot"])
        headers = {**SECURITY, "Content-Security-Policy": _PICTURE_POLICY}
        return Response(drawn, headers=headers, media_type="image/svg+xml")

    async def compare(self, request: Request) -> Response:
        """Two commits beside each other."""
        site, visitor = await entered(request)
        a, b = await self._pair(request, site)
        commits = await to_thread.run_sync(self._log.read, site)
        ledgered, reach = await to_thread.run_sync(_ledgered, site, visitor)
        found = await to_thread.run_sync(compare_commits, site, commits, a, b, ledgered, reach)
        choices = list(reversed(commits))[:CHOICES]
        return page(request, "compare.html", found=found, choices=choices, initial=INITIAL)

    async def restore(self, request: Request) -> Response:
        """Bring earlier weights back, bit for bit, while they are served; done when this answers."""
        site: Site = request.app.state.site
        form, visitor = await read_form(request, RestoreForm), visitor_of(request)
        require_teacher(visitor, "bring weights back")
        target: str | None = None
        if form.commit:
            found = find_commit(await to_thread.run_sync(self._log.read, site), form.commit)
            target = found.parent if form.parent else found.id
        made = await carried_out(site.service.sessions.restore(target, visitor.name))
        told = {"did": "restored", "commit": made, "restores": target}
        return done(request, local_path(form.back, "/model"), told)

    # ------------------------------------------------------------------ parts

    def _reports(self, site: "Site") -> WeightReports:
        if self._made is None:
            self._made = WeightReports(site.engine.directory)
        return self._made

    async def _pair(self, request: Request, site: "Site") -> tuple[str | None, str | None]:
        commits = await to_thread.run_sync(self._log.read, site)
        pair = read_query(request, Pair)
        a, b = (None if one == INITIAL else find_commit(commits, one).id for one in (pair.a, pair.b))
        if a == b:
            raise ApiError(400, f"expected two different states of the weights, got {pair.a} twice")
        return a, b


def find_commit(commits: "Sequence[WeightCommit]", beginning: str) -> "WeightCommit":
    """The one commit whose id begins like this. Raises ApiError(404)."""
    found = [one for one in commits if beginning and one.id.startswith(beginning)]
    if len(found) != 1:
        raise ApiError(
            404,
            f"expected the id of one weight commit, {beginning[:80]!r} fits {len(found)}: follow a link from "
            "the timeline",
            code="unknown_commit",
        )
    return found[0]


def _ledgered(site: "Site", visitor: Visitor) -> tuple[Ledgered, Reach]:
    return Ledgered.read(site), Reach.of(site, visitor)
