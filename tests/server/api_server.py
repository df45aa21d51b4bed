"""A real server with a tiny random model, for the tests of the API."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAI
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from understudy.config import ModelSettings, ServerSettings
from understudy.engine import EmbeddedEngine, write_miniature
from understudy.server import create_app, serving

MODEL = "understudy"
TOKEN = "a-token-of-these-tests"
DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Served:
    """What a test talks to, and looks into."""

    url: str
    engine: EmbeddedEngine
    app: Starlette

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0)


@contextmanager
def small_server(
    directory: Path,
    *,
    settings: ServerSettings | None = None,
    routes: Sequence[BaseRoute] = (),
    context_length: int = 2048,
    max_concurrent: int = 4,
    max_waiting: int = 32,
    readout: Path | None = None,
    **options: Any,
) -> Iterator[Served]:
    """Serve a random hybrid from `directory` on a free loopback port; `readout` is a folder of directions."""
    write_miniature(directory, "qwen3_5", context_length=context_length)
    with EmbeddedEngine(
        ModelSettings(), directory, max_concurrent=max_concurrent, max_waiting=max_waiting, readout=readout
    ) as engine:
        app = create_app(
            engine, settings or ServerSettings(max_batch=64), TOKEN, extra_routes=routes, **options
        )
        with serving(app) as url:
            yield Served(url, engine, app)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, or fail after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
