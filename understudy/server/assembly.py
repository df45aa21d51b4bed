"""A workspace's server, put together: engine, trainer, watcher, routes."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette

from understudy.server.app import create_app
from understudy.server.metrics import TrainingMetrics
from understudy.server.pages import WorkspaceDoorkeeper, open_site, page_routes
from understudy.server.training import TrainingService
from understudy.server.training_routes import training_routes
from understudy.server.watcher import keep_tidy, watch
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import EmbeddedEngine, Engine
    from understudy.training import Launch

log = logging.getLogger(__name__)
ORPHAN_SECONDS = 60.0
"""How long a trainer whose server was killed may take to end: it finishes its step, or its sync."""


def open_engine(workspace: Workspace) -> "EmbeddedEngine":
    """The workspace's model, loaded to be served. Weight commits that its files do not hold yet come first.

    Raises HistoryBusy when a trainer that an earlier server left behind does not end.
    """
    from understudy.engine import EmbeddedEngine, locate_model
    from understudy.weights import WeightHistory, teaching

    directory = locate_model(workspace.model_path)
    with teaching(directory, wait_seconds=ORPHAN_SECONDS):
        head = WeightHistory.open(directory).head
    limits = workspace.settings.server
    engine = EmbeddedEngine(
        workspace.settings.model,
        directory,
        max_concurrent=limits.max_concurrent,
        max_waiting=limits.max_waiting,
        readout=workspace.readout_path,
    )
    engine.weight_commit = engine.shared.commit = head
    return engine


def create_workspace_app(workspace: Workspace, engine: "Engine", launch: "Launch | None" = None) -> Starlette:
    """The whole server of a workspace. Its lifespan runs the trainer and the watcher.

    `launch` starts the trainer's process in another way than the usual one.
    """
    from understudy.training import TrainerHandle, launch_process

    weights = workspace.settings.weights
    trainer = TrainerHandle(
        engine.manifest,
        engine.directory,
        threads=workspace.settings.model.threads,
        log_file=workspace.trainer_log,
        sync_seconds=weights.sync_seconds,
        optimizer_states=weights.optimizer_states,
        launch=launch or launch_process,
    )
    service = TrainingService(workspace, engine, trainer)
    site = open_site(workspace, engine, service)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = watch(workspace, site.repository, site.answers, site.board.poke)
        parts = (service.run(), watching, site.board.run(), keep_tidy(workspace))
        tasks = [_lasting(part) for part in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # failures were logged as they came
            await trainer.close()

    app = create_app(
        engine,
        workspace.settings.server,
        workspace.token,
        extra_routes=[*training_routes(service), *page_routes()],
        lifespan=lifespan,
        doorkeeper=WorkspaceDoorkeeper(site),
    )
    app.state.site = site
    app.state.metrics.registry.register(TrainingMetrics(service))
    return app


def greet(app: Starlette, url: str) -> None:
    """Tell where the pages are; before anyone ever came in, with the link that lets the owner in, once."""
    link = app.state.site.accounts.first_link(url)
    come_in = f"open this link to come in as the owner (once, within a day):\n    {link}\n"
    sys.stdout.write(come_in if link else f"the pages: {url}/\n")
    sys.stdout.flush()


def _lasting(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """A task for the server's whole life; if it fails, the log says so at once."""
    task = asyncio.create_task(work)

    def ended(done: "asyncio.Task[None]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("a part of the server stopped", exc_info=error)

    task.add_done_callback(ended)
    return task


def serve_workspace(workspace: Workspace, launch: "Launch | None" = None) -> None:
    """Serve until interrupted; the address is left in the workspace for other commands."""
    from understudy.engine import locate_model
    from understudy.server.running import listening, run_server
    from understudy.weights import owned

    with owned(locate_model(workspace.model_path)), open_engine(workspace) as engine:
        app = create_workspace_app(workspace, engine, launch)
        with listening(workspace.settings.server) as (socket, url):
            workspace.announce(url)
            try:
                log.info("serving %s at %s", workspace.root, url)
                greet(app, url)
                run_server(app, socket)
            finally:
                workspace.withdraw()
