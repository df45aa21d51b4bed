"""The gate's evidence for a decision, read from the ledger into types that a page can show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from understudy.lessons import SessionDecision


class Measured(msgspec.Struct, frozen=True):
    """A mean with its 95 % interval over `n` scenarios; one scenario has no interval."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""


class Probe(msgspec.Struct, frozen=True):
    """How an invariant's scored scenarios moved; `fall` is from when it was last found to hold."""

    kind: str
    now: Measured
    before: Measured | None = None
    fall: Measured | None = None
    doubtful: bool = False


class Failure(msgspec.Struct, frozen=True):
    """A scenario whose answer did not show the behaviour: its turns (role, text), and the answer."""

    prompt: list[tuple[str, str]]
    answer: str

    @property
    def asked(self) -> str:
        """The last turn."""
        return self.prompt[-1][1] if self.prompt else ""


class Asked(msgspec.Struct, frozen=True):
    """An invariant that was put to the test with answers; the interval holds at every look."""

    invariant: str
    kind: str
    decision: str
    n: int
    rate: float
    low: float
    high: float
    failures: list[Failure] = []


class Evidence(msgspec.Struct, frozen=True):
    """What a decision was taken on. A person's has none; `error` is why the gate could not judge."""

    kl: float | None = None
    probes: dict[str, Probe] = {}
    verdicts: list[Asked] = []
    split: str = ""
    seconds: float | None = None
    error: str | None = None
    before: list[str] = []


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision about a session with its evidence."""

    decision: SessionDecision
    evidence: Evidence

    @property
    def word(self) -> str:
        """What the decision is called."""
        return {"keep": "Kept", "revert": "Reverted", "ask": "Waits for a person"}[self.decision.choice]

    @property
    def tone(self) -> str:
        """The badge's class."""
        return {"keep": "good", "revert": "bad", "ask": "warn"}[self.decision.choice]

    @property
    def seen(self) -> bool:
        """Whether there is evidence to show."""
        return bool(self.evidence.probes or self.evidence.verdicts or self.evidence.error)


def read_decisions(decisions: Sequence[SessionDecision]) -> list[Decided]:
    """The decisions, in their order, each with its evidence; of what is not in this form, none."""
    return [Decided(one, _evidence(dict(one.evidence))) for one in decisions]


def _evidence(stored: dict[str, Any]) -> Evidence:
    try:
        return msgspec.convert(stored, Evidence, strict=False)
    except msgspec.ValidationError as error:
        return Evidence(error=f"the evidence is not in a form that this program knows: {error}")
