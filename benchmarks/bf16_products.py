"""bf16 on a processor without bf16 products: widened layers against torch's own, of the pocket model.

`python benchmarks/bf16_products.py [--rounds 5]`

Ratios of seconds in one run, torch's own to widened, by turns: reading a batch, and a training step of it;
one token, which is left to torch. A processor that multiplies bf16 is said to, and nothing is measured there.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import AutoModelForCausalLM

from understudy.engine.products import has_bf16_products, widen_products
from understudy.pocket import checkpoint_directory

ROWS, TOKENS = 8, 64


def seconds(work: Callable[[], None]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print ratios."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"processor: {torch.backends.cpu.get_cpu_capability()}")
    if has_bf16_products():
        print("it multiplies bf16: layers are torch's own")
        return
    own, wide = (
        AutoModelForCausalLM.from_pretrained(checkpoint_directory(), dtype=torch.bfloat16) for _ in range(2)
    )
    widen_products(wide)
    torch.manual_seed(0)
    ids = torch.randint(0, own.config.vocab_size, (ROWS, TOKENS))

    def read(model: torch.nn.Module, tokens: torch.Tensor) -> None:
        with torch.inference_mode():
            model(tokens)

    def step(model: torch.nn.Module, tokens: torch.Tensor) -> None:
        model(tokens, labels=tokens).loss.backward()

    for name, work, tokens in (
        (f"read {ROWS} x {TOKENS} tokens", read, ids),
        (f"a step over {ROWS} x {TOKENS} tokens", step, ids),
        ("read one token", read, ids[:1, :1]),
    ):
        ratios = []
        for number in range(given.rounds + 1):
            times = [seconds(partial(work, model, tokens)) for model in (own, wide)]
            if number:  # the first one warms up
                ratios.append(times[0] / times[1])
        print(f"{name}: {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
