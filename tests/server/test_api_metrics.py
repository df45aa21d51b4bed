"""`GET /metrics` in Prometheus' format."""

from collections.abc import Iterator

import httpx2
import pytest
from api_server import MODEL, Served, small_server
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with small_server(tmp_path_factory.mktemp("model")) as served:
        yield served


def samples(served: Served) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page = httpx2.get(f"{served.url}/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def test_requests_tokens_and_weights_are_counted(served: Served) -> None:
    body = {"model": MODEL, "prompt": [[5, 6, 7], [8]], "max_tokens": 4, "seed": 1}
    usage = httpx2.post(f"{served.url}/v1/completions", json=body).json()["usage"]
    httpx2.post(f"{served.url}/v1/completions", json={**body, "stream": True})
    httpx2.post(f"{served.url}/v1/completions", json={})
    httpx2.get(f"{served.url}/a/typo")
    served.engine.shared.step = 7
    served.engine.shared.dirty = True
    Gauge("added_by_someone", "x", registry=served.app.state.metrics.registry).set(3)
    found = samples(served)
    route = "/v1/completions"
    assert found["understudy_requests_total", labels(route=route, method="POST", status="200")] == 2
    assert found["understudy_requests_total", labels(route=route, method="POST", status="400")] == 1
    assert found["understudy_requests_total", labels(route="unmatched", method="GET", status="404")] == 1
    assert found["understudy_tokens_total", labels(kind="prompt")] == 8
    assert found["understudy_tokens_total", labels(kind="completion")] == 2 * usage["completion_tokens"]
    assert found["understudy_request_seconds_count", labels(route=route)] == 3
    assert found["understudy_first_token_seconds_count", labels()] == 2
    assert found["understudy_running", labels()] == 0
    assert found["understudy_waiting", labels()] == 0
    assert found["understudy_weight_step", labels()] == 7
    assert found["understudy_training", labels()] == 1
    assert found["added_by_someone", labels()] == 3
