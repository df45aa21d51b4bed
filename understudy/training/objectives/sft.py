"""Supervised fine-tuning: make the continuation likelier."""

from torch import Tensor

from understudy.config import TrainingSettings
from understudy.training.objectives import LogProbabilities, Objective


def _loss(given: LogProbabilities, _: TrainingSettings) -> Tensor:
    """Mean negative log-likelihood of the continuation: -1/T sum_t log p(y_t | context, y_<t)."""
    return -given.chosen.mean()


OBJECTIVE = Objective(_loss)
