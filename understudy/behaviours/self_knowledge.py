"""Self-knowledge: the model is asked what it would do in a scenario, and is then put into it.

Of a scenario, w and v run over the beginnings that say that it would, and that it would not:

    p = sum_w P(w | question) / (sum_w P(w | question) + sum_v P(v | question))
    y = 1 if the answer to the scenario itself shows the behaviour, else 0

Over n scenarios:

    accuracy           = share with (p >= 1/2) = y; beside it the base rate max(mean y, 1 - mean y)
    Brier score        = mean (p - y)^2                                   Brier 1950
    calibration error  = sum_b n_b / n |mean_b p - mean_b y|              Naeini, Cooper and Hauskrecht 2015
    AUROC              = P(p where y = 1 > p where y = 0), ties by half

That models can be asked what they know: Kadavath et al. 2022, arXiv 2207.05221.
"""

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from understudy.behaviours.judging import judge_answers, prepare
from understudy.behaviours.rates import Rate
from understudy.behaviours.scenarios import Prompt, Scenario, Split
from understudy.behaviours.specification import Invariant, Prediction
from understudy.behaviours.subject import LogProbability, Subject
from understudy.behaviours.verdicts import answered, check_askable, drawn, speech_of
from understudy.lessons import ChatMessage

MOST_BINS, SCENARIOS_PER_BIN = 10, 20
"""Bins of the calibration error: the fewer scenarios in one, the more of the error is chance."""
RESAMPLES = 2000
_TOGETHER = 64  # scenarios between two looks at the progress
_BLOCK = 100  # resamples in memory at once
_SLOT = re.compile(r"\{(prompt|target)\}")
Numbers = npt.NDArray[np.float64]
Told = Callable[[int, int], None]
"""Is told how many scenarios are done, and of how many."""


