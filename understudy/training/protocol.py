"""What server and trainer say to each other: MessagePack over a ZeroMQ socket only this user can open.

Each message is a tagged struct; msgspec checks types on arrival, so nothing is ever unpickled.
"""

from typing import Any, Literal

import msgspec

from understudy.lessons import Example

Phase = Literal[
    "absent", "starting", "idle", "training", "committing", "restoring", "adopting", "syncing", "ending"
]
"""What a trainer is doing. `committing` ends when a session is acknowledged, `ending` with the process."""


class RunSession(msgspec.Struct, frozen=True, tag="run"):
    """Train on examples as one session. A session id that was committed before is not run again.

    `probe`: examples on which the session's drift from the weights before it is measured. `digest`
    tells what was asked: a committed session of the same id and another digest is refused.
    """

    session: str
    examples: tuple[Example, ...]
    replay: tuple[Example, ...]
    settings: dict[str, Any]
    message: str
    author: str
    lessons: tuple[str, ...] = ()
    dry_run: bool = False
    probe: tuple[Example, ...] = ()
    digest: str = ""


class Restore(msgspec.Struct, frozen=True, tag="restore"):
    """Bring the weights back to a commit; None is the model as it came."""

    session: str
    commit: str | None
    author: str


class Adopt(msgspec.Struct, frozen=True, tag="adopt"):
    """Take the values of a safetensors file or model directory (`source`) into the weights, as a commit.

    They were made from the weights of commit `parent` ("initial": as the model came): when others are
    newest by now the request fails, since it would undo what was learned meanwhile. None: whatever is newest.
    """

    session: str
    source: str
    message: str
    author: str
    parent: str | None = None


class Checkpoint(msgspec.Struct, frozen=True, tag="checkpoint"):
    """Bring the model directory up to the newest weight commit."""

    session: str


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop a session, running or to come, and put the weights back."""

    session: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Undo what is not committed, bring the model directory up to the newest commit, and end."""


Request = RunSession | Restore | Adopt | Checkpoint | Cancel | Stop
Work = RunSession | Restore | Adopt | Checkpoint
"""Requests that are answered."""


class Synced(msgspec.Struct, frozen=True, tag="synced"):
    """The model directory holds `commit` (None: the model as it came). Blocks are the sync's own."""

    session: str
    commit: str | None
    files: tuple[str, ...]
    blocks_written: int
    blocks_total: int
    bytes_written: int
    seconds: float


class State(msgspec.Struct, frozen=True, tag="state"):
    """What the trainer does from now on. Answers no request.

    `synced`: the commit that the directory holds; `pending`: commits it does not hold yet;
    `unsynced_since`: when the oldest of them was made, `due`: when they will be synced, seconds since the
    epoch. `error`: why the last sync did not happen.
    """

    phase: Phase
    commit: str | None
    synced: str | None
    pending: int = 0
    unsynced_since: float | None = None
    due: float | None = None
    last_sync: Synced | None = None
    error: str | None = None


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The trainer mapped the weights and passed its self-test. `recovered`: it undid a session cut off."""

    pid: int
    commit: str | None
    recovered: bool


class Stepped(msgspec.Struct, frozen=True, tag="stepped"):
    """Progress of a session. `seconds` since it began; `tokens` supervised so far.

    `gated`: no step was taken, since all its lessons were known. `skipped`: why nothing was written.
    `loss` and `grad_norm` are None where they are not finite. `kl` from the weights before the session,
    nats per token, when it is bounded.
    """

    session: str
    step: int
    of: int
    loss: float | None
    grad_norm: float | None
    gated: bool
    tokens: int
    seconds: float
    skipped: str | None = None
    kl: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What a session did to one example: nats per token, and the probability of the first token.

    The rejected answer's figures are there when the example has one.
    """

    loss_before: float
    loss_after: float
    first_token_before: float
    first_token_after: float
    gated: bool
    tokens: int = 0
    rejected_tokens: int = 0
    rejected_loss_before: float | None = None
    rejected_loss_after: float | None = None


class Kl(msgspec.Struct, frozen=True):
    """KL divergence from the weights before a session, on its probe: nats per token, over `n` positions."""

    mean: float
    standard_error: float
    n: int
    examples: int


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """A session's result. `commit` is None for a dry run; `update_norm` is the 2-norm of the change.

    `skipped` counts steps whose loss or gradient was not finite; `turns` those of lessons that were
    planned, `relearned` those of lessons learned before that a review found forgotten; `stopped` says why
    the session ended before its last step.
    """

    session: str
    commit: str | None
    outcomes: tuple[Outcome, ...]
    losses: tuple[float | None, ...]
    steps: int
    gated: int
    tokens: int
    seconds: float
    update_norm: float
    skipped: int = 0
    kl: Kl | None = None
    stopped: str | None = None
    turns: int = 0
    relearned: int = 0


class Restored(msgspec.Struct, frozen=True, tag="restored"):
    """The weights are back; `commit` records that."""

    session: str
    commit: str


class Adopted(msgspec.Struct, frozen=True, tag="adopted"):
    """The weights hold what was to be taken over; `commit` records that."""

    session: str
    commit: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A request was refused or undone. The weights are those of the last commit.

    `cancelled`: because someone asked for that.
    """

    session: str
    error: str
    cancelled: bool = False


Answer = Finished | Restored | Adopted | Synced | Failed
Reply = Ready | State | Stepped | Answer


def encode(message: Request | Reply) -> bytes:
    """As MessagePack."""
    return msgspec.msgpack.encode(message)


def decode_request(data: bytes) -> Request:
    """Raises msgspec.ValidationError on anything but a request."""
    request: Request = msgspec.msgpack.decode(data, type=Request)
    return request


def decode_reply(data: bytes) -> Reply:
    """Raises msgspec.ValidationError on anything but a reply."""
    reply: Reply = msgspec.msgpack.decode(data, type=Reply)
    return reply
