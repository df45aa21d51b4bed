"""Direct preference optimization: make the chosen answer likelier against the rejected one.

Rafailov et al., "Direct Preference Optimization", arXiv 2305.18290, equation 7. The reference is the model
before the session. The guard is that of Pal et al., "Smaug: Fixing Failure Modes of Preference Optimisation
with DPO-Positive", arXiv 2402.13228, equation 3: plain dpo is content when both answers get less likely, as
long as the rejected one falls faster.
"""

from torch import Tensor
from torch.nn import functional

from understudy.config import TrainingSettings
from understudy.training.objectives import LogProbabilities, Objective


def _loss(given: LogProbabilities, settings: TrainingSettings) -> Tensor:
    """Nats per pair, with y the chosen and z the rejected answer, beta and lambda = `chosen_guard`:

    -log sigmoid(beta (log p(y)/p_ref(y) - log p(z)/p_ref(z) - lambda max(0, log p_ref(y)/p(y))))
    """
    assert given.rejected is not None
    assert given.reference_chosen is not None and given.reference_rejected is not None
    chosen = given.chosen.sum() - given.reference_chosen.sum()
    rejected = given.rejected.sum() - given.reference_rejected.sum()
    fallen = functional.relu(-chosen)
    return -functional.logsigmoid(settings.beta * (chosen - rejected - settings.chosen_guard * fallen))


OBJECTIVE = Objective(_loss, rejected=True, reference=True)
