"""The checkpoint's tensors as windows on vLLM's parameters.

vLLM keeps what is multiplied with the same input in one parameter, row behind row (`qkv_proj`,
`gate_up_proj`, `in_proj_qkvz`, `in_proj_ba`), and pads embeddings with rows. Each model class says which
tensors it packs (`packed_modules_mapping`); how many rows each has, the checkpoint says.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch

from understudy.weights import WeightsMismatch, Window

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and element type of every tensor, by name."""

_PADDED = ("embed_tokens", "lm_head")
"""Modules whose rows are tokens: vLLM rounds their number up."""


def find_windows(
    parameters: Mapping[str, torch.Tensor], packed: Mapping[str, Sequence[str]], checkpoint: Layout
) -> dict[str, Window]:
    """Where each tensor of the checkpoint lies, by its name there.

    `parameters` are vLLM's, each once, `packed` is its model class's `packed_modules_mapping`. Every row of
    every parameter belongs to exactly one tensor, but the rows that pad embeddings. Raises WeightsMismatch,
    naming the first, when a parameter has no tensor, a tensor no parameter, or rows do not fit.
    """
    windows = dict(
        window
        for name, parameter in parameters.items()
        for window in _windows_of(name, parameter, packed, checkpoint)
    )
    unmapped = sorted(checkpoint.keys() - windows.keys())
    if unmapped:
        raise WeightsMismatch(
            f"expected a parameter of vLLM's for each of the checkpoint's {len(checkpoint)} tensors, found "
            f"none for {unmapped[0]} and {len(unmapped)} in all"
        )
    return windows


def _windows_of(
    name: str, parameter: torch.Tensor, packed: Mapping[str, Sequence[str]], checkpoint: Layout
) -> Iterator[tuple[str, Window]]:
    rows = 0
    for part in _parts(name, packed):
        if part not in checkpoint:
            raise WeightsMismatch(
                f"expected a tensor {part} in the checkpoint, for vLLM's parameter {name}; it has none"
            )
        shape, dtype = checkpoint[part]
        if shape[1:] != tuple(parameter.shape[1:]):
            raise WeightsMismatch(
                f"expected rows of shape {shape[1:]} for {part} in {name}, got {tuple(parameter.shape[1:])}"
            )
        yield part, Window(name, rows, shape, dtype)
        rows += shape[0]
    padded = name.split(".")[-2:-1] and name.split(".")[-2] in _PADDED
    if rows != parameter.shape[0] and not (padded and rows < parameter.shape[0]):
        raise WeightsMismatch(f"expected {rows} rows in {name}, as the checkpoint has, got {len(parameter)}")


def _parts(name: str, packed: Mapping[str, Sequence[str]]) -> list[str]:
    """What the checkpoint calls the parts of a parameter: `...qkv_proj.weight` is three."""
    path = name.split(".")
    module = path[-2] if len(path) > 1 else ""
    return [".".join([*path[:-2], part, path[-1]]) for part in packed.get(module, ())] or [name]
