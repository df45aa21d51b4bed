"""The probe: how far a session moves the model's distribution where it should not move at all."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training.frozen import continuation_logits, freeze_together
from understudy.training.outcomes import KlReport, StepReport
from understudy.training.points import Point


class Probe:
    """The distributions that the weights of one moment give the first `probe_tokens` positions of the probe
    examples' continuations, in the order given, the last one cut short.

    Keeps positions times vocabulary numbers, in the precision of the weights.
    """

    def __init__(self, model: nn.Module, examples: Sequence[Example], settings: TrainingSettings) -> None:
        self._examples = _first_positions(examples, settings.probe_tokens)
        self._chunk = settings.freeze_chunk
        self._before = self._read(model)

    def measure(self, model: nn.Module) -> KlReport:
        """KL(then || now), by what the model gives now."""
        now = self._read(model)
        pairs = zip(self._before, now, strict=True)
        return _report([_divergence(before, after) for before, after in pairs])

    @torch.no_grad()
    def _read(self, model: nn.Module) -> list[Tensor]:
        """Logits (T, V) of each example."""
        device = next(model.parameters()).device
        contexts = [example.context_ids for example in self._examples]
        logits: dict[int, Tensor] = {}
        for place, frozen in freeze_together(model, contexts, chunk=self._chunk):
            ids = torch.tensor(self._examples[place].continuation_ids, dtype=torch.long, device=device)
            logits[place] = continuation_logits(model, frozen, ids).clone()
            del frozen  # before the next is read
        return [logits[place] for place in range(len(contexts))]


class Bound:
    """Holds a session to `max_kl`: a step that moves the probe further is undone, and is the last one."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, probe: Probe, settings: TrainingSettings
    ) -> None:
        assert settings.max_kl is not None
        self._model = model
        self._probe = probe
        self._largest = settings.max_kl
        self._point = Point(optimizer)
        self._kept = 0
        self.stopped: str | None = None

    def hold(self, done: StepReport) -> StepReport:
        """The step's report with its divergence; undone when that is beyond the bound, or not a number."""
        if not done.taken:
            return done
        kl = self._probe.measure(self._model).mean
        if kl <= self._largest:
            self._point.keep()
            self._kept += 1
            return replace(done, kl=kl)
        self._point.put_back()
        reached = f"max_kl {self._largest:g}: step {done.step} of {done.of} reached {kl:.3g} nats per token"
        self.stopped = f"{reached} and was undone; the {self._kept} steps before it were kept"
        return replace(done, kl=kl, taken=False, skipped=reached)


def _first_positions(examples: Sequence[Example], tokens: int) -> list[Example]:
    found: list[Example] = []
    for example in examples:
        if tokens == 0:
            break
        found.append(replace(example, continuation_ids=example.continuation_ids[:tokens]))
        tokens -= len(found[-1].continuation_ids)
    return found


def _divergence(before: Tensor, now: Tensor) -> list[float]:
    """KL(before || now) in nats at each position; in float64, since it is a small difference."""
    log_before, log_now = (torch.log_softmax(logits.double(), dim=-1) for logits in (before, now))
    divergence: list[float] = (log_before.exp() * (log_before - log_now)).sum(-1).tolist()
    return divergence


def _report(divergences: Sequence[Sequence[float]]) -> KlReport:
    """The mean over all positions, and its standard error by clusters (the sandwich estimator)."""
    n = sum(len(example) for example in divergences)
    mean = sum(sum(example) for example in divergences) / n
    clusters = divergences if len(divergences) > 1 else [[position] for position in divergences[0]]
    squares = sum(sum(position - mean for position in cluster) ** 2 for cluster in clusters)
    correction = len(clusters) / max(1, len(clusters) - 1)
    return KlReport(mean, math.sqrt(correction * squares) / n, n, len(divergences))
