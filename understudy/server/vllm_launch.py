"""Starting vLLM with the plugin, and not believing that it is there before it answered."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType

import httpx2

from understudy.config import WORKSPACE_VARIABLE
from understudy.server.vllm_front import PREFIX
from understudy.workspace import Workspace

READY_SECONDS = 600.0
"""How long vLLM may take to load, compile and warm up."""
DRAIN_SECONDS = 10
"""How long vLLM goes on with what it was asked when it is told to end."""
_LOOK_SECONDS = 0.5
_CPU_DEFAULTS = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
"""What a small machine without a GPU needs; what the caller has set stays."""


class VllmFailed(RuntimeError):
    """vLLM is not installed, ended before it answered, or answered without the plugin."""


def serve_with_vllm(workspace: Workspace, flags: Sequence[str]) -> int:
    """Serve the workspace's model by vLLM until it ends or this process is told to; returns its exit status.

    `flags` are vLLM's own and go behind ours, so they win. Raises VllmFailed.
    """
    from understudy.engine import locate_model, served_dtype
    from understudy.weights import remove_abandoned

    if importlib.util.find_spec("vllm") is None:
        raise VllmFailed("expected vLLM in this environment, found none: see docs/vllm.md")
    directory = locate_model(workspace.model_path)
    dtype = served_dtype(directory, workspace.settings.model.dtype)
    command = vllm_command(workspace, directory, dtype, flags)
    # In a session of its own, so that a terminal's interrupt reaches it once: from here.
    process = subprocess.Popen(command, env=vllm_environment(os.environ, workspace), start_new_session=True)

    asked = False

    def pass_on(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        workspace.withdraw(process.pid)  # while it finishes what it was asked, it takes on nothing new
        process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    try:
        _wait_until_ready(process, base_url(command))
        status = process.wait()
        if not asked:
            raise VllmFailed(
                f"vLLM ended by itself with status {status}; what it wrote tells why. What was committed is "
                f"in {workspace.root} and served again by the next start"
            )
        return status
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        remove_abandoned()


def vllm_command(workspace: Workspace, directory: Path, dtype: str, flags: Sequence[str]) -> list[str]:
    """The command line: the workspace's settings as vLLM's flags, then the caller's.

    `dtype` is told, since vLLM by itself serves a checkpoint in fp32 in half of that. Port 0 becomes a free
    one here, since vLLM would not tell which one it took.
    """
    settings = workspace.settings
    ours = {
        "--model": str(directory),
        "--served-model-name": settings.model.name,
        "--host": settings.server.host,
        "--port": str(settings.server.port or _free_port(settings.server.host)),
        "--dtype": dtype,
        # Without it the engine is killed at once, and who streams waits for an end that never comes.
        "--shutdown-timeout": str(DRAIN_SECONDS),
    }
    words = [word for pair in ours.items() for word in pair]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, *flags]


def vllm_environment(given: Mapping[str, str], workspace: Workspace) -> dict[str, str]:
    """The environment with the plugin named, beside plugins that were named already."""
    named = [name for name in given.get("VLLM_PLUGINS", "").split(",") if name]
    plugins = ",".join(dict.fromkeys([*named, "understudy"]))
    return {**_CPU_DEFAULTS, **given, "VLLM_PLUGINS": plugins, WORKSPACE_VARIABLE: str(workspace.root)}


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.bind((host, 0))
        port: int = free.getsockname()[1]
        return port


def base_url(command: Sequence[str]) -> str:
    """Where a vLLM that was started so can be asked. A flag that is given twice counts as given last."""
    words = [part for word in command for part in (word.split("=", 1) if word.startswith("--") else [word])]
    last = dict(pairwise(words))
    host = "127.0.0.1" if last["--host"] == "0.0.0.0" else last["--host"]
    return f"http://{f'[{host}]' if ':' in host else host}:{last['--port']}"


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise VllmFailed(
                f"vLLM ended with status {process.returncode} before it answered; see what it wrote"
            )
        try:
            if httpx2.get(f"{url}/health", timeout=5.0).status_code == 200:
                break
        except httpx2.HTTPError:
            pass  # not there yet
        time.sleep(_LOOK_SECONDS)
    else:
        raise VllmFailed(f"expected vLLM at {url} within {READY_SECONDS:.0f} s, it did not answer")
    found = httpx2.get(f"{url}{PREFIX}/health", timeout=30.0)
    if found.status_code != 200:
        raise VllmFailed(
            f"expected Understudy's routes in the vLLM at {url}, got {found.status_code}: the plugin did not "
            "load; vLLM's log tells why"
        )
