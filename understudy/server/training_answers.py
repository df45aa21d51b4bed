"""What the routes of the training API answer, as types: its document is made from them."""

from typing import Annotated, Any, Literal

import msgspec

from understudy.lessons import Choice, KeepOrRevert

Seconds = Annotated[float, msgspec.Meta(ge=0)]
SessionState = Literal["queued", "running", "finished", "failed", "cancelled"]


class OutcomeAnswer(msgspec.Struct):
    """What a session did to one example: mean negative log-likelihood in nats per token, of the answer and of
    the rejected one, and the probability of the first token. `gated`: known already, a step was skipped.
    """

    loss_before: float
    loss_after: float
    first_token_before: float
    first_token_after: float
    gated: bool
    tokens: int
    rejected_tokens: int
    rejected_loss_before: float | None
    rejected_loss_after: float | None


class Divergence(msgspec.Struct):
    """How far the weights moved: KL of the probe set's next tokens, before the session to now, in nats per
    token, over `n` positions.
    """

    mean: float
    standard_error: float
    n: int


class RevisedAnswer(msgspec.Struct):
    """Self-distillation: the answer that was criticised, and the one given with the criticism in view."""

    lesson: str
    rejected: str
    answer: str


class GateAnswer(msgspec.Struct):
    """What was decided about a session: `keep`, `revert` (the weights are as before it, to the bit) or `ask`
    (a person decides), by whom, why, and on which evidence.
    """

    decision: Choice
    by: str
    why: str
    at: str
    evidence: dict[str, Any]


class OpenDecision(msgspec.Struct):
    """A session that waits for a person's decision; no other is trained meanwhile."""

    session: str
    commit: str | None
    why: str
    at: str


class SessionAnswer(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A session: as it was asked for, with the resolved settings, and once it is finished what it did."""

    key: str
    state: SessionState
    settings: dict[str, Any]
    error: str | None = None
    commit: str | None = None
    outcomes: list[OutcomeAnswer] | None = None
    losses: list[float | None] | None = None
    steps: int | None = None
    gated: int | None = None
    skipped: int | None = None
    turns: int | None = None
    relearned: int | None = None
    tokens: int | None = None
    seconds: Seconds | None = None
    update_norm: float | None = None
    kl: Divergence | None = None
    stopped: str | None = None
    revised: list[RevisedAnswer] | None = None
    gate: GateAnswer | None = None


class NotTaught(msgspec.Struct):
    """An approved lesson that could not be made into an example, and why."""

    id: str
    lesson: str
    why: str


class LessonsAnswer(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`POST /lessons/train`: what the session over the approved lessons did, in their order."""

    state: SessionState
    settings: dict[str, Any]
    commit: str | None
    outcomes: list[OutcomeAnswer]
    lessons: list[str]
    not_taught: list[NotTaught]
    gate: GateAnswer | None = None


class Cancelled(msgspec.Struct):
    """`POST /train/cancel`"""

    key: str
    state: Literal["cancelling", "cancelled"]


class Status(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`GET /train/status`: the trainer, the queue, the running session, what came last. With `key`, that
    request alone.
    """

    trainer: dict[str, Any]
    weight_commit: str | None
    proposed: int
    approved: int
    queued: int
    queue: list[dict[str, Any]]
    running: dict[str, Any] | None
    decisions: list[OpenDecision]
    stopped: str | None
    last: dict[str, Any] | None
    errors: list[dict[str, Any]]
    sync: dict[str, Any]


class Decided(msgspec.Struct):
    """`POST /behaviours/decide`: the decision, and the commit of the weights that are served now."""

    session: str
    decision: KeepOrRevert
    by: str
    why: str
    weight_commit: str | None


class DecisionAnswer(GateAnswer):
    """A decision in the ledger."""

    session: str
    commit: str | None


class DecisionsAnswer(msgspec.Struct):
    """`GET /behaviours/decisions`: every decision about a session, oldest first."""

    decisions: list[DecisionAnswer]


# ---------------------------------------------------------------------- weights


class Restored(msgspec.Struct):
    """`POST /weights/restore`: the commit that records it, and the one whose weights are back."""

    commit: str
    restores: str | None


class Adopted(msgspec.Struct):
    """`POST /weights/adopt`: the commit that records it, and where the values are from."""

    commit: str
    source: str


class Synced(msgspec.Struct):
    """`POST /checkpoint`: the commit that the model directory's files hold now, and what was written."""

    commit: str | None
    files: list[str]
    blocks_written: int
    blocks_total: int
    bytes_written: int
    seconds: Seconds
