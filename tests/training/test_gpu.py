"""The same numbers on a GPU: run by `make test-gpu` where there is one."""

import copy

import pytest
import torch
from training_models import ARCHITECTURES, tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import Apollo, parameter_groups, run_session, self_test

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

LESSONS = (Example((1, 2, 3, 4, 5), (6, 7, 8)), Example((9, 8, 7), (6, 5, 4, 3)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_session_learns_the_same_on_a_gpu(architecture: str) -> None:
    settings = TrainingSettings(lr=1e-3, gate=None, replay=0.0)
    losses = []
    here = tiny_model(architecture)
    for model in (copy.deepcopy(here), copy.deepcopy(here).to("cuda")):
        self_test(model)
        optimizer = Apollo(parameter_groups(model, settings), settings)
        losses.append(run_session(model, optimizer, LESSONS, (), settings).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
