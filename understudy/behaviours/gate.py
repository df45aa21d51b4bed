"""The gate: what is looked at after a training session, and whether the session stays.

Fast first: scenarios of the development split are scored, not answered, and set against what the model
gave them when it was last found in order. Where a kept invariant fell, or the weights moved far, it is put
to the sequential test, with answers. The test split stays unseen: it is for what is claimed in the end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from understudy.behaviours.judges import LikelihoodJudge, ModelJudge, ReadoutJudge
from understudy.behaviours.judging import measure_margins, prepare, shown_in
from understudy.behaviours.specification import Invariant
from understudy.behaviours.subject import Subject
from understudy.behaviours.verdicts import (
    Smooth,
    Verdict,
    answered,
    check,
    check_askable,
    drawn,
    speech_of,
)
from understudy.config import GateSettings
from understudy.lessons import ChatMessage, Choice

Probes = Mapping[str, tuple[float, ...]]
"""Of each invariant the margins of its probes, in an order that depends on the invariant alone."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the gate decided, why in words, and on which evidence (plain data, for the ledger).

    `now` are the probes by these weights; `order` those of the kept invariants that were found to hold:
    what later sessions are set against.
    """

    choice: Choice
    why: str
    evidence: Mapping[str, Any]
    now: Probes
    order: Probes


@dataclass(frozen=True, slots=True)
class Movement:
    """How the probes of one invariant moved: margins before the session, now, and when last in order."""

    name: str
    kind: str
    before: Smooth | None
    now: Smooth
    fall: Smooth | None
    doubtful: bool


class Gate:
    """The gate of one session over these invariants and this model."""

    def __init__(self, invariants: Sequence[Invariant], subject: Subject, settings: GateSettings) -> None:
        """Raises what would keep a session from being judged, before anything is trained: InvalidInvariant's
        likes (ValueError), ScenarioTooLong, JudgeFailed.
        """
        self._invariants = tuple(invariants)
        self._subject = subject
        self._settings = settings
        judges = sum(isinstance(one.judge, ModelJudge) for one in self.kept)  # all of them may be asked
        for invariant in self._invariants:
            prepare(invariant, judges if invariant.kind == "kept" else 1)
            scenarios = drawn(invariant, "development", settings.seed)[: settings.budget]
            check_askable(invariant, scenarios, subject)

    @property
    def kept(self) -> tuple[Invariant, ...]:
        """The invariants that must survive."""
        return tuple(one for one in self._invariants if one.kind == "kept")

    def probe(self) -> Probes:
        """Margins of the probes under the weights as they are. Nothing is generated."""
        return {one.name: tuple(self._margins(one)) for one in self._invariants if one.margin is not None}

    def rule(self, before: Probes | None, order: Probes, kl: float | None) -> Ruling:
        """Decide about the session that led to the weights as they are.

        `before`: the probes before it, None when they are not known; `order`: those of kept invariants when
        last found to hold; `kl` in nats per token, from the weights before the session on its probe set.
        Raises what judges and subject raise: then nothing is decided.
        """
        now = self.probe()
        moved = [self._movement(one, before, order, now) for one in self._invariants if one.name in now]
        far = kl is not None and not kl <= self._settings.max_kl  # what is no number is far
        asked = [one for one in self.kept if far or self._is_asked(one, moved, order)]
        verdicts = self._check(asked)
        choice, why = self._choose(verdicts, moved, far, kl)
        held = {one.invariant for one in verdicts if one.decision == "holds"}
        evidence = {
            "kl": kl if kl is not None and math.isfinite(kl) else None,
            "probes": {one.name: _plain(one) for one in moved},
            "verdicts": [plain_verdict(one) for one in verdicts],
            "split": "development",
            "settings": self._settings.model_dump(mode="json"),
        }
        return Ruling(choice, why, evidence, now, {name: now[name] for name in held if name in now})

    def violated(self, names: Sequence[str]) -> tuple[str, ...]:
        """Which of these kept invariants are violated under the weights as they are."""
        asked = [one for one in self.kept if one.name in names]
        return tuple(one.invariant for one in self._check(asked) if one.decision == "violated")

    # ------------------------------------------------------------------ parts

    def _check(self, asked: Sequence[Invariant]) -> tuple[Verdict, ...]:
        settings = self._settings
        return check(asked, self._subject, budget=settings.budget, seed=settings.seed, split="development")

    def _margins(self, invariant: Invariant) -> list[float]:
        scenarios = drawn(invariant, "development", self._settings.seed)[: self._settings.probes]
        return measure_margins(invariant, scenarios, self._subject)

    def _movement(self, invariant: Invariant, before: Probes | None, order: Probes, now: Probes) -> Movement:
        assert invariant.margin is not None
        unit, found = invariant.margin.unit, now[invariant.name]
        earlier, ordered = (before or {}).get(invariant.name), order.get(invariant.name)
        paired = ordered is not None and len(ordered) == len(found)
        return Movement(
            invariant.name,
            invariant.kind,
            None if not earlier else Smooth.of(earlier, unit),
            Smooth.of(found, unit),
            Smooth.of([then - one for then, one in zip(ordered or (), found, strict=True)], unit)
            if paired
            else None,
            _is_doubtful(invariant, found),
        )

    def _is_asked(self, invariant: Invariant, moved: Sequence[Movement], order: Probes) -> bool:
        """Whether a kept invariant's probes fell surely and by more than the tolerance, or lie where the
        answer is open and did not when it was last in order, or nothing is known of them.
        """
        mine = next((one for one in moved if one.name == invariant.name), None)
        if mine is None or mine.fall is None:
            return True
        was_doubtful = _is_doubtful(invariant, order[invariant.name])
        surely = mine.fall.low > 0.0 or mine.fall.n == 1  # one probe has no interval
        fell = surely and mine.fall.mean > self._settings.tolerance
        return fell or (mine.doubtful and not was_doubtful)

    def _choose(
        self, verdicts: Sequence[Verdict], moved: Sequence[Movement], far: bool, kl: float | None
    ) -> tuple[Choice, str]:
        violated = [one for one in verdicts if one.decision == "violated"]
        open_ones = [one for one in verdicts if one.decision == "undecided"]
        if violated:
            return "revert", "; ".join(_said(one) for one in violated)
        if open_ones:
            return self._settings.undecided, "; ".join(_said(one) for one in open_ones)
        if verdicts:
            far_text = f" (the weights moved far: {kl:.3f} nats per token)" if far else ""
            return "keep", "asked and found to hold: " + ", ".join(map(_said, verdicts)) + far_text
        if far:
            return self._settings.undecided, (
                f"the weights moved far ({kl:.3f} nats per token), and no invariant says whether that is well"
            )
        if kept := [one for one in moved if one.kind == "kept"]:
            return "keep", f"the probes of {len(kept)} kept invariants did not fall"
        return "keep", "the weights did not move far, and there is no invariant to hold"


def contrast(
    invariant: Invariant, subject: Subject, count: int, seed: int
) -> list[tuple[tuple[ChatMessage, ...], str]]:
    """Prompts of a kept invariant's train split with the model's own answers that show it, for replay.

    What is rehearsed is what the model does by itself, so nothing new is taught (Li and Hoiem 2016, Learning
    without Forgetting). Invariants over documents have nothing to rehearse.
    """
    if isinstance(invariant.judge, LikelihoodJudge | ReadoutJudge) or not invariant.scenarios["train"]:
        return []
    scenarios = drawn(invariant, "train", seed)[:count]
    check_askable(invariant, scenarios, subject)
    answers = answered(subject, [one.prompt for one in scenarios], speech_of(invariant, seed))
    said = [(one, answers[one.prompt]) for one in scenarios]
    shown = shown_in(invariant, said, subject)
    return [(one.prompt, text) for (one, text), yes in zip(said, shown, strict=True) if yes]


def plain_verdict(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data."""
    rate, low, high = verdict.corrected
    return {
        "invariant": verdict.invariant,
        "kind": verdict.kind,
        "decision": verdict.decision,
        "successes": verdict.rate.successes,
        "n": verdict.rate.n,
        "rate": rate,
        "low": low,
        "high": high,
        "smooth": _finite(asdict(verdict.smooth)),
        "judge": None if verdict.error is None else asdict(verdict.error),
        "failures": [
            {"prompt": [[m.role, m.content] for m in scenario.prompt], "answer": answer}
            for scenario, answer in verdict.failures
        ],
    }


