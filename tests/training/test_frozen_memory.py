"""What a long context costs in memory, as the kernel counts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SHORT, _LONG, _CHUNK = 1024, 4096, 64
_CACHE_BYTES = 256  # of keys and values per token: 2 of each in 2 heads of 8 numbers, fp32


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="counts memory as Linux does")
@pytest.mark.parametrize("architecture", ["qwen3_5"])  # both kinds of layers
def test_in_chunks_memory_does_not_grow_with_the_activations_of_the_context(architecture: str) -> None:
    program = Path(__file__).with_name("measure_frozen_peak.py")
    readings = [f"{tokens}:{chunk}" for chunk in (_CHUNK, 0) for tokens in (_SHORT, _LONG)]
    # What is freed goes back to the kernel at once, so that one reading leaves nothing for the next to use.
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, str(program), architecture, *readings],
        env={**os.environ, **allocator, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    short, long, whole_short, whole_long = json.loads(done.stdout)
    cache_kib = (_LONG - _SHORT) * _CACHE_BYTES / 1024
    assert whole_long - whole_short > 40 * cache_kib  # activations are what grows
    assert long - short < 5 * cache_kib  # the cache, and passing copies and masks of its length
    assert long < whole_long / 10
