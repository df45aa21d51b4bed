"""Running an application: in this process until it is stopped, or beside the caller."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from understudy.config import ServerSettings

_BACKLOG = 2048  # uvicorn's own default
GRACE_SECONDS = 5
"""How long open answers may go on once the server is told to stop."""


class ServerFailed(RuntimeError):
    """The server ended before it listened; its log tells why."""


@contextmanager
def listening(settings: ServerSettings) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket and its base URL, so that the address is known before anything answers there.

    Port 0 takes a free one. Raises OSError when the address cannot be had.
    """
    host = settings.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, settings.port))
        sock.listen(_BACKLOG)
        yield sock, f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"


def run_server(app: ASGIApp, sock: socket.socket) -> None:
    """Serve on a listening socket until interrupted."""
    uvicorn.Server(_config(app)).run([sock])


@contextmanager
def serving(app: ASGIApp, settings: ServerSettings | None = None) -> Iterator[str]:
    """Serve on a thread while the block runs; yields the base URL. Without settings: loopback, a free port.

    Raises OSError when the address cannot be had, ServerFailed when the application's start-up failed.
    """
    with listening(settings or ServerSettings(port=0)) as (sock, url):
        server = _ThreadServer(_config(app))
        thread = threading.Thread(target=server.run, args=([sock],), name="understudy-server")
        thread.start()
        try:
            server.settled.wait()
            if not server.started:
                raise ServerFailed(f"expected a server at {url}, it ended while starting: see its log")
            yield url
        finally:
            server.should_exit = True
            thread.join()


class _ThreadServer(uvicorn.Server):
    """Tells when it listens, or ended without."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        except SystemExit:
            pass  # uvicorn would end the process; here whoever waits for `settled` reports it
        finally:
            self.settled.set()


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        ws="none",
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
