"""Odds ratio preference optimization: sft, and the odds of the chosen answer against the rejected one.

Hong, Lee and Thorne, "ORPO: Monolithic Preference Optimization without Reference Model", arXiv 2403.07691,
equations 6 and 7. Needs no reference.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from understudy.config import TrainingSettings
from understudy.training.objectives import LogProbabilities, Objective


def _loss(given: LogProbabilities, settings: TrainingSettings) -> Tensor:
    """Nats per token, with y and z the chosen and the rejected answer, p(y) the geometric mean of its
    tokens' probabilities (equation 1), odds(y) = p(y) / (1 - p(y)), and lambda = `beta`:

    -log p(y) - lambda log sigmoid(log odds(y)/odds(z))
    """
    assert given.rejected is not None
    chosen, rejected = given.chosen.mean(), given.rejected.mean()
    log_odds_ratio = (chosen - rejected) - (_log_complement(chosen) - _log_complement(rejected))
    return -chosen - settings.beta * functional.logsigmoid(log_odds_ratio)


def _log_complement(log_probability: Tensor) -> Tensor:
    """log(1 - p) from log p. A certain answer is taken for one rounding error short of it: the odds of a
    certainty are infinite, and so would be their gradient.
    """
    log_p = log_probability.clamp(max=-torch.finfo(log_probability.dtype).eps)
    return torch.where(log_p > -math.log(2), torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p)))


OBJECTIVE = Objective(_loss, rejected=True)
