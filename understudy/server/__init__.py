"""HTTP: the OpenAI-compatible API, the training API."""

from understudy.server.app import Lifespan, Report, create_app
from understudy.server.assembly import create_workspace_app, open_engine, serve_workspace
from understudy.server.auth import new_token, require_token
from understudy.server.errors import ApiError
from understudy.server.messages import json_response, read_body
from understudy.server.metrics import Metrics
from understudy.server.running import ServerFailed, listening, run_server, serving

__all__ = [
    "ApiError",
    "Lifespan",
    "Metrics",
    "Report",
    "ServerFailed",
    "create_app",
    "create_workspace_app",
    "json_response",
    "listening",
    "new_token",
    "open_engine",
    "read_body",
    "require_token",
    "run_server",
    "serve_workspace",
    "serving",
]
