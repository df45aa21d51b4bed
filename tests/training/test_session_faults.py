"""What is not finite is never written; what runs out of memory leaves nothing behind but an error."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from training_models import random_ids, tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import Apollo, StepReport, TrainingDiverged, parameter_groups, run_session

SETTINGS = TrainingSettings(lr=1e-2, rank=1, gate=None, replay=0.0, warmup_steps=3)
BROKEN_TOKEN = 96


def lesson(seed: int, *, broken: bool = False) -> Example:
    """Ids under BROKEN_TOKEN, which stands in the context of a broken one."""
    ids = (random_ids(25, seed) % BROKEN_TOKEN).tolist()
    return Example((*ids[:19], BROKEN_TOKEN if broken else 1), tuple(ids[20:]))


def broken_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """One token's embedding is infinite, so exactly what contains it has no finite loss."""
    model = tiny_model("qwen3", dtype, tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[BROKEN_TOKEN] = torch.inf  # type: ignore[operator]
    return model


def optimizer_of(model: nn.Module) -> Apollo:
    return Apollo(parameter_groups(model, SETTINGS), SETTINGS)


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours.detach().view(torch.uint8), theirs.detach().view(torch.uint8))


def assert_same_state(one: Apollo, other: Apollo) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for index, held in ours["state"].items():
        for key, value in held.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs["state"][index][key]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_whose_loss_is_not_finite_is_skipped_as_if_it_were_not_there(dtype: torch.dtype) -> None:
    """Weights, moments and warm-up are those of a session without that lesson, bit for bit."""
    model, other = broken_model(dtype), broken_model(dtype)
    optimizer, other_optimizer = optimizer_of(model), optimizer_of(other)
    reports: list[StepReport] = []
    lessons = (lesson(0), lesson(1, broken=True), lesson(2))
    result = run_session(model, optimizer, lessons, (), SETTINGS, report=reports.append)
    assert [(report.taken, report.skipped) for report in reports] == [
        (True, None),
        (False, "loss is nan"),
        (True, None),
    ]
    assert (result.steps, result.skipped, result.gated) == (2, 1, 0)
    run_session(other, other_optimizer, (lessons[0], lessons[2]), (), SETTINGS)
    assert_same(model, other)
    assert_same_state(optimizer, other_optimizer)


def test_a_batch_with_one_such_example_is_skipped_whole() -> None:
    model, other = broken_model(), broken_model()
    settings = SETTINGS.model_copy(update={"batch_size": 2})
    lessons = (lesson(0), lesson(1), lesson(2), lesson(3, broken=True))
    result = run_session(model, optimizer_of(model), lessons, (), settings)
    assert (result.steps, result.skipped) == (1, 1)
    run_session(other, optimizer_of(other), lessons[:2], (), settings)
    assert_same(model, other)


def test_a_gradient_that_is_not_finite_is_skipped_as_if_it_were_not_there() -> None:
    model, other = tiny_model("qwen3"), tiny_model("qwen3")
    optimizer, other_optimizer = optimizer_of(model), optimizer_of(other)
    seen: list[int] = []

    def second_is_infinite(gradient: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return gradient * torch.inf if len(seen) == 2 else gradient

    weight = model.get_parameter("model.layers.2.mlp.up_proj.weight")
    weight.register_hook(second_is_infinite)  # type: ignore[no-untyped-call]
    reports: list[StepReport] = []
    lessons = tuple(lesson(seed) for seed in range(3))
    result = run_session(model, optimizer, lessons, (), SETTINGS, report=reports.append)
    assert reports[1].skipped in ("gradient norm is inf", "gradient norm is nan")
    assert (result.steps, result.skipped) == (2, 1)
    run_session(other, other_optimizer, (lessons[0], lessons[2]), (), SETTINGS)
    assert_same(model, other)
    assert_same_state(optimizer, other_optimizer)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_session_without_a_finite_step_diverged(dry_run: bool) -> None:
    model = broken_model()
    start, optimizer = copy.deepcopy(model), optimizer_of(model)
    with pytest.raises(TrainingDiverged, match=r"got none in 2 of 2 steps \(step 1: loss is nan\)"):
        lessons = (lesson(0, broken=True), lesson(1, broken=True))
        run_session(model, optimizer, lessons, (), SETTINGS, dry_run=dry_run)
    assert_same(model, start)
    assert not optimizer.state
    assert all(weight.grad is None for weight in model.parameters())


def test_gated_lessons_do_not_hide_that_the_others_diverged() -> None:
    model = broken_model()
    settings = SETTINGS.model_copy(update={"gate": 100.0})
    with pytest.raises(TrainingDiverged, match="got none in 1 of 1 steps"):
        run_session(model, optimizer_of(model), (lesson(0), lesson(1, broken=True)), (), settings)


def test_a_session_whose_weights_are_not_finite_in_the_end_diverged() -> None:
    model = tiny_model("qwen3")

    def break_it(_: StepReport) -> None:
        with torch.no_grad():
            model.get_input_embeddings().weight[1] = torch.inf  # type: ignore[operator]

    with pytest.raises(
        TrainingDiverged, match="example 0: expected a finite loss after the session, got nan"
    ):
        run_session(model, optimizer_of(model), (lesson(0),), (), SETTINGS, report=break_it)


class FailsAt:
    """Fails in the forward pass that is the `turn`-th with gradients."""

    def __init__(self, error: BaseException, turn: int) -> None:
        self.error, self.turn, self.passes = error, turn, 0

    def __call__(self, *_: Any) -> None:
        self.passes += torch.is_grad_enabled()
        if self.passes == self.turn:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no room on the device"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_comes_through_and_leaves_no_gradients(error: Exception) -> None:
    model = tiny_model("qwen3").train()
    model.get_submodule("model.layers.3").register_forward_hook(FailsAt(error, 3))
    settings = SETTINGS.model_copy(update={"batch_size": 2})
    with pytest.raises(type(error)) as caught:
        run_session(model, optimizer_of(model), [lesson(seed) for seed in range(4)], (), settings)
    assert caught.value is error
    assert all(weight.grad is None for weight in model.parameters())
    assert model.training


_REAL = """
import resource, torch
from training_models import random_ids, tiny_model
from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import Apollo, parameter_groups, run_session

model = tiny_model("qwen3", vocab_size=20_000, max_position_embeddings=8192)
settings = TrainingSettings(gate=None, replay=0.0)
optimizer = Apollo(parameter_groups(model, settings), settings)
short = Example((1, 2, 3), (4, 5))
long = Example((1, 2, 3), tuple(random_ids(6000).tolist()))  # its logits alone: 480 MB
run_session(model, optimizer, (short,), (), settings)
start = [weight.detach().clone() for weight in model.parameters()]
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 300 * 2**20,) * 2)
try:
    run_session(model, optimizer, (long,), (), settings)
except RuntimeError as error:
    assert "allocate memory" in str(error), error
else:
    raise SystemExit("there was room")
assert all(weight.grad is None for weight in model.parameters())
assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), start))
print(run_session(model, optimizer, (short,), (), settings).steps)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")
def test_a_real_lack_of_memory_leaves_a_process_that_goes_on(pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.rootpath / "tests" / "training"
    done = subprocess.run(
        [sys.executable, "-c", _REAL], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr
