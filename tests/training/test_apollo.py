"""APOLLO against a float64 reading of the paper, and the traps that stall or break an optimizer."""

import copy
import io
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import understudy.training.apollo as apollo_module
from understudy.config import ApolloSettings
from understudy.training import Apollo, UnsupportedParameter, draw_projection, parameter_groups

WIDE, TALL, SQUARE = (6, 17), (17, 6), (9, 9)


def gradients(shape: tuple[int, ...], steps: int, seed: int = 5) -> list[Tensor]:
    """A drifting direction plus noise, of changing size, in float64."""
    draw = torch.Generator().manual_seed(seed)
    direction = torch.randn(shape, generator=draw, dtype=torch.float64)
    result = []
    for step in range(steps):
        direction += 0.1 * torch.randn(shape, generator=draw, dtype=torch.float64)
        noise = torch.randn(shape, generator=draw, dtype=torch.float64)
        result.append((direction + noise) * (1 + 0.9 * math.sin(step / 7)) * 0.01)
    return result


def read_the_paper(start: Tensor, grads: list[Tensor], settings: ApolloSettings, index: int = 0) -> Tensor:
    """Algorithm 1 of arXiv 2412.05270, one channel at a time, in float64; a tall matrix is transposed."""
    beta1, beta2 = settings.betas
    weight = start.double().clone()
    tall = weight.shape[0] > weight.shape[1]
    if tall:
        weight = weight.T.clone()
    m, n = weight.shape
    rank = min(settings.rank, m)
    alpha = math.sqrt(m / rank) if settings.scale is None else settings.scale
    first = torch.zeros(rank, n, dtype=torch.float64)
    second = torch.zeros(rank, n, dtype=torch.float64)
    size_before = None
    for t, raw in enumerate(grads):
        gradient = (raw.T if tall else raw).double()
        renewal = t // settings.proj_refresh
        projection = draw_projection(
            rank, m, seed=settings.seed, parameter=index, renewal=renewal, device=torch.device("cpu")
        ).double()
        low = projection @ gradient
        first = beta1 * first + (1 - beta1) * low
        second = beta2 * second + (1 - beta2) * low**2
        corrected_first = first / (1 - beta1 ** (t + 1))
        corrected_second = second / (1 - beta2 ** (t + 1))
        normalized = corrected_first / (corrected_second.sqrt() + settings.eps)
        scaled = torch.empty_like(gradient)
        for j in range(n):
            if settings.rank == 1:
                ratio = normalized.pow(2).sum().sqrt() / low.pow(2).sum().sqrt()
            else:
                ratio = normalized[:, j].pow(2).sum().sqrt() / low[:, j].pow(2).sum().sqrt()
            scaled[:, j] = alpha * gradient[:, j] * ratio
        size = scaled.pow(2).sum().sqrt().item()
        limit = settings.norm_growth_limit
        if limit is not None and size_before is not None and size / size_before > limit:
            scaled = scaled / size * limit * size_before
            size = limit * size_before
        size_before = size
        warm = min(1.0, (t + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
        weight = weight - warm * settings.lr * scaled - warm * settings.lr * settings.weight_decay * weight
    return weight.T if tall else weight


def train(weight: nn.Parameter, grads: list[Tensor], optimizer: Apollo) -> None:
    for gradient in grads:
        weight.grad = gradient.to(weight.dtype)
        optimizer.step()


def moved(weight: Tensor, start: Tensor, expected: Tensor) -> float:
    """The worst error of a weight, relative to the largest movement."""
    error = (weight.detach().double() - expected).abs().max() / (expected - start.double()).abs().max()
    return float(error)


@pytest.mark.parametrize("shape", [WIDE, TALL, SQUARE])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"scale": 1.0, "norm_growth_limit": None},
        {"weight_decay": 0.1, "warmup_steps": 20, "betas": (0.8, 0.95), "seed": 3},
    ],
)
def test_follows_the_paper_over_two_renewals(
    shape: tuple[int, int], rank: int, change: dict[str, Any]
) -> None:
    settings = ApolloSettings(lr=1e-3, rank=rank, proj_refresh=100, **change)
    start = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    grads = gradients(shape, 300)
    expected = read_the_paper(start, grads, settings)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-11)):
        weight = nn.Parameter(start.to(dtype, copy=True))
        rounded = [gradient.to(dtype).double() for gradient in grads]
        train(weight, rounded, Apollo([weight], settings))
        reference = expected if dtype == torch.float64 else read_the_paper(start, rounded, settings)
        assert moved(weight, start, reference) < tolerance


