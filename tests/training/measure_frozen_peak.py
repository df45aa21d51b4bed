"""Prints what freezing contexts adds to the peak of resident memory, in KiB, as JSON. A process of its own:

python measure_frozen_peak.py ARCHITECTURE TOKENS:CHUNK ...    (CHUNK 0: the whole at once)
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from training_models import random_ids, tiny_model

from understudy.training import freeze_context


def status_kib(name: str) -> int:
    """A figure of this process as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def peak_kib(model: nn.Module, tokens: int, chunk: int) -> int:
    gc.collect()
    before = status_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the peak, is counted from here on
    frozen = freeze_context(model, random_ids(tokens)[None], chunk=chunk or None)
    assert frozen.length == tokens
    return status_kib("VmHWM") - before


def main() -> None:
    torch.set_num_threads(1)
    # An activation of a thousand tokens is 8 MiB, the keys and values of a thousand 128 KiB a layer.
    sizes: dict[str, Any] = {
        "intermediate_size": 2048,
        "num_hidden_layers": 2,
        "max_position_embeddings": 8192,
    }
    if sys.argv[1] == "qwen3_5":
        sizes["layer_types"] = ["linear_attention", "full_attention"]
    model = tiny_model(sys.argv[1], **sizes)
    freeze_context(model, random_ids(130)[None], chunk=64)  # loads what loads lazily
    readings = [tuple(map(int, reading.split(":"))) for reading in sys.argv[2:]]
    print(json.dumps([peak_kib(model, tokens, chunk) for tokens, chunk in readings]))


if __name__ == "__main__":
    main()
