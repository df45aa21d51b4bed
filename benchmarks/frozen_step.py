"""Frozen step against full backpropagation and against TRL's trainer: time and extra memory, in one run.

    OMP_NUM_THREADS=1 python benchmarks/frozen_step.py [--context 2048] [--continuation 128] [--repeats 3]
        [--size small] [--architectures qwen3] [--ways full frozen trl]

Random models of about 60 million parameters (`--size small`: 20). Every row is measured in processes of its
own. Time is the least of the repeats, in CPU seconds, for one gradient: no optimizer, no logging. Memory is
what the peak of resident memory adds to weights and gradients. "Needed logits" are the continuation's.

TRL: SFTTrainer with loss on the completion only, batch 1, on the same token ids, as its defaults are
(activations recomputed) and with activations kept; measured from its step's beginning to where its optimizer
would begin, inside its own loop.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig, Qwen3Config, Qwen3ForCausalLM

from understudy.training import (
    FrozenContext,
    checkpointed,
    continuation_log_probabilities,
    freeze_context,
)

SIBLINGS = 4
WAYS = {
    "full, all logits": "full_all",
    "full, needed logits": "full",
    "frozen": "frozen",
    "frozen, in chunks": "frozen_chunked",
    "frozen, in chunks, activations recomputed": "frozen_sparing",
    "TRL, its defaults": "trl",
    "TRL, activations kept": "trl_kept",
    f"{SIBLINGS} siblings, full": "full_siblings",
    f"{SIBLINGS} siblings, one frozen context": "frozen_siblings",
}
BASELINES = {"full, needed logits": "full", "TRL, its defaults": "trl", "TRL, activations kept": "trl_kept"}
ARCHITECTURES = {"qwen3": "Qwen3", "qwen3_5": "Qwen3.5"}
VOCABULARY = 8192
CHUNK = 256
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
SIZES = {
    "small": {
        "hidden_size": 448,
        "intermediate_size": 1216,
        "num_hidden_layers": 8,
        "num_attention_heads": 7,
    },
    "full": {
        "hidden_size": 640,
        "intermediate_size": 1728,
        "num_hidden_layers": 12,
        "num_attention_heads": 10,
    },
}


def build_model(architecture: str, size: str) -> nn.Module:
    torch.manual_seed(0)
    common = {
        "vocab_size": VOCABULARY,
        **SIZES[size],
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

    def frozen_chunked(self) -> None:
        self._frozen(freeze_context(self.model, self.context[None], chunk=CHUNK), self.continuations[0])

    def frozen_sparing(self) -> None:
        frozen = freeze_context(self.model, self.context[None], chunk=CHUNK)
        with checkpointed(self.model):
            loss = -continuation_log_probabilities(self.model, frozen, self.continuations[0]).mean()
        loss.backward()  # type: ignore[no-untyped-call]

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


class Gauge:
    """CPU seconds and the peak of resident memory between `start` and `stop`; the least and the most."""

    def __init__(self) -> None:
        self.seconds, self.mib = float("inf"), 0.0

    def start(self) -> None:
        gc.collect()
        self._before = memory_mib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the peak, is counted from here on
        self._started = time.process_time()

    def stop(self) -> None:
        self.seconds = min(self.seconds, time.process_time() - self._started)
        self.mib = max(self.mib, memory_mib("VmHWM") - self._before)


def memory_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def keep_gradients(model: nn.Module) -> None:
    """Gradients are there before, so that no row is charged for them."""
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)


def measure(model: nn.Module, way: str, context: int, continuation: int, repeats: int) -> dict[str, float]:
    """One row, in a process that does nothing else."""
    draw = torch.Generator().manual_seed(1)

    def ids(context_tokens: int, continuation_tokens: int) -> list[Tensor]:
        return [
            torch.randint(0, VOCABULARY, (tokens,), generator=draw)
            for tokens in (context_tokens, *[continuation_tokens] * SIBLINGS)
        ]

    gauge = Gauge()
    short, real = ids(8, 4), ids(context, continuation)
    if way.startswith("trl"):
        train_with_trl(model, [short, *[real] * repeats], gauge, keep_activations=way == "trl_kept")
    else:
        keep_gradients(model)
        getattr(Steps(model, short[0], short[1:]), way)()  # loads what loads lazily
        take: Callable[[], None] = getattr(Steps(model, real[0], real[1:]), way)
        for _ in range(repeats):
            gauge.start()
            take()
            gauge.stop()
    parameters = sum(weight.numel() for weight in model.parameters())
    return {"seconds": gauge.seconds, "mib": gauge.mib, "parameters": parameters}


def train_with_trl(
    model: nn.Module, examples: list[list[Tensor]], gauge: Gauge, *, keep_activations: bool
) -> None:
    """Let TRL's trainer take one step per example, in order; the first one is not measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from transformers import PreTrainedTokenizerFast, TrainerCallback
        from trl import SFTConfig, SFTTrainer

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            keep_gradients(model)
            if state.global_step:
                gauge.start()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step:
                gauge.stop()

    words = Tokenizer(WordLevel({"[END]": 0, "[UNK]": 1}, unk_token="[UNK]"))  # the ids are there already
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="[END]", pad_token="[END]", unk_token="[UNK]"
    )
    rows = {
        "input_ids": [torch.cat([context, answers[0]]).tolist() for context, *answers in examples],
        "completion_mask": [[0] * len(context) + [1] * len(answers[0]) for context, *answers in examples],
    }
    checkpointing = {"gradient_checkpointing": False} if keep_activations else {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=1,
            max_steps=len(examples),
            train_sampling_strategy="sequential",
            completion_only_loss=True,
            max_length=None,
            optim="sgd",
            max_grad_norm=0.0,
            bf16=False,
            use_cpu=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **checkpointing,
        )
        trainer = SFTTrainer(
            model,
            args=settings,
            train_dataset=datasets.Dataset.from_dict(rows),
            processing_class=tokenizer,
            callbacks=[Watch()],
        )
        trainer.train()