def test_rank_is_clamped_to_the_smaller_dimension() -> None:
    settings = ApolloSettings(rank=64)
    start = 0.02 * torch.randn(WIDE, generator=torch.Generator().manual_seed(1))
    weight = nn.Parameter(start.clone())
    optimizer = Apollo([weight], settings)
    grads = gradients(WIDE, 20)
    train(weight, grads, optimizer)
    assert optimizer.state[weight]["first_moment"].shape == WIDE
    assert moved(weight, start, read_the_paper(start, grads, settings)) < 1e-5


def test_projections_have_variance_one_over_rank_and_are_all_different() -> None:
    def draw(seed: int, parameter: int, renewal: int) -> Tensor:
        device = torch.device("cpu")
        return draw_projection(16, 2000, seed=seed, parameter=parameter, renewal=renewal, device=device)

    one = draw(0, 0, 0)
    assert one.mean().item() == pytest.approx(0, abs=5 * 0.25 / math.sqrt(one.numel()))
    assert one.var().item() == pytest.approx(1 / 16, rel=0.03)
    assert torch.equal(one, draw(0, 0, 0))
    for other in (draw(1, 0, 0), draw(0, 1, 0), draw(0, 0, 1)):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()) < 0.03


def test_what_is_not_a_projection_takes_the_step_of_torch_adamw() -> None:
    settings = ApolloSettings(lr=1e-2, weight_decay=0.1)
    shapes = [(7,), (3, 5), (4, 1, 3)]
    draw = torch.Generator().manual_seed(2)
    ours = [nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    optimizer = Apollo([{"params": ours, "projected": False}], settings)
    reference = torch.optim.AdamW(
        theirs, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=0.1, fused=True
    )
    for _ in range(10):
        for our, their in zip(ours, theirs, strict=True):
            our.grad = torch.randn(our.shape, generator=draw)
            their.grad = our.grad.clone()
        optimizer.step()
        reference.step()
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our, their)


def test_vectors_and_convolutions_in_a_projected_group_are_not_projected() -> None:
    vector, convolution = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(4, 1, 3))
    optimizer = Apollo([vector, convolution])
    for weight in (vector, convolution):
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert optimizer.state[vector]["first_moment"].shape == (5,)
    assert optimizer.state[convolution]["first_moment"].shape == (4, 1, 3)
    assert bool((vector < 1).all()) and bool((convolution < 1).all())


@pytest.mark.parametrize("rank", [1, 4])
def test_zero_gradients_move_nothing_and_stall_nothing(rank: int) -> None:
    settings = ApolloSettings(lr=1e-3, rank=rank)
    start = torch.randn(WIDE)
    weight, control = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer, undisturbed = Apollo([weight], settings), Apollo([control], settings)
    zero = torch.zeros(WIDE, dtype=torch.float64)
    grads = gradients(WIDE, 20)
    train(weight, [zero], optimizer)  # as the very first gradient
    assert torch.equal(weight, start)
    train(weight, grads[:10], optimizer)
    between = weight.detach().clone()
    train(weight, [zero], optimizer)
    assert torch.equal(weight, between)
    train(weight, grads[10:], optimizer)
    train(control, grads, undisturbed)
    movement = (weight - between).norm() / (control - start).norm()
    assert 0.2 < movement.item() < 2
    assert bool(weight.isfinite().all())


def test_a_channel_without_gradient_stays_while_others_move() -> None:
    weight = nn.Parameter(torch.ones(WIDE))
    optimizer = Apollo([weight], ApolloSettings(rank=4))
    weight.grad = torch.ones(WIDE)
    weight.grad[:, 3] = 0
    optimizer.step()
    assert bool((weight[:, 3] == 1).all())
    assert bool((weight[:, :3] != 1).all())


def test_a_parameter_without_gradient_is_left_alone() -> None:
    idle, busy = nn.Parameter(torch.ones(WIDE)), nn.Parameter(torch.ones(WIDE))
    optimizer = Apollo([idle, busy])
    busy.grad = torch.ones(WIDE)
    optimizer.step()
    assert torch.equal(idle, torch.ones(WIDE)) and idle not in optimizer.state
    assert not torch.equal(busy, torch.ones(WIDE))


def test_growth_of_the_update_is_limited() -> None:
    settings = ApolloSettings(lr=1.0, rank=1, norm_growth_limit=1.01, betas=(0.0, 0.0))
    weight = nn.Parameter(torch.zeros(WIDE))
    optimizer = Apollo([weight], settings)
    sizes = []
    for gradient in gradients(WIDE, 30):
        before = weight.detach().clone()
        train(weight, [gradient], optimizer)
        sizes.append((weight - before).norm().item())
    growth = [after / before for before, after in pairwise(sizes)]
    assert max(growth) < 1.01 + 1e-4
    assert max(growth) > 1.005  # the limit was reached


