"""docs/api.md names every route, field, error code and metric that there is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
from api_server import Served, small_server
from starlette.routing import Route

from understudy.lessons import Example
from understudy.server.bodies import ChatBody, CompletionBody, ScoreBody, ScoredSequence
from understudy.server.training_routes import CancelBody, LessonsBody, RestoreBody, TrainBody

ROOT = Path(__file__).parents[2]
BODIES = (
    ChatBody,
    CompletionBody,
    ScoreBody,
    ScoredSequence,
    TrainBody,
    LessonsBody,
    CancelBody,
    RestoreBody,
    Example,
)
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with small_server(tmp_path_factory.mktemp("model")) as served:
        yield served


def test_every_route_is_described(served: Served) -> None:
    routes = [route for route in served.app.routes if isinstance(route, Route)]
    assert len(routes) >= 7
    for route in routes:
        [method] = (route.methods or set()) - {"HEAD"}
        assert f"{method} {route.path.replace(':path', '')}" in PAGE


def test_the_training_routes_are_described() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "understudy" / "server").glob("*.py")]
    routes = [
        found
        for source in sources
        for found in re.findall(r'Route\("([^"]+)", \w+, methods=\["(\w+)"\]\)', source)
    ]
    assert len(routes) > 7
    for path, method in routes:
        assert f"{method} {path.replace(':path', '')}" in PAGE


@pytest.mark.parametrize("body", BODIES)
def test_every_field_is_described(body: type) -> None:
    for field in get_type_hints(body):
        assert f"`{field}`" in PAGE or f'"{field}"' in PAGE, field


def test_every_error_code_is_described() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "understudy" / "server").glob("*.py")]
    codes = {code for source in sources for code in re.findall(r'code="([a-z_]+)"', source)}
    assert codes
    for code in codes:
        assert f"`{code}`" in PAGE, code


def test_every_metric_is_described(served: Served) -> None:
    names = {family.name for family in served.app.state.metrics.registry.collect()}
    assert len(names) >= 8
    for name in names:
        assert f"`{name}`" in PAGE or f"`{name}_total`" in PAGE
