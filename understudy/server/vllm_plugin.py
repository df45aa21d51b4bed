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

from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.server.answers import weight_header
from understudy.server.assembly import create_workspace_app
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Engine

WORKSPACE = "UNDERSTUDY_WORKSPACE"
"""The environment variable that names the workspace's folder."""
PREFIX = "/understudy"
"""Where all of the workspace's routes are found, those too that vLLM has of its own (/openapi.json)."""

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
        app.add_middleware(_NameWeights, plugin=self)
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

        root = os.environ.get(WORKSPACE)
        if root is None:
            raise WorkspaceMissing(
                f"expected a workspace in {WORKSPACE}, found none: make one with `understudy init`, or start "
                "with `understudy serve --engine vllm`"
            )
        workspace = Workspace.open(Path(root), server={"host": args.host or "0.0.0.0", "port": args.port})
        directory = Path(engine_client.model_config.model)
        self._open.enter_context(owned(directory))
        [manifest] = await engine_client.collective_rpc("understudy_manifest")
        engine = VllmEngine(engine_client, workspace.settings.model, directory, Path(manifest))
        app = create_workspace_app(workspace, engine)
        await self._open.enter_async_context(app.router.lifespan_context(app))
        host = "127.0.0.1" if args.host in (None, "0.0.0.0") else args.host
        announcing = asyncio.create_task(_announce(workspace, host, args.port))
        self._open.callback(workspace.withdraw)
        self._open.callback(announcing.cancel)
        self._engine, self._inner = engine, app

    async def _guest(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._inner is not None, "vLLM answers only after init_state"
        await self._inner(scope, receive, send)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What names the weights that speak now."""
        if self._engine is None:
            return []
        return [(n.lower().encode(), v.encode()) for n, v in weight_header(self._engine.weights).items()]


async def _announce(workspace: Workspace, host: str, port: int) -> None:
    """Leave the address for other commands as soon as somebody answers there: vLLM listens last of all."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(_LOOK_SECONDS)
            continue
        writer.close()
        workspace.announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        return


class _NameWeights:
    """Adds the header that names the weights to answers of vLLM's own routes under /v1."""

    def __init__(self, app: ASGIApp, plugin: Plugin) -> None:
        self._app, self._plugin = app, plugin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        headers = self._plugin.headers

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self._app(scope, receive, named)
