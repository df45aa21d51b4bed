"""What a step tries to make likelier: every file of this folder is one objective, found by its name.

A new one is a new file `<name>.py` that defines `OBJECTIVE`, an `Objective`: a loss and what it needs to
know. Nothing has to be registered; `settings.objective = "<name>"` uses it.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from understudy.config import TrainingSettings


class UnknownObjective(ValueError):
    """A name that no objective has."""


@dataclass(frozen=True, slots=True)
class LogProbabilities:
    """What the model gives one example, in nats.

    T is the length of the continuation, R that of the rejected answer, V the vocabulary. `chosen` (T) and
    `rejected` (R) are log p(token | context, tokens before it) under the weights as they are; the references
    are the same under the weights before the session. `distribution` (T, V) is the model's own over the
    vocabulary at each token of the continuation, `teacher` (T, V) that of the weights before the session
    after the teacher's context. Gradients flow through `chosen`, `rejected` and `distribution` only.
    """

    chosen: Tensor
    rejected: Tensor | None = None
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None
    distribution: Tensor | None = None
    teacher: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Objective:
    """A callable: the loss of one example, a scalar. What it does not ask for is not computed.

    `rejected`: it compares with the rejected answer. `reference`: with the weights before the session.
    `teacher`: with what those give the continuation after the example's `teacher_context_ids`.
    """

    loss: Callable[[LogProbabilities, TrainingSettings], Tensor]
    rejected: bool = False
    reference: bool = False
    teacher: bool = False

    def __call__(self, log_probabilities: LogProbabilities, settings: TrainingSettings) -> Tensor:
        """The loss. Raises ValueError when something that the objective needs is not there."""
        given = log_probabilities
        needed = {
            "rejected": self.rejected,
            "reference_chosen": self.reference,
            "reference_rejected": self.reference and self.rejected,
            "distribution": self.teacher,
            "teacher": self.teacher,
        }
        missing = [name for name, wanted in needed.items() if wanted and getattr(given, name) is None]
        if missing:
            raise ValueError(f"expected log-probabilities with {', '.join(missing)}, got none")
        return self.loss(given, settings)


def objective_names() -> tuple[str, ...]:
    """Every objective there is, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find_objective(name: str) -> Objective:
    """The objective of that name. Raises UnknownObjective."""
    if name not in objective_names():
        raise UnknownObjective(f"expected an objective among {', '.join(objective_names())}, got {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{name}"), "OBJECTIVE", None)
    if not isinstance(found, Objective):
        raise UnknownObjective(
            f"expected the file of the objective {name!r} to define OBJECTIVE, an Objective, got {found!r}"
        )
    return found


__all__ = ["LogProbabilities", "Objective", "UnknownObjective", "find_objective", "objective_names"]
