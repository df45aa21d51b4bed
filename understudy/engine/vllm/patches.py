"""Everything that changes vLLM from within, in one place, each with the versions it was proved on.

Applied once per process, before a model is built, in every process that vLLM starts.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from understudy.engine.directions import decoder_layers
from understudy.engine.vllm.packing import PackedMatrices, PackedMatrix

log = logging.getLogger(__name__)

PROVED = ("0.32.0",)
"""Versions of vLLM on which each of the patches below was tested (`make test-vllm`)."""


class UnprovedVersion(RuntimeError):
    """A version of vLLM whose inside nobody has compared with what the patches expect."""


def check_version(version: str) -> None:
    """Raises UnprovedVersion unless the patches were proved on this version, of whatever build."""
    if version.partition("+")[0] not in PROVED:
        raise UnprovedVersion(
            f"expected vLLM {' or '.join(PROVED)}, found {version}: Understudy changes vLLM from within and "
            "was not tested on this version; install one it was tested on"
        )


def keep_linear_weights(packed: PackedMatrices | None) -> None:
    """Have linear layers keep their `weight`. Processors only; proved on 0.32.0.

    vLLM packs weights for the processor's matrix units and gives the originals up, so whoever writes to
    the parameter afterwards writes to nothing. With `packed` the copies stay, and are listed there to be made
    again; without it, and where this processor has no such product of the weight's type, layers multiply
    with the weight as it is.
    """
    utils = import_module("vllm.model_executor.layers.utils")
    ops = import_module("vllm._custom_ops")

    def dispatch(layer: Any, remove_weight: bool) -> None:
        if layer.weight.ndim != 2:  # a convolution, see keep_convolution_weights
            return
        if packed is None or not _can_multiply(layer.weight.dtype):
            layer.cpu_linear = nn.functional.linear
            return
        matrix = PackedMatrix(layer.weight, lambda weight: ops.create_onednn_mm(weight, _SHAPES_CACHED))
        packed.add(matrix)
        handler = matrix.handler
        layer.cpu_linear = lambda x, weight, bias: ops.onednn_mm(handler, x, bias)

    _replace(utils, "dispatch_cpu_unquantized_gemm", dispatch)


_SHAPES_CACHED = 32
"""Kernels kept per matrix, one for each number of rows it was multiplied with: vLLM's own number."""


@cache
def _can_multiply(dtype: torch.dtype) -> bool:
    """Whether oneDNN has a product of this type on this processor; in bf16 it has none without AVX-512.

    vLLM asks only whether a handler can be made, and fails at the first product.
    """
    ops = import_module("vllm._custom_ops")
    if not ops._supports_onednn:
        return False
    ones = torch.ones(32, 32, dtype=dtype)
    try:
        ops.onednn_mm(ops.create_onednn_mm(ones, 1), ones, None)
    except RuntimeError as refused:
        log.warning("matrices in %s are multiplied by torch, which is slower: %s", dtype, refused)
        return False
    return True


def before_pass(follow: Callable[[], None]) -> None:
    """Have every worker call `follow` before each pass of the model. Proved on 0.32.0."""
    worker = import_module("vllm.v1.worker.gpu_worker").Worker
    execute = worker.execute_model

    def execute_model(self: Any, scheduler_output: Any) -> Any:
        follow()
        return execute(self, scheduler_output)

    _replace(worker, "execute_model", execute_model)


def keep_convolution_weights() -> None:
    """Have delta-rule layers convolve with their live weight. Processors only; proved on 0.32.0.

    vLLM packs it too, and its callers say that it is packed. A step of a single token is handed over in
    the column order that the kernel demands, which a view of one column does not have by itself.
    """
    attention = import_module("vllm.model_executor.layers.mamba.ops.cpu.gdn_attention")

    def unpacked(convolve: Callable[..., torch.Tensor], by_column: bool) -> Callable[..., torch.Tensor]:
        def call(
            *, x: torch.Tensor, weight: torch.Tensor, is_weight_packed: bool, **rest: Any
        ) -> torch.Tensor:
            if by_column and x.shape[-1] == 1:
                x = x.as_strided(x.shape, (1, x.shape[0]))
            flat = weight.view(weight.shape[0], weight.shape[-1])
            return convolve(x=x, weight=flat, is_weight_packed=False, **rest)

        return call

    for name, by_column in (("_causal_conv1d_fwd_cpu", True), ("_causal_conv1d_update_cpu", False)):
        _replace(attention, name, unpacked(getattr(attention, name), by_column))


KERNEL_HEADS = (64, 128)
"""Head sizes for which vLLM's processor kernel reads several tokens through a delta rule at once."""


