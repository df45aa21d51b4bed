"""The flat page in examples/ and the real session are held to the same numbers."""

import pytest
import torch
from loading import load_script
from training_models import ARCHITECTURES, random_ids, tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import Apollo, parameter_groups, run_session


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_flat_page_gives_the_session_s_numbers(architecture: str) -> None:
    page = load_script("examples", "train_one_lesson")
    context, continuation = random_ids(70, 1).tolist(), random_ids(6, 2).tolist()
    flat, real = tiny_model(architecture), tiny_model(architecture)
    losses = page.train_one_lesson(flat, context, continuation, steps=5)

    settings = TrainingSettings(lr=3e-4, rank=1, epochs=5, replay=0.0, gate=None)
    optimizer = Apollo(parameter_groups(real, settings), settings)
    lesson = Example(tuple(context), tuple(continuation))
    result = run_session(real, optimizer, [lesson], [], settings)
    assert losses == pytest.approx(result.losses, rel=1e-5)
    assert losses[-1] < losses[0]
    for one, other in zip(flat.parameters(), real.parameters(), strict=True):
        # A hundredth of what five steps move: Adam turns the rounding of a vanishing gradient into movement.
        assert torch.allclose(one, other, atol=1e-5)
