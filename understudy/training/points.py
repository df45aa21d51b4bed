"""A point to go back to: the weights and the optimizer of one moment, bit for bit."""

import copy
from typing import Any

import torch
from torch import Tensor


class Point:
    """A copy of an optimizer's weights and state; costs their size in memory.

    Weights are put back in place: another process may be reading them.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._weights = [torch.empty_like(weight) for weight in _weights(optimizer)]
        self._state: list[dict[str, Any] | None] = []
        self._groups: list[dict[str, Any]] = []
        self.keep()

    @torch.no_grad()
    def keep(self) -> None:
        """This moment is the point now."""
        weights = _weights(self._optimizer)
        for kept, weight in zip(self._weights, weights, strict=True):
            kept.copy_(weight)
        state = self._optimizer.state
        self._state = [_copied(state[weight]) if weight in state else None for weight in weights]
        self._groups = [
            copy.deepcopy({key: value for key, value in group.items() if key != "params"})
            for group in self._optimizer.param_groups
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Weights and optimizer as they were at the point."""
        state = self._optimizer.state
        for weight, kept, held in zip(_weights(self._optimizer), self._weights, self._state, strict=True):
            weight.copy_(kept)
            state.pop(weight, None)
            if held is not None:
                state[weight] = _copied(held)
        for group, settings in zip(self._optimizer.param_groups, self._groups, strict=True):
            group.update(copy.deepcopy(settings))


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for key, value in state.items()
    }