def small_model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 8)).to(dtype)


def run(model: nn.Module, optimizer: Apollo, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randint(0, 11, (16,))).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 4])
def test_state_saves_and_continues_bit_for_bit(dtype: torch.dtype, rank: int) -> None:
    settings = ApolloSettings(rank=rank, proj_refresh=7, warmup_steps=15)
    whole = small_model(dtype)
    optimizer = Apollo(parameter_groups(whole, settings), settings)
    run(whole, optimizer, range(10))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    resumed = copy.deepcopy(whole)
    run(whole, optimizer, range(10, 25))

    file.seek(0)
    continued = Apollo(parameter_groups(resumed, settings), settings)
    continued.load_state_dict(torch.load(file, weights_only=True))
    run(resumed, continued, range(10, 25))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
        ours, theirs = optimizer.state[one], continued.state[other]
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(theirs[key]))
            assert not isinstance(ours[key], Tensor) or ours[key].dtype == torch.float32


def test_loading_copies_the_saved_tensors() -> None:
    model = small_model(torch.bfloat16)
    optimizer = Apollo(parameter_groups(model, ApolloSettings()))
    run(model, optimizer, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(saved["state"])
    optimizer.load_state_dict(saved)
    run(model, optimizer, range(2, 4))
    for index, state in before.items():
        assert torch.equal(state["first_moment"], saved["state"][index]["first_moment"])


@pytest.mark.parametrize("projected", [True, False])
def test_bfloat16_weights_move_as_far_as_intended(projected: bool) -> None:
    settings = ApolloSettings(lr=1e-6, rank=1, norm_growth_limit=None)
    shape = (2048, 2048)  # so many, since one weight realises its step with a deviation of about ten steps
    draw = torch.Generator().manual_seed(4)
    start = (torch.randn(shape, generator=draw) * 0.02).bfloat16()
    gradient = torch.randn(shape, generator=draw).bfloat16()
    exact, weight = nn.Parameter(start.double()), nn.Parameter(start.clone())
    for target in (exact, weight):
        target.grad = gradient.to(target.dtype)
        Apollo([{"params": [target], "projected": projected}], settings).step()
    intended = exact.detach() - start.double()
    stochastic = weight.detach().double() - start.double()
    nearest = exact.detach().to(torch.bfloat16).double() - start.double()

    def realised(movement: Tensor) -> float:
        return float((movement * intended).sum() / intended.square().sum())

    assert realised(stochastic) == pytest.approx(1.00, abs=0.02)
    assert realised(nearest) < 0.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rank", [1, 4])
def test_working_on_matrices_together_changes_nothing(
    dtype: torch.dtype, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ApolloSettings(lr=1e-2, rank=rank, proj_refresh=3)
    together, alone = small_model(dtype), small_model(dtype)
    run(together, Apollo(parameter_groups(together, settings), settings), range(8))
    monkeypatch.setattr(apollo_module, "_BATCH", 1)
    run(alone, Apollo(parameter_groups(alone, settings), settings), range(8))
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_matrices_of_several_dtypes_keep_their_own() -> None:
    draw = torch.Generator().manual_seed(1)
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.bfloat16, torch.float32)
    weights = [nn.Parameter(torch.ones(WIDE, dtype=dtype)) for dtype in dtypes]
    optimizer = Apollo(weights, ApolloSettings(rank=4))
    for weight in weights:
        weight.grad = torch.randn(WIDE, generator=draw).to(weight.dtype)
    optimizer.step()
    for weight, dtype in zip(weights, dtypes, strict=True):
        wanted = torch.float32 if dtype == torch.bfloat16 else dtype
        assert weight.dtype == dtype and bool((weight != 1).any())
        assert optimizer.state[weight]["second_moment"].dtype == wanted


@pytest.mark.parametrize("shape", [(96, 400), (400, 96)])
@pytest.mark.parametrize("rank", [1, 64])
def test_bfloat16_gradients_give_the_step_of_the_paper(shape: tuple[int, int], rank: int) -> None:
    """Up to the rounding of weights and of projected gradients, which the mean over a channel hardly sees."""
    settings = ApolloSettings(lr=1e-2, rank=rank)
    weight = nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16))
    grads = [gradient.bfloat16().double() for gradient in gradients(shape, 3)]
    train(weight, grads, Apollo([weight], settings))
    expected = read_the_paper(torch.zeros(shape), grads, settings)
    found = weight.detach().double()
    across = 0 if shape[0] < shape[1] else 1
    ratios = (found * expected).sum(across) / expected.square().sum(across)
    assert (ratios - 1).abs().max() < 0.02
    assert ((found - expected).norm() / expected.norm()).item() < 0.01


