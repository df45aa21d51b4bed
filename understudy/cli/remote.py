"""Talking to the running server of a workspace."""

from typing import Any

import httpx2

from understudy.cli.failures import CommandError
from understudy.workspace import Workspace

CONNECT_SECONDS = 5.0


def call(workspace: Workspace, method: str, path: str, body: Any = None) -> Any:
    """One request to the workspace's server, with its token; returns the decoded answer.

    Raises CommandError when no server runs or it refuses; training may take any time, so reading waits.
    """
    address = workspace.server()
    if address is None:
        raise CommandError(
            f"expected a running server for {workspace.root}, found none: start `understudy serve` first"
        )
    headers = {"Authorization": f"Bearer {workspace.token}"}
    timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
    try:
        answer = httpx2.request(method, address.url + path, json=body, headers=headers, timeout=timeout)
    except httpx2.TransportError as error:
        raise CommandError(f"expected the server at {address.url} to answer: {error}") from error
    if answer.is_error:
        raise CommandError(_refusal(answer))
    return answer.json()


def _refusal(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {answer.status_code}: {answer.text[:500]}"