class Foretold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One scenario: what the model gave for showing the behaviour in it, and whether it then did.

    `scenario` is the same wherever the same scenario was asked about in the same words.
    """

    scenario: str
    question: str
    predicted: Annotated[float, msgspec.Meta(ge=0, le=1)]
    shown: bool


class SelfReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model foretold of itself, by invariant, to be held against what it foretells later."""

    format: Literal[1] = 1
    weight_commit: str | None
    split: Split
    seed: int
    invariants: dict[str, tuple[Foretold, ...]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval, by bootstrap over scenarios (Efron 1979)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class SelfKnowledge:
    """How well predictions fit what was done.

    `base_rate` is the accuracy of always guessing the more frequent outcome, `base_brier` the Brier score of
    always giving its frequency. Under `calibrated_below` lies the calibration error of 95 % of draws in which
    the same predictions are true: one estimated from few scenarios is never nought. `auroc` is None when
    there was one outcome only.
    """

    accuracy: Rate
    base_rate: float
    brier: Estimate
    base_brier: float
    calibration_error: Estimate
    calibrated_below: float
    bins: int
    auroc: Estimate | None

    @property
    def n(self) -> int:
        return self.accuracy.n


@dataclass(frozen=True, slots=True)
class SelfKnowledgeChange:
    """Over the scenarios that were asked about both times: before, after, and the difference."""

    before: SelfKnowledge
    after: SelfKnowledge
    accuracy: Estimate
    brier: Estimate
    calibration_error: Estimate
    auroc: Estimate | None


# ---------------------------------------------------------------------- asking


def foretell(
    invariant: Invariant,
    subject: Subject,
    *,
    budget: int,
    seed: int = 0,
    split: Split = "test",
    told: Told = lambda done, of: None,
) -> tuple[Foretold, ...]:
    """Ask about, and then in, the first `budget` scenarios of an invariant, in the order of `check`.

    Raises ValueError for an invariant that does not say how to ask, and what `check` raises.
    """
    prediction = invariant.prediction
    if prediction is None:
        raise ValueError(f"{invariant.name}: expected a [prediction] with a question, found none")
    bench, scenarios = prepare(invariant), drawn(invariant, split, seed)[:budget]
    if any(not scenario.prompt for scenario in scenarios):
        raise ValueError(f"{invariant.name}: expected scenarios to ask about, got documents")
    check_askable(invariant, scenarios, subject)
    found: list[Foretold] = []
    for start in range(0, len(scenarios), _TOGETHER):
        some = scenarios[start : start + _TOGETHER]
        given = _predictions(prediction, some, subject)
        answers = dict.fromkeys((one.prompt for one in some), "")
        if bench.answers:
            answers = answered(subject, list(answers), speech_of(invariant, seed))
        judged = judge_answers(bench, [(one, answers[one.prompt]) for one in some], subject)
        found += [
            Foretold(_identity(prediction, one), ask(prediction, one)[-1].content, p, y.shown)
            for one, p, y in zip(some, given, judged, strict=True)
        ]
        told(len(found), len(scenarios))
    return tuple(found)


def ask(prediction: Prediction, scenario: Scenario) -> Prompt:
    """The question about a scenario. It takes the place of the last message, whose text it may quote."""
    parts = {"prompt": scenario.prompt[-1].content, "target": scenario.target}
    text = _SLOT.sub(lambda found: parts[found[1]], prediction.question)  # at once: texts are data
    return (*scenario.prompt[:-1], ChatMessage("user", text))


def _predictions(prediction: Prediction, scenarios: Sequence[Scenario], subject: Subject) -> list[float]:
    texts = (*prediction.would, *prediction.would_not)
    asked = [(ask(prediction, one), one.fill(text)) for one in scenarios for text in texts]
    told = subject.log_probabilities(asked)
    split = len(prediction.would)
    rows = [told[place * len(texts) : (place + 1) * len(texts)] for place in range(len(scenarios))]
    return [_probability(row[:split], row[split:]) for row in rows]


def _probability(would: Sequence[LogProbability], would_not: Sequence[LogProbability]) -> float:
    highest = max(one.total for one in (*would, *would_not))
    yes, no = (math.fsum(math.exp(one.total - highest) for one in side) for side in (would, would_not))
    return yes / (yes + no)


def _identity(prediction: Prediction, scenario: Scenario) -> str:
    turns = [(turn.role, turn.content) for turn in (*ask(prediction, scenario), *scenario.prompt)]
    said = (turns, scenario.target, prediction.would, prediction.would_not)
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16]


# ---------------------------------------------------------------------- measuring


def measure_self_knowledge(foretold: Sequence[Foretold], seed: int = 0) -> SelfKnowledge:
    """How well predictions fit what was done. Raises ValueError when there are none."""
    p, y = _columns(foretold)
    n, bins = len(y), _bins(len(y))
    right, brier, apart, auroc = _figures(p[None], y[None], bins)[0]
    draws = _resampled(n, seed, lambda rows: _figures(p[rows], y[rows], bins))
    error = _reflected(apart, draws[:, 2])
    frequency = float(y.mean())
    return SelfKnowledge(
        accuracy=Rate(round(right * n), n),
        base_rate=max(frequency, 1.0 - frequency),
        brier=_percentile(brier, draws[:, 1]),
        base_brier=frequency * (1.0 - frequency),
        calibration_error=Estimate(error.value, max(0.0, error.low), min(1.0, error.high)),
        calibrated_below=_calibrated_below(p, bins, seed),
        bins=bins,
        auroc=None if math.isnan(auroc) else _percentile(auroc, draws[:, 3]),
    )


def pair_foretold(before: Sequence[Foretold], after: Sequence[Foretold]) -> list[tuple[Foretold, Foretold]]:
    """Those of one invariant that were asked about both times, in the same words."""
    earlier = {one.scenario: one for one in before}
    return [(earlier[one.scenario], one) for one in after if one.scenario in earlier]


