"""APOLLO: Adam-like steps at nearly the memory of SGD.

Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv 2412.05270. Written from the paper's
Algorithm 1. The gradient keeps its direction; only its size is set per channel (or per tensor) as Adam
would, and that size is read off Adam moments of a small random projection of the gradient.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from understudy.config import ApolloSettings
from understudy.training.projection import (
    ProjectedMatrix,
    channel_norms,
    draw_projection,
    project,
    scale_channels,
    seeded_generator,
)
from understudy.training.rounding import round_stochastic_

_Indexed = tuple[int, Tensor]
"""A weight and its place among all of the optimizer's."""

_GATES = frozenset({"in_proj_a", "in_proj_b", "in_proj_ba", "gate", "shared_expert_gate", "router"})
"""Linear layers with one output per head or per expert: too narrow for a projection to mean anything."""

_BATCH = 2**22
"""Entries that are worked on together: enough to spread the cost of a call, few enough for their copies in
fp32 to stay in a processor's cache."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


class UnsupportedParameter(ValueError):
    """A parameter or gradient that APOLLO cannot update."""


def parameter_groups(model: nn.Module, settings: ApolloSettings) -> list[dict[str, Any]]:
    """The model's trainable parameters as two groups, each parameter once.

    Projected: the 2-D weights of linear layers. Not projected, and given AdamW: embeddings and the output
    head (tied or not), norms, biases, convolutions, gates with one output per head, everything that is
    not 2-D. Names are kept in `param_names`. Raises ValueError when nothing is trainable.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        embeddings.add(id(head.weight))
    matrices = {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] not in _GATES
    } - embeddings
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if not named:
        raise ValueError("expected a model with trainable parameters, found none: call requires_grad_(True)")
    hyperparameters = _hyperparameters(settings)
    groups = []
    for projected in (True, False):
        chosen = [(name, weight) for name, weight in named if (id(weight) in matrices) is projected]
        if chosen:
            names, weights = (list(column) for column in zip(*chosen, strict=True))
            groups.append(
                {"params": weights, "param_names": names, "projected": projected, **hyperparameters}
            )
    return groups


