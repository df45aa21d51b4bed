"""Products of bf16 matrices on processors that have no instruction for them: in fp32, rounded at the end.

torch multiplies such matrices there number by number, which takes many times as long as widening both
factors (benchmarks/bf16_products.py). It adds up in fp32 as well, so results differ by the order of
summation alone.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_CACHED = 2**20
"""Up to so many weights the wide copy stays in the processor's cache, and two rows are worth it."""
_ROWS = 16
"""Rows that are worth a wide copy of a matrix of any size."""


@cache
def has_bf16_products() -> bool:
    """Whether oneDNN multiplies bf16 on this processor: torch asks the same before it calls it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def widen_products(model: Any) -> Any:
    """Have the model's linear layers multiply in fp32 where the processor cannot in bf16; returns the model.

    Parameters, their names and their type stay as they are.
    """
    if not has_bf16_products():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = WideLinear
    return model


class WideLinear(nn.Linear):
    """A linear layer that multiplies bf16 in fp32 where that is faster: several rows at once, no GPU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name for it)
        """Input [..., in features], answer [..., out features], of the weight's type."""
        weight = self.weight
        rows = input.numel() // max(1, input.shape[-1])
        if (
            input.dtype == weight.dtype == torch.bfloat16
            and weight.device.type == "cpu"
            and rows >= (2 if weight.numel() <= _CACHED else _ROWS)
        ):
            answer: Tensor = _WideProduct.apply(input, weight, self.bias)  # type: ignore[no-untyped-call]
            return answer
        return super().forward(input)


class _WideProduct(torch.autograd.Function):
    """x W' + b with products in fp32; what is kept for the gradient stays narrow."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(given, weight)
        added = None if bias is None else bias.float()
        return nn.functional.linear(given.float(), weight.float(), added).to(given.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        given, weight = ctx.saved_tensors
        wide = gradients[0].float()
        rows = wide.flatten(0, -2)
        to_given, to_weight, to_bias = ctx.needs_input_grad
        return (
            (wide @ weight.float()).to(given.dtype) if to_given else None,
            (rows.T @ given.float().flatten(0, -2)).to(weight.dtype) if to_weight else None,
            rows.sum(0).to(weight.dtype) if to_bias else None,
        )
