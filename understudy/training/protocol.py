"""What server and trainer say to each other: MessagePack over a ZeroMQ socket only this user can open.

Each message is a tagged struct; msgspec checks types on arrival, so nothing is ever unpickled.
"""

from typing import Any

import msgspec

from understudy.lessons import Example


class RunSession(msgspec.Struct, frozen=True, tag="run"):
    """Train on examples as one session. A session id that was committed before is not run again."""

    session: str
    examples: tuple[Example, ...]
    replay: tuple[Example, ...]
    settings: dict[str, Any]
    message: str
    author: str
    lessons: tuple[str, ...] = ()
    dry_run: bool = False


class Restore(msgspec.Struct, frozen=True, tag="restore"):
    """Bring the weights back to a commit; None is the model as it came."""

    session: str
    commit: str | None
    author: str


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop a running session and put the weights back."""

    session: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Finish what is being done and end."""


Request = RunSession | Restore | Cancel | Stop


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The trainer mapped the weights and passed its self-test. `recovered`: it undid a session cut off."""

    pid: int
    commit: str | None
    recovered: bool


class Stepped(msgspec.Struct, frozen=True, tag="stepped"):
    """Progress of a session. `seconds` since it began; `tokens` supervised so far."""

    session: str
    step: int
    of: int
    loss: float
    grad_norm: float
    gated: bool
    tokens: int
    seconds: float


class Outcome(msgspec.Struct, frozen=True):
    """What a session did to one example: nats per token, and the probability of the first token."""

    loss_before: float
    loss_after: float
    first_token_before: float
    first_token_after: float
    gated: bool


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """A session's result. `commit` is None for a dry run; `update_norm` is the 2-norm of the change."""

    session: str
    commit: str | None
    outcomes: tuple[Outcome, ...]
    losses: tuple[float, ...]
    steps: int
    gated: int
    tokens: int
    seconds: float
    update_norm: float


class Restored(msgspec.Struct, frozen=True, tag="restored"):
    """The weights are back; `commit` records that."""

    session: str
    commit: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A request was refused or undone. The weights are those of the last commit."""

    session: str
    error: str


Reply = Ready | Stepped | Finished | Restored | Failed


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