class Apollo(torch.optim.Optimizer):
    """The optimizer of arXiv 2412.05270, Algorithm 1, for weights that other processes may be reading.

    For a weight W whose smaller dimension has n entries, with gradient G (a channel is a vector of n):

        P ~ N(0, 1/r), r x n, drawn anew every `proj_refresh` steps
        R = P G
        M, V = Adam moments of R, bias corrected;   R~ = M / (sqrt(V) + eps)
        s_j = |R~_j| / |R_j| for each channel j     (rank > 1)
        s   = |R~| / |R|     for the whole tensor   (rank 1: APOLLO-Mini)
        U = alpha G diag(s)                         (alpha = `scale`, by default sqrt(n / r))
        U = U min(1, gamma |U_before| / |U|)        (norm-growth limiter, gamma = `norm_growth_limit`)
        W = W - lr U - lr weight_decay W

    P acts on the smaller dimension of tall and wide matrices alike, and r never exceeds it. alpha undoes
    the shrinking of the norms: R~ has r entries of Adam's size per channel where the full gradient has n.
    P is regenerated from (seed, parameter, renewal) at every step and never stored. A gradient of zero
    moves nothing and leaves the limiter's memory alone.

    A parameter that is not 2-D, or whose group says `projected: False`, takes PyTorch's fused AdamW.
    Moments of bf16 weights are fp32, and their new values are rounded stochastically. Weights are written
    in place. The random bits of a step are a function of (seed, parameter, step), so the state that
    `state_dict` returns (tensors and plain numbers) continues bit for bit. Nothing in `step` waits for
    the device. `warmup_steps` counts the steps of each group, linearly from lr / warmup_steps.

    Groups may override every setting. Raises UnsupportedParameter for a dtype it cannot update and for a
    sparse gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        settings: ApolloSettings | None = None,
    ) -> None:
        defaults = _hyperparameters(settings or ApolloSettings())
        super().__init__(params, {**defaults, "projected": True, "steps": 0})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; their moments, renewals and warm-up start from nothing."""
        super().add_param_group(param_group)
        for weight in self.param_groups[-1]["params"]:
            if weight.dtype not in _DTYPES:
                self.param_groups.pop()
                raise UnsupportedParameter(
                    f"expected float32, bfloat16 or float64 parameters, got {weight.dtype} of shape "
                    f"{tuple(weight.shape)}: convert the model or leave it out"
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; hyperparameters are the saved ones, as in every torch optimizer.

        Torch casts floating state to the parameter's dtype, and Adam moments in bf16 never decay: the
        saved tensors are therefore put back in the precision they were saved in.
        """
        super().load_state_dict(state_dict)
        saved_ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for saved_id, weight in zip(saved_ids, self._weights(), strict=True):
            for key, value in state_dict["state"].get(saved_id, {}).items():
                if isinstance(value, Tensor):
                    self.state[weight][key] = value.detach().to(weight.device, copy=True)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step with the gradients that are there; parameters without one are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        index = 0
        for group in self.param_groups:
            group["steps"] += 1
            warmup: int = group["warmup_steps"]
            lr = group["lr"] * min(1.0, group["steps"] / warmup if warmup else 1.0)
            projected: list[_Indexed] = []
            rest: list[_Indexed] = []
            for weight in group["params"]:
                if weight.grad is not None:
                    if weight.grad.layout != torch.strided:
                        raise UnsupportedParameter(f"expected a dense gradient, got {weight.grad.layout}")
                    (projected if group["projected"] and weight.ndim == 2 else rest).append((index, weight))
                index += 1
            for batch in _batches(projected):
                self._step_projected(batch, group, lr)
            for batch in _batches(rest):
                self._step_adamw(batch, group, lr)
        return loss

    def _step_projected(self, batch: Sequence[_Indexed], group: dict[str, Any], lr: float) -> None:
        """One step of Algorithm 1 on matrices of one dtype."""
        matrices = [self._project(index, weight, group) for index, weight in batch]
        factors = scale_channels(matrices, group)
        for (index, weight), matrix, factor in zip(batch, matrices, factors, strict=True):
            target = weight.to(matrix.gradient.dtype)  # the parameter itself, unless it is bf16
            if group["weight_decay"]:
                target.mul_(1 - lr * group["weight_decay"])
            target.addcmul_(matrix.gradient, factor, value=-lr)
            if target is not weight:
                _write_rounded(weight, target, index, group, matrix.state["step"])

    def _project(self, index: int, weight: Tensor, group: dict[str, Any]) -> ProjectedMatrix:
        """The matrix's gradient, seen through its projection, and its state, which begins with zeros."""
        state, exact = self.state[weight], _moment_dtype(weight)
        rows, columns = weight.shape
        wide, size = rows <= columns, min(rows, columns)
        rank = min(group["rank"], size)
        if not state:
            shape = (rank, columns) if wide else (rows, rank)
            state["step"] = 0
            state["first_moment"] = torch.zeros(shape, dtype=exact, device=weight.device)
            state["second_moment"] = torch.zeros(shape, dtype=exact, device=weight.device)
            state["update_norm"] = torch.zeros((), dtype=exact, device=weight.device)
        renewal = state["step"] // group["proj_refresh"]
        state["step"] += 1
        assert weight.grad is not None
        projection = draw_projection(
            rank, size, seed=group["seed"], parameter=index, renewal=renewal, device=weight.device
        )
        across = None if group["rank"] == 1 else (0 if wide else 1)
        gradient = weight.grad.to(exact)
        # The norms come first: their pass brings the gradient into the cache faster than the product's would.
        norms = None if group["norm_growth_limit"] is None else channel_norms(gradient, across)
        low = project(weight.grad, gradient, projection, wide=wide)
        return ProjectedMatrix(gradient, norms, low, state, across, group["scale"] or math.sqrt(size / rank))

    def _step_adamw(self, batch: Sequence[_Indexed], group: dict[str, Any], lr: float) -> None:
        """Fused AdamW (Loshchilov and Hutter, arXiv 1711.05101) for what is not projected."""
        targets, gradients, states = [], [], []
        for _, weight in batch:
            state, exact = self.state[weight], _moment_dtype(weight)
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
                state["count"] = 0  # the same number where reading it costs no wait for the device
                for moment in ("first_moment", "second_moment"):
                    state[moment] = torch.zeros_like(weight, dtype=exact)
            state["count"] += 1
            assert weight.grad is not None
            targets.append(weight.to(exact))
            gradients.append(weight.grad.to(exact))
            states.append(state)
        _adamw(targets, gradients, states, group, lr)
        for (index, weight), target, state in zip(batch, targets, states, strict=True):
            if target is not weight:
                _write_rounded(weight, target, index, group, state["count"])

    def _weights(self) -> Iterable[Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)


def _batches(chosen: Sequence[_Indexed]) -> Iterator[Sequence[_Indexed]]:
    """Weights of one device and dtype, as many as have few enough entries to be worked on together."""
    batch: list[_Indexed] = []
    entries = 0
    for index, weight in chosen:
        kind = weight.device, weight.dtype
        if batch and (entries + weight.numel() > _BATCH or kind != (batch[0][1].device, batch[0][1].dtype)):
            yield batch
            batch, entries = [], 0
        batch.append((index, weight))
        entries += weight.numel()
    if batch:
        yield batch


def _write_rounded(weight: Tensor, value: Tensor, index: int, group: dict[str, Any], step: int) -> None:
    round_stochastic_(weight, value, seeded_generator(weight.device, group["seed"], index, "rounding", step))


def _hyperparameters(settings: ApolloSettings) -> dict[str, Any]:
    return settings.model_dump(include=set(ApolloSettings.model_fields))


def _moment_dtype(weight: Tensor) -> torch.dtype:
    return torch.float32 if weight.dtype == torch.bfloat16 else weight.dtype


def _adamw(
    weights: list[Tensor],
    gradients: list[Tensor],
    states: list[dict[str, Any]],
    group: dict[str, Any],
    lr: float,
) -> None:
    beta1, beta2 = group["betas"]
    adamw(
        weights,
        gradients,
        [state["first_moment"] for state in states],
        [state["second_moment"] for state in states],
        [],
        [state["step"] for state in states],
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=lr,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
