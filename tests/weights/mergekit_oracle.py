"""mergekit, as an independent judge of what a recipe gives."""

import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file


def merge_with_mergekit(recipe: dict[str, Any], output: Path, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """What mergekit makes of a recipe, by tensor name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies warn about their own
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        config = MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(recipe)))
        options = MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False, random_seed=seed)
        run_merge(config, str(output), options)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(output.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors
