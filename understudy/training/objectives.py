"""Objectives: what a step tries to make likelier."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor


class UnknownObjective(ValueError):
    """A name that no objective has."""


@dataclass(frozen=True, slots=True)
class LogProbabilities:
    """What the model gives one example: log-probabilities per token in nats, each of shape (T,).

    `rejected` is there when the objective compares; the references are those of the weights before the
    session.
    """

    chosen: Tensor
    rejected: Tensor | None = None
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None


Objective = Callable[[LogProbabilities], Tensor]
"""The loss of one example, a scalar in nats per token."""


def sft(log_probabilities: LogProbabilities) -> Tensor:
    """Mean negative log-likelihood of the continuation: -1/T sum_t log p(y_t | context, y_<t)."""
    return -log_probabilities.chosen.mean()


OBJECTIVES: Mapping[str, Objective] = MappingProxyType({"sft": sft})


def find_objective(name: str) -> Objective:
    """The objective of that name. Raises UnknownObjective."""
    if name not in OBJECTIVES:
        raise UnknownObjective(f"expected an objective among {', '.join(OBJECTIVES)}, got {name!r}")
    return OBJECTIVES[name]
