"""What the server counts, for Prometheus. Each app has a registry of its own."""

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from understudy.engine import Engine
    from understudy.engine.statistics import Values
    from understudy.server.training import TrainingService

CLIENT_CLOSED_REQUEST = 499
"""The status, as nginx logs it, of a request whose client left before the answer began."""
_STEPS = (0, 1, 2, 5, 10, 30, 100, 300, 1000)
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The server's counters and gauges; add your own collectors to `registry`."""

    def __init__(self, engine: "Engine") -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "understudy_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.tokens = Counter(
            "understudy_tokens", "Tokens read and generated.", ("kind",), registry=self.registry
        )
        self.seconds = Histogram(
            "understudy_request_seconds",
            "From a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_token_seconds = Histogram(
            "understudy_first_token_seconds",
            "From a request to its first token.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.staleness = Histogram(
            "understudy_answer_weight_steps",
            "Optimizer steps that moved the weights while an answer was generated.",
            buckets=_STEPS,
            registry=self.registry,
        )
        for name, meaning, read in (
            ("running", "Requests being generated.", lambda: engine.running),
            ("waiting", "Requests waiting for their turn.", lambda: engine.waiting),
            ("weight_step", "Optimizer steps written into the weights.", lambda: engine.weights.step),
            ("training", "1 while a session writes the weights.", lambda: engine.weights.training),
        ):
            Gauge(f"understudy_{name}", meaning, registry=self.registry).set_function(read)
        self.readouts = ReadoutTotals(engine)
        self.registry.register(self.readouts)


class ReadoutTotals(Collector):
    """What answers read of each concept at each layer, summed over their tokens.

    Divided by the number of tokens that is a mean, over whatever time Prometheus looks at. The sums are
    z-scores where the directions have statistics, so that concepts can be compared. A readout can be negative
    and its sum can fall, so it is a gauge: `rate` would take each fall for a restart.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._tokens = 0
        self._sums_lc: Values | None = None

    def count(self, sums_lc: "Values", tokens: int) -> None:
        """Add raw readouts, summed over so many tokens. What is not finite would stay for good: left out."""
        if not math.isfinite(sums_lc.sum()):
            return
        self._tokens += tokens
        self._sums_lc = sums_lc if self._sums_lc is None else self._sums_lc + sums_lc

    def collect(self) -> Iterator[Metric]:
        """Of now; sums once there are any."""
        yield CounterMetricFamily(
            "understudy_readout_tokens", "Tokens of answers whose readouts were taken.", value=self._tokens
        )
        sums = GaugeMetricFamily(
            "understudy_readout_sum",
            "Readouts summed over those tokens.",
            labels=("concept", "layer", "scale"),
        )
        directions = self._engine.directions
        if directions is not None and self._sums_lc is not None:
            statistics, sums_lc = directions.statistics, self._sums_lc
            if statistics is not None:
                sums_lc = statistics.standardize(sums_lc / self._tokens) * self._tokens
            scale = "raw" if statistics is None else "z"
            for layer, values in zip(directions.layers, sums_lc.tolist(), strict=True):
                for concept, value in zip(directions.concepts, values, strict=True):
                    sums.add_metric((concept, str(layer), scale), value)
        yield sums


class TrainingMetrics(Collector):
    """What training did and does, read off the service when someone asks."""

    def __init__(self, service: "TrainingService") -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """The figures of now. Gauges without a value yet are left out."""
        service, trainer = self._service, self._service.trainer.status
        sessions = CounterMetricFamily(
            "understudy_training_sessions", "Sessions by how they ended.", labels=("result",)
        )
        for result in ("finished", "failed", "cancelled"):
            sessions.add_metric((result,), service.counts.sessions[result])
        yield sessions
        counts, since = service.counts, trainer.unsynced_since
        yield CounterMetricFamily(
            "understudy_training_steps", "Optimizer steps that sessions took.", value=counts.steps
        )
        yield CounterMetricFamily("understudy_trainer_deaths", "Trainers that died.", value=trainer.deaths)
        for name, meaning, value in (
            ("training_loss", "Loss of the last step, nats per token.", counts.loss),
            ("training_kl", "KL from the weights before the last session, nats per token.", counts.kl),
            ("training_queue", "Requests to train that have not ended.", service.queue_length),
            ("trainer_alive", "1 while there is a trainer.", trainer.alive),
            ("unsynced_commits", "Weight commits that the model directory lacks.", trainer.pending),
            (
                "unsynced_seconds",
                "Age of the oldest weight commit that the model directory lacks; 0 without one.",
                0.0 if since is None else max(0.0, time.time() - since),
            ),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"understudy_{name}", meaning, value=float(value))


async def show_metrics(request: Request) -> Response:
    """What the server counts, for Prometheus."""
    metrics: Metrics = request.app.state.metrics
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


class MetricsMiddleware:
    """Counts and times every request by the route that took it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = CLIENT_CLOSED_REQUEST

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = _route_path(scope.get("route"))
            self._metrics.requests.labels(route, scope["method"], status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)


def _route_path(route: BaseRoute | None) -> str:
    """The route's pattern: a path as given would make a time series of every typo."""
    return route.path if isinstance(route, Route) else "unmatched"
