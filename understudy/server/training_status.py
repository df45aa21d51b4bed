"""What the training API tells of requests, sessions and the trainer."""

import time
from typing import TYPE_CHECKING, Any

import msgspec

from understudy.lessons import LessonResult, TrainingRequest

if TYPE_CHECKING:
    from understudy.training import Outcome, TrainerStatus

Result = dict[str, Any]
"""What the API answers."""

_OF_A_SESSION = ("session", "step", "of", "loss", "kl", "tokens_per_second", "eta_seconds", "phase")
_OF_A_REQUEST = ("examples", "dry_run", "message", "author")


def describe_request(request: TrainingRequest) -> Result:
    """A request, with what came of it once it has ended."""
    return {
        "key": request.key,
        "session": request.key,
        "state": "running" if request.state == "cancelling" else request.state,
        "accepted_at": request.accepted_at,
        "began_at": request.began_at,
        "ended_at": request.ended_at,
        "settings": request.about["settings"],
        **request.about["extra"],
        **(request.answer or {}),
    }


def describe_waiting(request: TrainingRequest) -> Result:
    """A request as it stands in the queue."""
    about = {name: request.about[name] for name in _OF_A_REQUEST}
    return {"key": request.key, "state": request.state, "accepted_at": request.accepted_at, **about}


def describe_running(trainer: "TrainerStatus") -> Result | None:
    """The session that the trainer is at, None when it rests."""
    if trainer.session is None:
        return None
    return {"key": trainer.session, **{name: getattr(trainer, name) for name in _OF_A_SESSION}}


def describe_trainer(trainer: "TrainerStatus") -> Result:
    """The trainer, the session it is at, what went wrong, and how far the model directory is behind."""
    told: Result = msgspec.to_builtins(trainer)
    now = time.time()
    return {
        "trainer": told,
        "running": describe_running(trainer),
        "errors": told["errors"],
        "sync": {
            "synced": trainer.synced,
            "pending": trainer.pending,
            "unsynced_seconds": None
            if trainer.unsynced_since is None
            else max(0.0, now - trainer.unsynced_since),
            "due_seconds": None if trainer.sync_due is None else max(0.0, trainer.sync_due - now),
            "last": told["last_sync"],
            "error": trainer.sync_error,
        },
    }


def lesson_result(outcome: "Outcome", before: str | None = None, after: str | None = None) -> LessonResult:
    """What the ledger records of an outcome: losses per token, log-probabilities of whole answers, and what
    the model itself said before and after.
    """
    return LessonResult(
        outcome.loss_before,
        outcome.loss_after,
        outcome.gated,
        _total(outcome.loss_before, outcome.tokens),
        _total(outcome.loss_after, outcome.tokens),
        _total(outcome.rejected_loss_before, outcome.rejected_tokens),
        _total(outcome.rejected_loss_after, outcome.rejected_tokens),
        before,
        after,
    )


def _total(loss: float | None, tokens: int) -> float | None:
    return None if loss is None or not tokens else -loss * tokens
