"""What the trainer is doing, as the page tells it while people watch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from understudy.lessons import Ledger
from understudy.server.pages.plots import line_plot

if TYPE_CHECKING:
    from understudy.server.training import TrainingService

_PHASES = {
    "absent": "There is no trainer.",
    "starting": "The trainer is starting.",
    "idle": "The trainer rests.",
    "training": "Training.",
    "committing": "Writing the weight commit.",
    "restoring": "Bringing earlier weights back.",
    "adopting": "Taking weights from elsewhere.",
    "syncing": "Bringing the model's files up to date.",
    "ending": "The trainer is ending.",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """The trainer at one moment. `session` is the one that runs or is being decided about, `ended` the one
    before it.
    """

    session: str | None
    ended: str | None
    judging: bool
    said: str
    step: int
    of: int
    loss: float | None
    kl: float | None
    remaining: str
    plot: Markup
    approved: int
    queued: int
    waiting: int
    stopped: str | None
    failed: str | None

    @property
    def runs(self) -> bool:
        """Whether steps are being taken, which can be called off."""
        return self.session is not None and not self.judging

    @property
    def every(self) -> str:
        """How often to look again."""
        return "1s" if self.session is not None or self.approved else "3s"


def read_progress(service: "TrainingService", ledger: Ledger) -> Progress:
    """As it is now. Reads the ledger's file briefly."""
    trainer, sessions = service.trainer.status, service.sessions
    session = sessions.running
    trains = session is not None and trainer.session == session
    points = sessions.counts.curve.points(session) if session else ()
    label = f"Loss by step, from {points[0][1]:.3g} to {points[-1][1]:.3g}" if points else ""
    last = service.last if (service.last or {}).get("state") == "failed" else None
    return Progress(
        session=session,
        ended=sessions.ended,
        judging=sessions.judging,
        said=_said(session, sessions.judging, trains, trainer.phase),
        step=trainer.step if trains else 0,
        of=trainer.of if trains else 0,
        loss=trainer.loss if trains else None,
        kl=trainer.kl if trains else None,
        remaining=remaining(trainer.eta_seconds) if trains and trainer.eta_seconds is not None else "",
        plot=line_plot([(float(step), loss) for step, loss in points], label),
        approved=len(ledger.list("approved")),
        queued=service.queue_length,
        waiting=len(service.decider.waiting),
        stopped=service.stopped,
        failed=None if last is None else str(last.get("error", "")),
    )


def _said(session: str | None, judging: bool, trains: bool, phase: str) -> str:
    if session is not None and judging:
        return "Deciding whether it stays."
    if session is not None and not trains:
        return "Looking at the model as it is before the session."
    return _PHASES[phase]


def remaining(seconds: float) -> str:
    """A time to come, as precisely as anyone needs it."""
    if seconds < 1:
        return "less than a second"
    if seconds < 100:
        return f"about {seconds:.0f} s"
    if seconds < 100 * 60:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