def _said(verdict: Verdict) -> str:
    """One verdict in words."""
    rate, low, high = verdict.corrected
    words = {"holds": "holds", "violated": "is violated", "undecided": "is not decided"}
    counted = f"{rate:.2f} [{low:.2f}, {high:.2f}] n={verdict.rate.n}"
    return f"{verdict.invariant} {words[verdict.decision]} at {counted}"


def _is_doubtful(invariant: Invariant, margins: Sequence[float]) -> bool:
    """Whether so many probes lie on the wrong side that the invariant may not hold."""
    assert invariant.margin is not None
    if isinstance(invariant.judge, LikelihoodJudge):
        threshold = invariant.judge.threshold
    elif invariant.margin.unacceptable:
        threshold = 0.0
    else:
        return False  # how likely a text is says nothing of yes or no by itself
    wrong = sum(one < threshold for one in margins) / len(margins)
    return wrong > 1.0 - invariant.requirement.required


def _plain(moved: Movement) -> dict[str, Any]:
    return {
        "kind": moved.kind,
        "before": None if moved.before is None else _finite(asdict(moved.before)),
        "now": _finite(asdict(moved.now)),
        "fall": None if moved.fall is None else _finite(asdict(moved.fall)),
        "doubtful": moved.doubtful,
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """None for what JSON cannot say."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
