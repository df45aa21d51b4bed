"""What a round of dreams found: by invariant, against the zone, and how well difficulty was rated."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from understudy.behaviours.difficulty import BINS, Reach, Zone, bin_of
from understudy.behaviours.dream_log import Batch, Dream, DreamLog
from understudy.behaviours.rates import Rate


@dataclass(frozen=True, slots=True)
class Counted:
    """Of one invariant: how many scenarios were asked and failed, failures with something better to say, and
    what was dropped, by reason.
    """

    invariant: str
    failed: Rate
    lessons: int
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation with its 95 % interval (Fisher's z, variance of Bonett and Wright 2000)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n={self.n}"


@dataclass(frozen=True, slots=True)
class RoundReport:
    """A round: its batches' failure rates, that of the last half against the zone, and for ratings in equal
    bins the mean rating and the share that failed.
    """

    number: int
    why: str
    zone: Zone
    batches: tuple[Rate, ...]
    settled: Rate
    reach: Reach
    counted: tuple[Counted, ...]
    ratings: tuple[tuple[float, Rate], ...]
    correlation: Correlation | None


def report_round(log: DreamLog) -> RoundReport:
    """What a round found so far. Raises ValueError before its first batch."""
    if not log.batches:
        raise ValueError("expected a round with scenarios that were asked, got none")
    half: Sequence[Batch] = log.batches[len(log.batches) // 2 :]
    settled = _together([batch.failed for batch in half])
    dropped: dict[str, Counter[str]] = {}
    for batch in log.batches:
        for name, reasons in batch.dropped.items():
            dropped.setdefault(name, Counter()).update(reasons)
    return RoundReport(
        log.begun.number,
        log.ended.why if log.ended else "cut off",
        log.begun.zone,
        tuple(batch.failed for batch in log.batches),
        settled,
        log.begun.zone.reached(settled, log.batches[-1].edge),
        tuple(
            _counted(name, [one for one in log.dreams if one.invariant == name], dropped.get(name, Counter()))
            for name in log.begun.dreamed
        ),
        _calibrated(log.dreams),
        _correlation(log.dreams),
    )


def round_json(report: RoundReport) -> dict[str, Any]:
    """The same as plain data."""

    def rate(found: Rate) -> dict[str, Any]:
        low, high = found.interval()
        return {"failed": found.successes, "n": found.n, "low": low, "high": high}

    correlation = report.correlation
    return {
        "round": report.number,
        "ended": report.why,
        "zone": [report.zone.low, report.zone.high],
        "batches": [rate(one) for one in report.batches],
        "settled": rate(report.settled),
        "reach": report.reach,
        "invariants": [
            {"invariant": one.invariant, **rate(one.failed), "lessons": one.lessons, "dropped": one.dropped}
            for one in report.counted
        ],
        "ratings": [{"rating": mean, **rate(found)} for mean, found in report.ratings],
        "correlation": correlation
        and {"value": correlation.value, "low": correlation.low, "high": correlation.high},
    }


def _counted(name: str, dreams: Sequence[Dream], dropped: Counter[str]) -> Counted:
    failed = Rate(sum(not one.shown for one in dreams), len(dreams))
    return Counted(name, failed, sum(bool(one.chosen) for one in dreams), dict(sorted(dropped.items())))


def _together(rates: Sequence[Rate]) -> Rate:
    return Rate(sum(one.successes for one in rates), sum(one.n for one in rates))


def _calibrated(dreams: Sequence[Dream]) -> tuple[tuple[float, Rate], ...]:
    bins: dict[int, list[Dream]] = {number: [] for number in range(BINS)}
    for one in dreams:
        bins[bin_of(one.rating)].append(one)
    return tuple(
        (
            math.fsum(one.rating for one in held) / len(held),
            Rate(sum(not one.shown for one in held), len(held)),
        )
        for held in bins.values()
        if held
    )


def _correlation(dreams: Sequence[Dream]) -> Correlation | None:
    """None where all failed or none, all were rated alike, or there are too few to tell."""
    from scipy.stats import norm, spearmanr

    ratings, failed = [one.rating for one in dreams], [not one.shown for one in dreams]
    if len(dreams) < 10 or len(set(failed)) < 2 or len(set(ratings)) < 2:
        return None
    value = float(spearmanr(ratings, failed).statistic)
    spread = float(norm.ppf(0.975)) * math.sqrt((1 + value**2 / 2) / (len(dreams) - 3))
    middle = math.atanh(max(-0.999999, min(0.999999, value)))
    return Correlation(value, math.tanh(middle - spread), math.tanh(middle + spread), len(dreams))
