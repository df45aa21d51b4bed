"""Activation checkpointing: memory for activations, bought with a second forward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174. Transformers' own drops the
cache, and with it a frozen context. Here the cache stays: a frozen one gives the same to the second pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """While the block runs, each decoder layer keeps its input alone for the backward pass, which may come
    later and computes the layer again: gradients are the same to the bit.

    Only for passes over a frozen context or without a cache, since each layer reads it twice.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own again
