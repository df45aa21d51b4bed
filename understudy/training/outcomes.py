"""What a session reports: per example, per step and as a whole; and how it fails."""

from dataclasses import dataclass

GATED = "gated"
"""Why a step was skipped of which every lesson was known."""


class SessionError(Exception):
    """A session that cannot go on."""


class UnusableExample(SessionError, ValueError):
    """An example that this model cannot be trained on, or not with this objective."""


class MissingProbe(SessionError, ValueError):
    """A bound on forgetting, and nothing to measure forgetting on."""


class TrainingDiverged(SessionError, RuntimeError):
    """No step was finite, or the weights after the session are not: the session must be undone."""


@dataclass(frozen=True, slots=True)
class ExampleOutcome:
    """What the session did to one example.

    Losses are mean negative log-likelihoods in nats per token; `tokens` and `rejected_tokens` are the
    lengths of the continuation and of the rejected answer, whose losses are measured whenever there is one,
    whatever the objective. `first_token` is the probability of the continuation's first token, which moves
    before any greedy answer does. `gated`: at least one of its turns was skipped because it was known.
    """

    loss_before: float
    loss_after: float
    first_token_before: float
    first_token_after: float
    gated: bool
    tokens: int
    rejected_tokens: int = 0
    rejected_loss_before: float | None = None
    rejected_loss_after: float | None = None

    @property
    def chosen_log_probability_before(self) -> float:
        """Of the whole continuation, in nats."""
        return -self.loss_before * self.tokens

    @property
    def chosen_log_probability_after(self) -> float:
        """Of the whole continuation, in nats."""
        return -self.loss_after * self.tokens

    @property
    def rejected_log_probability_before(self) -> float | None:
        """Of the whole rejected answer, in nats; None without one."""
        return (
            None if self.rejected_loss_before is None else -self.rejected_loss_before * self.rejected_tokens
        )

    @property
    def rejected_log_probability_after(self) -> float | None:
        """Of the whole rejected answer, in nats; None without one."""
        return _whole(self.rejected_loss_after, self.rejected_tokens)

    @property
    def margin_before(self) -> float | None:
        """By how many nats the whole chosen answer is likelier than the whole rejected one."""
        return _difference(self.chosen_log_probability_before, self.rejected_log_probability_before)

    @property
    def margin_after(self) -> float | None:
        """By how many nats the whole chosen answer is likelier than the whole rejected one."""
        return _difference(self.chosen_log_probability_after, self.rejected_log_probability_after)

    @property
    def token_margin_before(self) -> float | None:
        """The margin per token: mean of the chosen answer's tokens less mean of the rejected one's."""
        return _difference(self.rejected_loss_before, self.loss_before)

    @property
    def token_margin_after(self) -> float | None:
        """The margin per token: mean of the chosen answer's tokens less mean of the rejected one's."""
        return _difference(self.rejected_loss_after, self.loss_after)

    @property
    def fell(self) -> bool:
        """The chosen answer got less likely, whatever became of the margin."""
        return self.loss_after > self.loss_before


@dataclass(frozen=True, slots=True)
class StepReport:
    """Step `step` of `of`.

    `loss` is the step's whole loss, that of the lessons alone when all were gated; `tokens` are those of
    the continuations read, in `replayed` old examples among others; `grad_norm` is measured before
    clipping; `gated` lessons were known. `taken`: the weights were written (in a dry run: would have been)
    and stayed so; otherwise `skipped` says why not. `kl`, after the step, is there when it is bounded.
    """

    step: int
    of: int
    loss: float
    tokens: int
    grad_norm: float
    gated: int
    taken: bool
    seconds: float
    replayed: int
    skipped: str | None = None
    kl: float | None = None


@dataclass(frozen=True, slots=True)
class KlReport:
    """How far the session moved what it did not mean to: KL(before the session || now) on the probe set.

    `mean` is in nats per token, over `n` positions of `examples` examples. `standard_error` takes the
    positions of one example for dependent (with one example: the positions; with one position it is 0).
    """

    mean: float
    standard_error: float
    n: int
    examples: int


@dataclass(frozen=True, slots=True)
class SessionResult:
    """What a session did. `steps` were taken and kept (in a dry run: would be), `gated` counts turns of
    lessons that were known, `skipped` steps that were not finite.

    `losses` has one entry per report; `outcomes` one per example. `turns` were planned: the next session's
    replay goes on from there. `relearned` counts turns of lessons learned before that a review found
    forgotten and taught again. `kl` is None without a probe and in a dry run. `stopped` says that, and why,
    the session ended before its last step by itself.
    """

    steps: int
    gated: int
    skipped: int
    outcomes: tuple[ExampleOutcome, ...]
    losses: tuple[float, ...]
    tokens: int
    seconds: float
    cancelled: bool
    kl: KlReport | None = None
    stopped: str | None = None
    turns: int = 0
    relearned: int = 0


def _whole(loss: float | None, tokens: int) -> float | None:
    return None if loss is None else -loss * tokens


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
