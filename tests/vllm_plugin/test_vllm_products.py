"""Types of weights that oneDNN cannot multiply on this processor are multiplied by torch."""

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from understudy.engine.vllm.packing import PackedMatrices
from understudy.engine.vllm.patches import keep_linear_weights


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> PackedMatrices:
    """The patch, undone after the test."""
    pytest.importorskip("vllm")
    import_module("vllm.platforms").current_platform.import_kernels()
    utils = import_module("vllm.model_executor.layers.utils")
    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", utils.dispatch_cpu_unquantized_gemm)
    packed = PackedMatrices()
    keep_linear_weights(packed)
    return packed


@pytest.mark.parametrize(
    ("dtype", "copies"), [(torch.float32, 1), (torch.float64, 0)], ids=["a kernel", "no kernel"]
)
def test_a_layer_multiplies_by_its_live_weight(
    packed: PackedMatrices, dtype: torch.dtype, copies: int
) -> None:
    utils = import_module("vllm.model_executor.layers.utils")
    layer: Any = nn.Linear(64, 32, bias=False, dtype=dtype)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    assert len(packed._matrices) == copies
    asked = torch.randn(3, 64, dtype=dtype)
    for generation in (1, 2):
        with torch.no_grad():
            layer.weight.mul_(-2)
            packed.follow(generation, training=False)
            said = layer.cpu_linear(asked, layer.weight, None)
            torch.testing.assert_close(said, asked @ layer.weight.T)
