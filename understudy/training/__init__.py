"""APOLLO, the frozen context, objectives, the trainer process."""

from understudy.training.apollo import Apollo, UnsupportedParameter, draw_projection, parameter_groups
from understudy.training.frozen import (
    ContextTooLong,
    EmptyContext,
    FrozenContext,
    FrozenContextError,
    FrozenContextUnsupported,
    continuation_log_probabilities,
    continuation_logits,
    freeze_context,
    self_test,
)
from understudy.training.handle import TrainerHandle, TrainerStatus, TrainerUnavailable, TrainingFailed
from understudy.training.objectives import (
    OBJECTIVES,
    LogProbabilities,
    Objective,
    UnknownObjective,
    find_objective,
    sft,
)
from understudy.training.protocol import Finished, Outcome, Restore, RunSession, Stepped
from understudy.training.replay import Replay, ReplayError
from understudy.training.rounding import add_stochastic_, round_stochastic_
from understudy.training.session import (
    ExampleOutcome,
    SessionError,
    SessionResult,
    StepReport,
    TrainingDiverged,
    UnusableExample,
    run_session,
)

__all__ = [
    "OBJECTIVES",
    "Apollo",
    "ContextTooLong",
    "EmptyContext",
    "ExampleOutcome",
    "Finished",
    "FrozenContext",
    "FrozenContextError",
    "FrozenContextUnsupported",
    "LogProbabilities",
    "Objective",
    "Outcome",
    "Replay",
    "ReplayError",
    "Restore",
    "RunSession",
    "SessionError",
    "SessionResult",
    "StepReport",
    "Stepped",
    "TrainerHandle",
    "TrainerStatus",
    "TrainerUnavailable",
    "TrainingDiverged",
    "TrainingFailed",
    "UnknownObjective",
    "UnsupportedParameter",
    "UnusableExample",
    "add_stochastic_",
    "continuation_log_probabilities",
    "continuation_logits",
    "draw_projection",
    "find_objective",
    "freeze_context",
    "parameter_groups",
    "round_stochastic_",
    "run_session",
    "self_test",
    "sft",
]
