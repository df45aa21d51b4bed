"""Tokens per second with readouts of every token over those without: a ratio of one run.

    python benchmarks/readout_overhead.py [--rounds 15] [--tokens 48] [--dtype bfloat16]

The embedded engine gives several answers to one prompt side by side: one that is not read, one that is (100
random concepts, 4 layers), and two whose readouts are also counted for the metrics and written as JSON, as
the server does for a stream, raw and as z-scores. They take turns token by token, so that whatever else the
machine does meets all of them. A round gives each one's ratio, per second and per CPU second (which others on
the machine do not take from); the medians are reported with the quartiles. On a random Qwen3 of about 100 M
parameters, and on the pocket model.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from understudy.config import ModelSettings
from understudy.engine import (
    Directions,
    EmbeddedEngine,
    GenerationRequest,
    GenerationStep,
    ReadoutManifest,
    ReadoutStatistics,
    Sampling,
    load_tokenizer,
    write_miniature,
)
from understudy.pocket import checkpoint_directory
from understudy.server.metrics import ReadoutTotals
from understudy.server.readouts import AnswerReadouts, Scale

CONCEPTS = 100
LAYERS = 4
PROMPT_TOKENS = 64
HIDDEN, DEPTH, WIDE, HEAD, VOCABULARY = 768, 12, 2304, 64, 8192


def write_model(folder: Path, dtype: torch.dtype) -> Path:
    """A random Qwen3 of about 100 M parameters."""
    write_miniature(folder, "qwen3")  # for its tokenizer
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=WIDE,
        num_hidden_layers=DEPTH,
        num_attention_heads=HIDDEN // HEAD,
        num_key_value_heads=HIDDEN // HEAD,
        head_dim=HEAD,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen3ForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


def write_directions(folder: Path, model: Path) -> Path:
    """Random directions behind the model's last layers, with statistics."""
    config = json.loads((model / "config.json").read_text())
    config = config.get("text_config", config)
    hidden, depth = config["hidden_size"], config["num_hidden_layers"]
    layers = list(range(depth - LAYERS, depth))
    table = [[1.0] * CONCEPTS] * LAYERS
    manifest = ReadoutManifest(
        concepts=[f"concept{n}" for n in range(CONCEPTS)],
        layers=layers,
        hidden_size=hidden,
        dtype="float32",
        statistics=ReadoutStatistics(mean=table, deviation=table, norms=table, tokens=1),
    )
    Directions(manifest, {n: torch.randn(CONCEPTS, hidden) for n in layers}).save(folder)
    return folder


def read(engine: EmbeddedEngine, request: GenerationRequest) -> Iterator[GenerationStep]:
    """An answer that is read, and no more."""
    for step in engine.generate(replace(request, readout="answer")):
        assert len(step.readout[0]) == LAYERS and len(step.readout[0][0]) == CONCEPTS
        yield step


def told(engine: EmbeddedEngine, request: GenerationRequest, scale: Scale) -> Iterator[GenerationStep]:
    """An answer that is read, counted, and written as the server writes it."""
    readouts = AnswerReadouts(engine.directions, scale, "token", ReadoutTotals(engine).count)
    for step in read(engine, request):
        msgspec.json.encode(readouts.tell(step.row, step))
        yield step


class Took(NamedTuple):
    """What an answer took, without its first token."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


def race(answers: Sequence[Iterator[GenerationStep]]) -> list[Took]:
    """What each answer took: they take turns, in another order each time."""
    took = [Took()] * len(answers)
    for answer in answers:
        next(answer)
    for turn in itertools.count():
        for place in [(turn + n) % len(answers) for n in range(len(answers))]:
            began, cpu_began = time.perf_counter(), time.thread_time()
            if next(answers[place], None) is None:
                return took
            seconds, cpu_seconds = time.perf_counter() - began, time.thread_time() - cpu_began
            took[place] = Took(took[place].seconds + seconds, took[place].cpu_seconds + cpu_seconds)
    raise AssertionError("answers end")


def measure(engine: EmbeddedEngine, rounds: int, tokens: int) -> dict[str, list[Took]]:
    """What each arm took, round by round; the first is not read."""
    draw = torch.Generator().manual_seed(0)
    sampling = Sampling(max_tokens=tokens + 1, temperature=0.0, ignore_eos=True)
    found: dict[str, list[Took]] = {}
    for number in range(rounds + 1):
        prompt = torch.randint(100, engine.vocabulary, (PROMPT_TOKENS,), generator=draw).tolist()
        request = GenerationRequest((tuple(prompt),), sampling)
        arms = {
            "not read": engine.generate(request),
            "read": read(engine, request),
            "... and streamed, raw": told(engine, request, "raw"),
            "... and streamed, z-scores": told(engine, request, "z"),
        }
        for name, took in zip(arms, race(list(arms.values())), strict=True):
            if number > 0:  # the first warms up
                found.setdefault(name, []).append(took)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return found


def report(model: str, found: dict[str, list[Took]], tokens: int) -> None:
    """Rows of one Markdown table."""
    alone = found.pop("not read")
    print(f"| {model} | not read | {tokens / statistics.median(one.seconds for one in alone):.0f} | 1 | 1 |")
    for name, took in found.items():
        speed = tokens / statistics.median(one.seconds for one in took)
        ratios = []
        for clock in (0, 1):
            each = [before[clock] / one[clock] for before, one in zip(alone, took, strict=True)]
            low, middle, high = statistics.quantiles(each, n=4)
            ratios.append(f"{middle:.3f} [{low:.3f}, {high:.3f}]")
        print(f"| | {name} | {speed:.0f} | {ratios[0]} | {ratios[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    print("| model | | tokens per second | ratio | ratio per CPU second |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        large = write_model(Path(folder) / "large", getattr(torch, given.dtype))
        models: dict[str, Any] = {f"98 M, {given.dtype}": large, "pocket": checkpoint_directory()}
        for number, (name, model) in enumerate(models.items()):
            directions = write_directions(Path(folder) / f"directions{number}", model)
            with EmbeddedEngine(ModelSettings(), model, readout=directions) as engine:
                report(name, measure(engine, given.rounds, given.tokens), given.tokens)


if __name__ == "__main__":
    main()