def measure_row(program: str, flags: list[str]) -> dict[str, float]:
    """Time from one process, memory from another, of one repeat, whose allocator gives back what is freed:
    otherwise fragments of earlier steps are counted, and giving back takes time."""
    timed, weighed = (
        json.loads(
            subprocess.run(
                [sys.executable, program, *flags, "--one", *more],
                env={**os.environ, **allocator},
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()[-1]
        )
        for more, allocator in (([], {}), (["--repeats=1"], GIVE_BACK))
    )
    return {**timed, "mib": weighed["mib"]}


def show(found: dict[tuple[str, str], dict[str, float]], architectures: list[str], ways: list[str]) -> None:
    """Markdown: one table of figures, and one of ratios for each row that others are compared with."""
    labels = {way: label for label, way in WAYS.items()}
    heads = [
        f"{ARCHITECTURES[name]} ({found[name, ways[0]]['parameters'] / 1e6:.0f} M)" for name in architectures
    ]
    print("| | " + " | ".join(f"{head}: seconds / extra MiB" for head in heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for way in ways:
        rows = [found[name, way] for name in architectures]
        cells = [f"{row['seconds']:.2f} / {row['mib']:.0f}" for row in rows]
        print("| " + " | ".join([labels[way], *cells]) + " |")
    for baseline, base_way in BASELINES.items():
        if base_way not in ways:
            continue
        print(f"\nOver *{baseline}*: time / extra memory\n")
        print("| | " + " | ".join(heads) + " |")
        print("|---" * (len(heads) + 1) + "|")
        for way in ways:
            pairs = [(found[name, way], found[name, base_way]) for name in architectures]
            cells = [
                f"{row['seconds'] / base['seconds']:.2f} / {row['mib'] / base['mib']:.2f}"
                for row, base in pairs
            ]
            print("| " + " | ".join([labels[way], *cells]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--continuation", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS.values()), default=list(WAYS.values()))
    parser.add_argument("--one", action="store_true", help="measure one row in this process, print JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (given.context, given.continuation, given.repeats)
    if given.one:
        model = build_model(given.architectures[0], given.size)
        print(json.dumps(measure(model, given.ways[0], *sizes)))
        return
    flags = [f"--context={sizes[0]}", f"--continuation={sizes[1]}", f"--repeats={sizes[2]}"]
    found = {}
    for architecture in given.architectures:
        for way in given.ways:
            row = ["--size", given.size, "--architectures", architecture, "--ways", way]
            found[architecture, way] = measure_row(__file__, [*flags, *row])
            print(architecture, way, found[architecture, way], file=sys.stderr)
    print(f"{sizes[0]} + {sizes[1]} tokens, one thread; chunks of {CHUNK}\n")
    show(found, given.architectures, given.ways)


if __name__ == "__main__":
    main()
