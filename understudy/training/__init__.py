"""APOLLO, the frozen context, objectives, the trainer process."""

from understudy.training.activations import checkpointed
from understudy.training.apollo import Apollo, UnsupportedParameter, parameter_groups
from understudy.training.frozen import (
    ContextTooLong,
    EmptyContext,
    FrozenContext,
    FrozenContextError,
    FrozenContextUnsupported,
    continuation_log_probabilities,
    continuation_logits,
    extend_context,
    freeze_context,
    freeze_together,
    self_test,
)
from understudy.training.handle import (
    TrainerError,
    TrainerHandle,
    TrainerStatus,
    TrainerUnavailable,
    TrainingCancelled,
    TrainingFailed,
)
from understudy.training.launching import Launch, TrainerProcess, launch_process
from understudy.training.objectives import (
    LogProbabilities,
    Objective,
    UnknownObjective,
    find_objective,
    objective_names,
)
from understudy.training.outcomes import (
    ExampleOutcome,
    KlReport,
    MissingProbe,
    SessionError,
    SessionResult,
    StepReport,
    TrainingDiverged,
    UnusableExample,
)
from understudy.training.probe import Probe
from understudy.training.projection import draw_projection
from understudy.training.protocol import Adopt, Finished, Outcome, Restore, RunSession, Stepped, Synced
from understudy.training.replay import Replay, ReplayError
from understudy.training.rounding import add_stochastic_, round_stochastic_
from understudy.training.session import run_session
from understudy.training.sharpness import (
    Curvature,
    NotMeasurable,
    curvature_along,
    loss_along,
    proposed_update,
)

__all__ = [
    "Adopt",
    "Apollo",
    "ContextTooLong",
    "Curvature",
    "EmptyContext",
    "ExampleOutcome",
    "Finished",
    "FrozenContext",
    "FrozenContextError",
    "FrozenContextUnsupported",
    "KlReport",
    "Launch",
    "LogProbabilities",
    "MissingProbe",
    "NotMeasurable",
    "Objective",
    "Outcome",
    "Probe",
    "Replay",
    "ReplayError",
    "Restore",
    "RunSession",
    "SessionError",
    "SessionResult",
    "StepReport",
    "Stepped",
    "Synced",
    "TrainerError",
    "TrainerHandle",
    "TrainerProcess",
    "TrainerStatus",
    "TrainerUnavailable",
    "TrainingCancelled",
    "TrainingDiverged",
    "TrainingFailed",
    "UnknownObjective",
    "UnsupportedParameter",
    "UnusableExample",
    "add_stochastic_",
    "checkpointed",
    "continuation_log_probabilities",
    "continuation_logits",
    "curvature_along",
    "draw_projection",
    "extend_context",
    "find_objective",
    "freeze_context",
    "freeze_together",
    "launch_process",
    "loss_along",
    "objective_names",
    "parameter_groups",
    "proposed_update",
    "round_stochastic_",
    "run_session",
    "self_test",
]