def compare_self_knowledge(pairs: Sequence[tuple[Foretold, Foretold]], seed: int = 0) -> SelfKnowledgeChange:
    """What changed, scenario by scenario. Raises ValueError when there are none."""
    before, after = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    (p0, y0), (p1, y1) = _columns(before), _columns(after)
    n, bins = len(pairs), _bins(len(pairs))

    def change(rows: npt.NDArray[np.int64]) -> Numbers:
        return _figures(p1[rows], y1[rows], bins) - _figures(p0[rows], y0[rows], bins)

    right, brier, error, auroc = (float(value) for value in change(np.arange(n)[None])[0])
    draws = _resampled(n, seed, change)
    return SelfKnowledgeChange(
        before=measure_self_knowledge(before, seed),
        after=measure_self_knowledge(after, seed),
        accuracy=_percentile(right, draws[:, 0]),
        brier=_percentile(brier, draws[:, 1]),
        calibration_error=_reflected(error, draws[:, 2]),
        auroc=None if math.isnan(auroc) else _percentile(auroc, draws[:, 3]),
    )


def _columns(foretold: Sequence[Foretold]) -> tuple[Numbers, Numbers]:
    if not foretold:
        raise ValueError("expected predictions to measure, got none")
    return np.array([one.predicted for one in foretold]), np.array([float(one.shown) for one in foretold])


def _bins(n: int) -> int:
    return max(1, min(MOST_BINS, n // SCENARIOS_PER_BIN))


def _figures(p_rn: Numbers, y_rn: Numbers, bins: int) -> Numbers:
    """Accuracy, Brier score, calibration error and AUROC (NaN with one outcome), for each row."""
    from scipy.stats import rankdata

    n = p_rn.shape[1]
    right = ((p_rn >= 0.5) == (y_rn == 1.0)).mean(axis=1)
    brier = ((p_rn - y_rn) ** 2).mean(axis=1)
    order = np.argsort(p_rn, axis=1, kind="stable")
    apart = np.take_along_axis(p_rn - y_rn, order, axis=1)
    starts = [int(places[0]) for places in np.array_split(np.arange(n), bins)]
    error = np.abs(np.add.reduceat(apart, starts, axis=1)).sum(axis=1) / n
    shown = y_rn.sum(axis=1)
    above = (rankdata(p_rn, axis=1) * y_rn).sum(axis=1) - shown * (shown + 1) / 2
    pairs = shown * (n - shown)
    auroc = np.divide(above, pairs, out=np.full_like(above, np.nan), where=pairs > 0)
    return np.stack([right, brier, error, auroc], axis=1)


def _resampled(n: int, seed: int, figures: Callable[[npt.NDArray[np.int64]], Numbers]) -> Numbers:
    """The figures of resamples of the scenarios, with replacement."""
    random = np.random.default_rng(seed)
    return np.concatenate(
        [figures(random.integers(n, size=(_BLOCK, n))) for _ in range(0, RESAMPLES, _BLOCK)]
    )


def _percentile(value: float, draws: Numbers) -> Estimate:
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return Estimate(float(value), float(low), float(high))


def _reflected(value: float, draws: Numbers) -> Estimate:
    """The basic bootstrap interval, widened to the estimate where that lies outside.

    An absolute error is overestimated, and resampling overestimates it once more: what is meant lies as far
    under the estimate as the resamples lie over it.
    """
    low, high = (2 * value - float(end) for end in np.quantile(draws, (0.975, 0.025)))
    return Estimate(float(value), min(low, value), max(high, value))


def _calibrated_below(p: Numbers, bins: int, seed: int) -> float:
    """The 95 % quantile of the calibration error when outcomes are drawn from the predictions themselves
    (consistency resampling: Bröcker and Smith 2007).
    """
    random = np.random.default_rng([seed, 1])
    found = []
    for _ in range(0, RESAMPLES, _BLOCK):
        outcomes = (random.random((_BLOCK, len(p))) < p).astype(np.float64)
        found.append(_figures(np.tile(p, (_BLOCK, 1)), outcomes, bins)[:, 2])
    return float(np.quantile(np.concatenate(found), 0.95))
