"""Products in bf16 that are made in fp32: the same numbers, gradients and second gradients as torch's own."""

import pytest
import torch
from torch import Tensor, nn

from understudy.engine import products
from understudy.engine.products import WideLinear, widen_products

SHAPES = [((2, 24), 8), ((3, 5, 24), 8), ((1, 17, 24), 40)]


@pytest.fixture(autouse=True)
def without_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has no products in bf16, whatever this one has."""
    monkeypatch.setattr(products, "has_bf16_products", lambda: False)


def layers(inside: int, outside: int, *, bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    """torch's own and a widened one of the same weights."""
    torch.manual_seed(0)
    own = nn.Linear(inside, outside, bias=bias, dtype=torch.bfloat16)
    other = nn.Linear(inside, outside, bias=bias, dtype=torch.bfloat16)
    other.load_state_dict(own.state_dict())
    return own, widen_products(nn.Sequential(other))[0]


def gradients(layer: nn.Linear, given: Tensor) -> list[Tensor]:
    """Of the answer, to the input and the parameters, and to those again."""
    given = given.clone().requires_grad_()
    wanted = [given, *layer.parameters()]
    answer = layer(given)
    first = torch.autograd.grad((answer.float() ** 3).sum(), wanted, create_graph=True)
    second = torch.autograd.grad(torch.stack([(one.float() ** 2).sum() for one in first]).sum(), wanted)
    return [one.detach() for one in (answer, *first, *second)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "outside"), SHAPES)
def test_answers_and_gradients_are_torchs_own(shape: tuple[int, ...], outside: int, bias: bool) -> None:
    own, wide = layers(shape[-1], outside, bias=bias)
    assert type(own) is nn.Linear and type(wide) is WideLinear
    given = torch.randn(shape, dtype=torch.bfloat16)
    for ours, theirs in zip(gradients(wide, given), gradients(own, given), strict=True):
        assert ours.dtype == theirs.dtype == torch.bfloat16 and ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=2**-6, atol=2**-6 * float(theirs.abs().max()))


def test_frozen_parameters_get_no_gradient() -> None:
    _, wide = layers(8, 4)
    wide.weight.requires_grad_(False)
    wide(torch.randn(3, 8, dtype=torch.bfloat16)).float().sum().backward()
    assert wide.weight.grad is None and wide.bias.grad is not None


def test_one_row_and_other_types_are_left_to_torch() -> None:
    own, wide = layers(24, 8)
    row = torch.randn(1, 24, dtype=torch.bfloat16)
    assert torch.equal(wide(row), own(row)) and wide(row[0]).shape == (8,)
    assert wide(torch.empty(0, 24, dtype=torch.bfloat16)).shape == (0, 8)
    given = torch.randn(5, 24)
    assert torch.equal(wide.float()(given), own.float()(given))


def test_where_the_processor_multiplies_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "has_bf16_products", lambda: True)
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.bfloat16))
    assert type(widen_products(model)[0]) is nn.Linear
