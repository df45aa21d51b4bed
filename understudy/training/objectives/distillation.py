"""Self-distillation: answer without the criticism as the model itself answers with it.

The teacher is the model before the session, with the criticism in its context; the student is the model as
it learns, without it. Snell, Klein and Zhong, "Learning by Distilling Context", arXiv 2209.15189: the answer
is the teacher's own, and the whole distribution of its every token is taught, not the token alone.
"""

from torch import Tensor
from torch.nn import functional

from understudy.config import TrainingSettings
from understudy.training.objectives import LogProbabilities, Objective


def _loss(given: LogProbabilities, _: TrainingSettings) -> Tensor:
    """Forward divergence, nats per token: 1/T sum_t KL(teacher(. | y_<t) || student(. | y_<t))."""
    assert given.distribution is not None and given.teacher is not None
    divergence = functional.kl_div(given.distribution, given.teacher, reduction="none", log_target=True)
    return divergence.sum(-1).mean()


OBJECTIVE = Objective(_loss, teacher=True)
