"""A model without parameters of its own, for a process that maps those of another."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

from understudy.engine.loading import Dtype, read_config, resolve_dtype
from understudy.engine.products import widen_products


def skeleton(directory: Path, dtype: Dtype = "checkpoint") -> Any:
    """The modules and buffers of the directory's model; parameters are allocated but never written.

    Untouched pages take no memory, so binding the result to shared weights makes no second copy.
    Buffers (rotary frequencies) are computed as on a full load. Using it before binding gives noise.
    """
    config = read_config(directory)
    # Written against transformers 5.23: this also skips tying, which is therefore done here.
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            config, dtype=resolve_dtype(directory, config, dtype), trust_remote_code=False
        )
    model.tie_weights()
    return widen_products(model.eval())
