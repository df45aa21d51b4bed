"""Frozen step against full backpropagation: time and extra memory, as ratios of one run.

    OMP_NUM_THREADS=1 python benchmarks/frozen_step.py [--context 512] [--continuation 64] [--repeats 3]

Random models of about 20 million parameters. Every row is a process of its own, since the peak of resident
memory never falls within one. Time is the least of the repeats, in CPU seconds; memory is what the step's
peak adds to weights and gradients. "Needed logits" are those of the continuation; a stock trainer
computes all.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig, Qwen3Config, Qwen3ForCausalLM

from understudy.training import FrozenContext, continuation_log_probabilities, freeze_context

SIBLINGS = 4
WAYS = {
    "full, all logits": "full_all",
    "full, needed logits": "full",
    "frozen": "frozen",
    f"{SIBLINGS} siblings, full": "full_siblings",
    f"{SIBLINGS} siblings, one frozen context": "frozen_siblings",
}
BASELINE = "full"
VOCABULARY = 8192


def build_model(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 448,
        "intermediate_size": 1216,
        "num_hidden_layers": 8,
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }
    model: nn.Module
    if architecture == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**common))
    else:
        linear = {
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 8,
            "linear_key_head_dim": 64,
            "linear_value_head_dim": 64,
        }
        model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**common, **linear))
    return model.eval()


class Steps:
    """The ways to get the gradient of one or several continuations of one context."""

    def __init__(self, model: nn.Module, context: Tensor, continuations: list[Tensor]) -> None:
        self.model, self.context, self.continuations = model, context, continuations

    def full_all(self) -> None:
        self._full(self.continuations[0], keep=0)

    def full(self) -> None:
        self._full(self.continuations[0], keep=len(self.continuations[0]))

    def frozen(self) -> None:
        self._frozen(freeze_context(self.model, self.context[None]), self.continuations[0])

    def full_siblings(self) -> None:
        for continuation in self.continuations:
            self._full(continuation, keep=len(continuation))

    def frozen_siblings(self) -> None:
        frozen = freeze_context(self.model, self.context[None])
        for continuation in self.continuations:
            self._frozen(frozen, continuation)

    def _full(self, continuation: Tensor, keep: int) -> None:
        ids = torch.cat([self.context, continuation])[None, :-1]
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0]
        nn.functional.cross_entropy(logits[-len(continuation) :], continuation).backward()  # type: ignore[no-untyped-call]

    def _frozen(self, frozen: FrozenContext, continuation: Tensor) -> None:
        (-continuation_log_probabilities(self.model, frozen, continuation).mean()).backward()  # type: ignore[no-untyped-call]


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(architecture: str, way: str, context: int, continuation: int, repeats: int) -> dict[str, float]:
    """Run in a process that does nothing else."""
    model = build_model(architecture)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    draw = torch.Generator().manual_seed(1)

    def steps(context_tokens: int, continuation_tokens: int) -> Callable[[], None]:
        ids = [
            torch.randint(0, VOCABULARY, (tokens,), generator=draw)
            for tokens in (context_tokens, *[continuation_tokens] * SIBLINGS)
        ]
        made: Callable[[], None] = getattr(Steps(model, ids[0], ids[1:]), way)
        return made

    steps(8, 4)()  # loads what loads lazily
    take = steps(context, continuation)
    gc.collect()
    before, seconds = resident_mib(), float("inf")
    for _ in range(repeats):
        started = time.process_time()
        take()
        seconds = min(seconds, time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds,
        "mib": peak - before,
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--continuation", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("ARCHITECTURE", "WAY"), help="measure one row, print JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (given.context, given.continuation, given.repeats)
    if given.one:
        architecture, way = given.one
        print(json.dumps(measure(architecture, way, *sizes)))
        return
    flags = [f"--context={sizes[0]}", f"--continuation={sizes[1]}", f"--repeats={sizes[2]}"]
    found = {
        (architecture, way): json.loads(
            subprocess.run(
                [sys.executable, __file__, *flags, "--one", architecture, way],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for architecture in ("qwen3", "qwen3_5")
        for way in WAYS.values()
    }
    heads = [
        f"{name} ({found[name.lower().replace('.', '_'), BASELINE]['parameters'] / 1e6:.0f} M)"
        for name in ("Qwen3", "Qwen3.5")
    ]
    print(f"{sizes[0]} + {sizes[1]} tokens, one thread; time 1.00 = full, needed logits\n")
    print("| | " + " | ".join(f"{head}: time / seconds / extra MiB" for head in heads) + " |")
    print("|---|---|---|")
    for label, way in WAYS.items():
        cells = [label]
        for architecture in ("qwen3", "qwen3_5"):
            row, base = found[architecture, way], found[architecture, BASELINE]
            cells.append(f"{row['seconds'] / base['seconds']:.2f} / {row['seconds']:.2f} / {row['mib']:.0f}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