def test_weights_are_written_in_place() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = small_model(dtype)
        addresses = [weight.data_ptr() for weight in model.parameters()]
        mapped = [weight.detach() for weight in model.parameters()]
        before = [weight.clone() for weight in mapped]
        run(model, Apollo(parameter_groups(model, ApolloSettings(lr=1e-2))), range(2))
        assert [weight.data_ptr() for weight in model.parameters()] == addresses
        assert all(not torch.equal(now, then) for now, then in zip(mapped, before, strict=True))


def test_groups_can_be_added_later() -> None:
    first, second = nn.Parameter(torch.ones(WIDE)), nn.Parameter(torch.ones(TALL))
    settings = ApolloSettings(rank=4, proj_refresh=10)
    optimizer = Apollo([first], settings)
    train(first, gradients(WIDE, 5), optimizer)
    first.grad = None
    optimizer.add_param_group({"params": [second], "lr": 1e-2})
    grads = gradients(TALL, 20)
    train(second, grads, optimizer)
    own = settings.model_copy(update={"lr": 1e-2})
    expected = read_the_paper(torch.ones(TALL), grads, own, index=1)
    assert moved(second, torch.ones(TALL), expected) < 1e-5


@pytest.mark.parametrize(
    ("rank", "bytes_per_parameter"),
    [(1, 8 * 640 * 1 / (640 * 640)), (64, 8 * 640 * 64 / (640 * 640))],
)
def test_state_is_small(rank: int, bytes_per_parameter: float) -> None:
    weight = nn.Parameter(torch.ones(640, 640, dtype=torch.bfloat16))
    optimizer = Apollo([weight], ApolloSettings(rank=rank))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    held = sum(
        value.numel() * value.element_size() if isinstance(value, Tensor) else 8
        for value in optimizer.state[weight].values()
    )
    assert held / weight.numel() == pytest.approx(bytes_per_parameter, rel=0.01)


def test_what_it_cannot_update_is_refused() -> None:
    with pytest.raises(UnsupportedParameter, match="float16"):
        Apollo([nn.Parameter(torch.ones(3, 3, dtype=torch.float16))])
    sparse = nn.Parameter(torch.ones(3, 3))
    optimizer = Apollo([sparse])
    sparse.grad = torch.eye(3).to_sparse()
    with pytest.raises(UnsupportedParameter, match="dense gradient"):
        optimizer.step()


def test_a_closure_is_evaluated_with_gradients() -> None:
    weight = nn.Parameter(torch.ones(WIDE))
    optimizer = Apollo([weight])

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    assert optimizer.step(closure) == WIDE[0] * WIDE[1]
    assert bool((weight < 1).all())


sides = st.integers(2, 12)
ranks = st.sampled_from([1, 3])


def take(start: Tensor, grads: list[Tensor], settings: ApolloSettings) -> Tensor:
    weight = nn.Parameter(start.clone())
    train(weight, grads, Apollo([weight], settings))
    return weight.detach() - start


@given(sides, sides, ranks, st.integers(0, 1000))
def test_a_transposed_matrix_takes_the_transposed_step(rows: int, columns: int, rank: int, seed: int) -> None:
    if rows == columns:
        columns += 1  # the channels of a square matrix are its columns, whichever way it lies
    settings = ApolloSettings(rank=rank, seed=seed)
    start = torch.zeros(rows, columns, dtype=torch.float64)
    grads = gradients((rows, columns), 3, seed)
    one = take(start, grads, settings)
    other = take(start.T.contiguous(), [gradient.T.contiguous() for gradient in grads], settings)
    assert torch.allclose(one, other.T, rtol=1e-9, atol=1e-15)


@given(sides, sides, ranks, st.floats(1e-3, 1e6), st.integers(0, 1000))
def test_the_size_of_the_gradient_does_not_matter(
    rows: int, columns: int, rank: int, factor: float, seed: int
) -> None:
    settings = ApolloSettings(rank=rank, eps=1e-30, seed=seed)
    start = torch.zeros(rows, columns, dtype=torch.float64)
    grads = gradients((rows, columns), 3, seed)
    one = take(start, grads, settings)
    other = take(start, [gradient * factor for gradient in grads], settings)
    assert torch.allclose(one, other, rtol=1e-6)


@given(sides, sides, st.integers(0, 1000))
def test_tensor_wise_steps_keep_the_direction_of_the_gradient(rows: int, columns: int, seed: int) -> None:
    start = torch.zeros(rows, columns, dtype=torch.float64)
    (gradient,) = gradients((rows, columns), 1, seed)
    step = take(start, [gradient], ApolloSettings(rank=1, seed=seed))
    cosine = (step * -gradient).sum() / step.norm() / gradient.norm()
    assert cosine.item() == pytest.approx(1.0)
