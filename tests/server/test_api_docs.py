"""docs/api.md names every route, field, error code and metric that there is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
from api_server import Served, small_server
from starlette.routing import Route
from workspace_server import idle_service, small_workspace

from understudy.server.bodies import ChatBody, CompletionBody, ExtraArguments, ScoreBody, ScoredSequence
from understudy.server.lesson_bodies import SHAPES
from understudy.server.messages import MAX_BODY_BYTES
from understudy.server.metrics import TrainingMetrics
from understudy.server.session_settings import SESSION_FIELDS
from understudy.server.training_answers import LessonsAnswer, RevisedAnswer, SessionAnswer, Status, Synced
from understudy.server.training_bodies import (
    AdoptBody,
    CancelBody,
    ExampleBody,
    FinetuneBody,
    RestoreBody,
    TrainBody,
    TrainLessonsBody,
)

ROOT = Path(__file__).parents[2]
BODIES = (
    ChatBody,
    CompletionBody,
    ExtraArguments,
    ScoreBody,
    ScoredSequence,
    TrainBody,
    ExampleBody,
    FinetuneBody,
    *SHAPES,
    TrainLessonsBody,
    CancelBody,
    RestoreBody,
    AdoptBody,
    SessionAnswer,
    LessonsAnswer,
    RevisedAnswer,
    Status,
    Synced,
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
        found for source in sources for found in re.findall(r'ApiRoute\(\s*"(\w+)",\s*"([^"]+)"', source)
    ]
    assert len(routes) >= 16
    for method, path in routes:
        assert f"{method} {path.replace(':path', '')}" in PAGE


@pytest.mark.parametrize("body", BODIES)
def test_every_field_is_described(body: type) -> None:
    for field in get_type_hints(body):
        assert f"`{field}`" in PAGE or f'"{field}"' in PAGE, field


def test_every_setting_and_the_largest_body_are_described() -> None:
    for setting in SESSION_FIELDS:
        assert f"`{setting}`" in PAGE, setting
    assert f"{MAX_BODY_BYTES:,} bytes" in PAGE


def test_every_error_code_is_described() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "understudy" / "server").glob("*.py")]
    codes = {code for source in sources for code in re.findall(r'code="([a-z_]+)"', source)}
    assert codes
    for code in codes:
        assert f"`{code}`" in PAGE, code


def test_every_metric_is_described(served: Served, tmp_path: Path) -> None:
    names = {family.name for family in served.app.state.metrics.registry.collect()}
    with idle_service(small_workspace(tmp_path)) as service:
        service.counts.loss = service.counts.kl = 0.0
        names |= {family.name for family in TrainingMetrics(service).collect()}
    assert len(names) >= 18
    for name in names:
        assert f"`{name}`" in PAGE or f"`{name}_total`" in PAGE
