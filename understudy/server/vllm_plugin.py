"""The server of a workspace as a guest of vLLM's: its routes, its trainer and its watcher, on one port.

Only vLLM imports this, as the entry point `vllm.endpoint_plugins`.
"""

import asyncio
import os
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from understudy.config import WORKSPACE_VARIABLE
from understudy.server.assembly import create_workspace_app, greet
from understudy.server.vllm_front import (
    PREFIX,
    ExtraArgumentsMiddleware,
    KeyMiddleware,
    WeightHeaderMiddleware,
)
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Engine

_LOOK_SECONDS = 0.1


class WorkspaceMissing(RuntimeError):
    """vLLM was started with the plugin and without a workspace."""


class Plugin:
    """What vLLM asks of an endpoint plugin."""

    name = "understudy"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._inner: ASGIApp | None = None
        self._engine: Engine | None = None
        self._open = AsyncExitStack()

    def attach_router(self, app: Any) -> None:
        """Answer what vLLM has no route for; name the weights in what it answers itself."""
        app.router.routes += [Mount(PREFIX, app=self._guest), Mount("", app=self._guest)]
        app.add_middleware(ExtraArgumentsMiddleware, engine=self._served)
        app.add_middleware(WeightHeaderMiddleware, engine=self._served)
        outer = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(served: Any) -> AsyncIterator[Any]:
            async with outer(served) as state, self._open:
                yield state

        app.router.lifespan_context = lifespan

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Start the trainer and what else belongs to a workspace. Raises what makes that impossible."""
        from understudy.engine.vllm.serving import VllmEngine
        from understudy.weights import owned

        root = os.environ.get(WORKSPACE_VARIABLE)
        if root is None:
            raise WorkspaceMissing(
                f"expected a workspace in {WORKSPACE_VARIABLE}, found none: make one with `understudy "
                "init`, or start with `understudy serve --engine vllm`"
            )
        workspace = Workspace.open(Path(root), server={"host": args.host or "0.0.0.0", "port": args.port})
        directory = Path(engine_client.model_config.model)
        self._open.enter_context(owned(directory))
        engine = await VllmEngine.open(engine_client, workspace.settings.model)
        self._open.callback(engine.close)
        app = create_workspace_app(workspace, engine)
        await self._open.enter_async_context(app.router.lifespan_context(app))
        host = "127.0.0.1" if args.host in (None, "0.0.0.0") else args.host
        announcing = asyncio.create_task(_announce(app, workspace, host, args.port))
        self._open.callback(workspace.withdraw)
        self._open.callback(announcing.cancel)
        keys = [key for key in (args.api_key or [os.environ.get("VLLM_API_KEY")]) if key]
        self._engine, self._inner = engine, KeyMiddleware(app, keys, workspace.token)

    def _served(self) -> "Engine | None":
        return self._engine

    async def _guest(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._inner is not None, "vLLM answers only after init_state"
        await self._inner(scope, receive, send)


async def _announce(app: Starlette, workspace: Workspace, host: str, port: int) -> None:
    """Leave the address for other commands as soon as somebody answers there: vLLM listens last of all."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(_LOOK_SECONDS)
            continue
        writer.close()
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        workspace.announce(url)
        greet(app, url)
        return