def read_any_head_size() -> None:
    """Have delta rules of other head sizes read prompts too. Processors only; proved on 0.32.0.

    vLLM's kernel refuses them. They go through the reference implementation in transformers instead,
    sequence by sequence, and the states that it leaves behind are vLLM's.
    """
    ops = import_module("vllm._custom_ops")
    kernel = ops.chunk_gated_delta_rule_cpu

    def read(*, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **rest: Any) -> Any:
        if query.shape[-1] == value.shape[-1] and query.shape[-1] in KERNEL_HEADS:
            return kernel(query=query, key=key, value=value, **rest)
        return _read_by_reference(query, key, value, **rest)

    _replace(ops, "chunk_gated_delta_rule_cpu", read)


def _read_by_reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    g: torch.Tensor,
    beta: torch.Tensor,
    initial_state: torch.Tensor,
    initial_state_indices: torch.Tensor,
    cu_seqlens: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences in a row, (1, tokens, heads, size) each; states in place, (slots, heads, key, value size)."""
    from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule

    repeats = value.shape[2] // query.shape[2]
    query, key = (tensor.repeat_interleave(repeats, dim=2) for tensor in (query, key))
    answer = torch.empty_like(value)
    for slot, (start, end) in zip(initial_state_indices.tolist(), pairwise(cu_seqlens.tolist()), strict=True):
        span = slice(start, end)
        answer[:, span], state = torch_chunk_gated_delta_rule(
            query[:, span],
            key[:, span],
            value[:, span],
            g=g.view(1, -1, g.shape[-1])[:, span],
            beta=beta.view(1, -1, beta.shape[-1])[:, span],
            initial_state=initial_state[slot : slot + 1].float(),
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        initial_state[slot] = state[0]
    return answer, initial_state


def after_loading(share: Callable[[Any], None], before: Callable[[Any], None]) -> None:
    """Have every worker call `before` itself when it is to load the model and `share` when it has.

    That is before it profiles, compiles, or captures anything. Proved on 0.32.0.
    """
    worker = import_module("vllm.v1.worker.gpu_worker").Worker
    load = worker.load_model

    def load_model(self: Any, **options: Any) -> None:
        before(self)
        load(self, **options)
        share(self)

    _replace(worker, "load_model", load_model)


def salt_prefix_cache(current: Callable[[Any, Any], str]) -> None:
    """Have each request share cached prefixes only with requests that began with the same weights.

    `current` names the weights that a configuration's worker has now, and whatever else a request's prefixes
    depend on. Emptying the cache instead works only while nothing runs. Proved on 0.32.0.
    """
    core = import_module("vllm.v1.engine.core").EngineCore
    prepare = core.preprocess_add_request

    def preprocess_add_request(self: Any, request: Any) -> Any:
        request.cache_salt = f"{request.cache_salt or ''}|{current(self.vllm_config, request)}"
        return prepare(self, request)

    _replace(core, "preprocess_add_request", preprocess_add_request)


def tap_layers(
    model: Any, layers: Sequence[int], after: Callable[[torch.Tensor, torch.Tensor, int], None]
) -> None:
    """Have `after` called behind these decoder layers with (hidden, residual, layer); it may write to hidden.

    Through a custom op: hooks do not fire in compiled graphs. Once per process, after loading and before
    anything is compiled. Proved on 0.32.0.
    """
    from vllm.utils.torch_utils import direct_register_custom_op

    def understudy_tap(hidden: torch.Tensor, residual: torch.Tensor, layer: int) -> None:
        after(hidden, residual, layer)

    def understudy_tap_fake(hidden: torch.Tensor, residual: torch.Tensor, layer: int) -> None:
        return None

    direct_register_custom_op(
        "understudy_tap", understudy_tap, mutates_args=["hidden"], fake_impl=understudy_tap_fake
    )
    for layer in layers:
        _tap(decoder_layers(model)[layer], layer)


def _tap(module: nn.Module, layer: int) -> None:
    kind: Any = type(module)

    def forward(self: Any, *given: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, residual = kind.forward(self, *given, **named)
        torch.ops.vllm.understudy_tap(hidden, residual, layer)
        return hidden, residual

    module.__class__ = type(f"Tapped{kind.__name__}", (kind,), {"forward": forward})


def add_worker_method(name: str, method: Callable[..., Any]) -> None:
    """A method that `collective_rpc` reaches on every worker. Proved on 0.32.0."""
    base = import_module("vllm.v1.worker.worker_base").WorkerBase
    if hasattr(base, name):
        raise UnprovedVersion(f"expected no method {name!r} on vLLM's workers, found one")
    setattr(base, name, method)


def _replace(holder: Any, name: str, value: Any) -> None:
    if not hasattr(holder, name):
        raise UnprovedVersion(f"expected {name} in vLLM's {holder.__name__}, found none")
    setattr(holder, name, value)
