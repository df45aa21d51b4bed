"""The API's document: complete, valid, and what a running server does."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from api_server import small_server
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient
from workspace_server import idle_service, serving, small_workspace

from understudy.config import ServerSettings
from understudy.server import create_app
from understudy.server.openapi import describe_api
from understudy.server.pages import page_routes
from understudy.server.pages.routing import PageRoute
from understudy.server.session_settings import SESSION_FIELDS
from understudy.server.training_answers import Divergence, OutcomeAnswer, SessionAnswer
from understudy.server.training_routes import training_routes
from understudy.training import Finished, KlReport, Outcome, objective_names

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starlette]:
    workspace = small_workspace(tmp_path_factory.mktemp("document"))
    with idle_service(workspace) as service:
        routes = [*training_routes(service), *page_routes()]
        yield create_app(service.engine, workspace.settings.server, workspace.token, extra_routes=routes)


@pytest.fixture(scope="module")
def document(app: Starlette) -> dict[str, Any]:
    """As a server gives it."""
    client = TestClient(app, base_url="http://127.0.0.1")
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_no_route_is_missing(app: Starlette, document: dict[str, Any]) -> None:
    routes = {
        f"{method} {re.sub(':path', '', route.path)}"
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
        if not isinstance(route, PageRoute)
    }
    assert len(routes) == sum(not isinstance(route, PageRoute) for route in app.routes) >= 30
    assert set(operations(document)) == routes
    pages = [route.path for route in app.routes if isinstance(route, PageRoute)]
    assert {"/", "/talk/{name:path}", "/learn", "/model", "/people"} <= set(pages)


def test_every_operation_says_what_it_is_and_answers(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(names)) == len(names)
    for name, operation in operations(document).items():
        assert operation["summary"].endswith("."), name
        assert {"200", "403", "500"} <= set(operation["responses"]), name
        assert ("requestBody" in operation) == name.startswith("POST"), name
        if "requestBody" in operation:
            assert {"400", "413"} <= set(operation["responses"]), name


def test_every_schema_is_valid_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate(schema)
        assert schema["description"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', str(document).replace("'", '"')))
    assert references and references <= set(schemas)


def test_what_writes_needs_the_token_and_elsewhere_than_on_loopback_everything(
    app: Starlette, document: dict[str, Any]
) -> None:
    reading = {"POST /v1/chat/completions", "POST /v1/completions", "POST /score"}
    for name, operation in operations(document).items():
        closed = name.startswith("POST") and name not in reading
        assert operation["security"] == ([{"token": []}] if closed else []), name
        assert ("401" in operation["responses"]) == closed, name
    elsewhere = operations(describe_api(app.routes, "understudy", local=False))
    assert [name for name, operation in elsewhere.items() if not operation["security"]] == ["GET /health"]


@pytest.mark.parametrize("body", ["TrainBody", "FinetuneBody", "TrainLessonsBody"])
def test_every_setting_stands_at_the_top_level(document: dict[str, Any], body: str) -> None:
    schema = document["components"]["schemas"][body]
    assert set(schema["properties"]) >= SESSION_FIELDS
    assert not set(schema.get("required", ())) & SESSION_FIELDS
    assert schema["additionalProperties"] is False
    assert schema["properties"]["objective"]["enum"] == list(objective_names())


def test_answers_tell_all_that_a_session_tells() -> None:
    told = set(SessionAnswer.__struct_fields__)
    assert set(Finished.__struct_fields__) - {"session"} <= told
    assert set(Outcome.__struct_fields__) == set(OutcomeAnswer.__struct_fields__)
    assert {field.name for field in fields(KlReport)} >= set(Divergence.__struct_fields__)


def test_a_server_without_a_workspace_tells_of_what_it_has(tmp_path: Path) -> None:
    with small_server(tmp_path, settings=ServerSettings(max_batch=2)) as served:
        client = TestClient(served.app, base_url="http://127.0.0.1")
        paths = client.get("/openapi.json").json()["paths"]
    assert "/score" in paths and "/train" not in paths


# Not asked of the server, everywhere:
# - positive_data_acceptance: what a schema cannot say is refused too: a path without weights, ids beyond the
#   model's vocabulary, messages in an order that its chat template does not take, a request longer than its
#   context.
# - use_after_free, ensure_resource_availability, object_level_authorization: they follow resources that are
#   made, owned and deleted through the API; this one has none.
# `unsupported_method`, `ignored_auth`, `missing_required_header`, negative data, status codes, content types,
# schemas of the answers and server errors are all asked.
LEFT_OUT = "positive_data_acceptance,use_after_free,ensure_resource_availability,object_level_authorization"
# Covering the combinations of the fields of /train alone takes half of the time; what has the same fields and
# more is fuzzed only.
FUZZED_ONLY = ("/finetune", "/lessons/train", "/v1/chat/completions", "/v1/completions")


def test_a_running_server_does_what_its_document_says(tmp_path: Path, document: dict[str, Any]) -> None:
    workspace = small_workspace(tmp_path, "llama", context_length=64)
    with serving(workspace) as server:
        assert server.call("GET", "/openapi.json").json() == document
        said = schemathesis(tmp_path, server.url, workspace.token)
        assert server.call("GET", "/health").json()["status"] == "ok"
        assert server.status()["stopped"] is None
        log = (workspace.root / "server.log").read_text()
    assert "Traceback" not in log
    assert f"{len(operations(document)) - 1} selected" in said, "all but the document itself"


def schemathesis(folder: Path, url: str, token: str) -> str:
    """What schemathesis says of a server that it finds nothing wrong with."""
    settings = "".join(
        f'[[operations]]\ninclude-path = "{path}"\nphases.coverage.enabled = false\n' for path in FUZZED_ONLY
    )
    (folder / "schemathesis.toml").write_text(settings)
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {token}", "--phases", "coverage,fuzzing"),
        *("--exclude-checks", LEFT_OUT, "--max-examples", "12", "--seed", "1", "--continue-on-failure"),
        *("--generation-database", "none", "--request-timeout", "30", "--suppress-health-check", "all"),
        "--no-color",
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
