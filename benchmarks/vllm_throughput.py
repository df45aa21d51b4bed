"""Tokens per second of vLLM with the plugin over those of vLLM without it: ratios of one run.

    .venv-vllm/bin/python benchmarks/vllm_throughput.py [--dtype float32] [--size small] [--compiled]

Real servers stand side by side, the ones that are not asked stopped: vLLM alone, vLLM with the plugin, and
vLLM with the plugin and directions loaded, once asked for nothing of them and once for the readouts of every
token (100 concepts, 2 layers). In each round every arm answers the same prompts, in another order each
round; a round gives each arm's ratio to vLLM alone, and the median is reported with the quartiles.
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import torch
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig, Qwen3Config, Qwen3ForCausalLM

from understudy.engine import Directions, ReadoutManifest, load_tokenizer, write_miniature
from understudy.server.vllm_launch import base_url, vllm_command, vllm_environment
from understudy.workspace import Workspace

SIZES = {"small": (128, 4, 384), "large": (768, 12, 2304)}
"""Hidden size, layers, and the width of the MLP."""
HEAD = 64
VOCABULARY = 8192
CONCEPTS = 100
PROMPT_TOKENS = 64
ANSWER_TOKENS = 64
START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Arm:
    """A server, and what is asked of it beside an answer."""

    name: str
    url: str
    process: "subprocess.Popen[bytes]"
    extra: Mapping[str, Any]


def write_model(folder: Path, family: str, size: str, dtype: torch.dtype) -> Path:
    """A random model whose heads are as wide as vLLM's kernels want them."""
    write_miniature(folder, "qwen3")  # for its tokenizer
    hidden, layers, wide = SIZES[size]
    tokenizer = load_tokenizer(folder)
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // HEAD,
        "num_key_value_heads": hidden // HEAD,
        "head_dim": HEAD,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(0)
    model: Any = (
        Qwen3ForCausalLM(Qwen3Config(**common)) if family == "qwen3" else Qwen3_5ForCausalLM(_hybrid(common))
    )
    model.to(dtype).save_pretrained(folder)
    print(f"{family}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {dtype}")
    return folder


def _hybrid(common: dict[str, Any]) -> Qwen3_5TextConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    heads = common["num_attention_heads"]
    return Qwen3_5TextConfig(
        linear_key_head_dim=HEAD,
        linear_value_head_dim=HEAD,
        linear_num_key_heads=heads,
        linear_num_value_heads=heads,
        rope_parameters={**rope, "mrope_section": [6, 5, 5]},
        **common,
    )


def write_directions(folder: Path, size: str) -> None:
    hidden, layers, _ = SIZES[size]
    read = [layers // 2, layers - 1]
    draw = torch.Generator().manual_seed(0)
    manifest = ReadoutManifest(
        concepts=[f"concept{n}" for n in range(CONCEPTS)], layers=read, hidden_size=hidden, dtype="float32"
    )
    Directions(manifest, {n: torch.randn(CONCEPTS, hidden, generator=draw) for n in read}).save(folder)


@contextmanager
def served(
    root: Path, model: Path, dtype: str, flags: Sequence[str], *, plugin: bool, readout: bool
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """vLLM on a copy of the model, started as `understudy serve` starts it, with the plugin or without."""
    settings = "[training]\non_approval = false\n"
    workspace = Workspace.create(root, model=model, copy_model=True, replay=[], settings=settings)
    file = root / "understudy.toml"
    read = '\nreadout = "directions"' if readout else ""
    file.write_text(file.read_text().replace('path = "model"', f'path = "model"\ndtype = "{dtype}"{read}'))
    workspace = Workspace.open(root, server={"port": 0})
    command = vllm_command(workspace, root / "model", dtype, ["--max-model-len", "512", *flags])
    environment = vllm_environment(os.environ, workspace)
    if not plugin:
        environment["VLLM_PLUGINS"] = "none"
    with (root / "vllm.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url, until = base_url(command), time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"vLLM did not start:\n{(root / 'vllm.log').read_text()[-3000:]}")
            time.sleep(0.5)
        yield url, process
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5.0).is_success
    except httpx2.HTTPError:
        return False


async def ask(arm: Arm, prompts: Sequence[Sequence[int]], clients: int) -> float:
    """Tokens per second of `clients` that each ask one prompt after another."""
    waiting = iter(prompts)

    async def one(http: httpx2.AsyncClient) -> None:
        for prompt in waiting:
            body = {"model": "understudy", "prompt": list(prompt), "max_tokens": ANSWER_TOKENS}
            body |= {"ignore_eos": True, "temperature": 0, **arm.extra}
            answer = (await http.post(f"{arm.url}/v1/completions", json=body)).raise_for_status().json()
            assert answer["usage"]["completion_tokens"] == ANSWER_TOKENS
            if arm.extra:
                assert len(answer["choices"][0]["readout"]) == ANSWER_TOKENS

    began = time.perf_counter()
    async with httpx2.AsyncClient(timeout=None) as http:
        await asyncio.gather(*(one(http) for _ in range(clients)))
    return len(prompts) * ANSWER_TOKENS / (time.perf_counter() - began)


def measure(arms: Sequence[Arm], rounds: int, requests: int, clients: int) -> dict[str, list[float]]:
    """Tokens per second of each arm in each round; everybody else is stopped meanwhile."""
    draw = random.Random(0)
    found: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for number in range(rounds + 1):
        prompts = [[draw.randrange(300, VOCABULARY) for _ in range(PROMPT_TOKENS)] for _ in range(requests)]
        for arm in draw.sample(list(arms), len(arms)):
            os.killpg(arm.process.pid, signal.SIGCONT)
            speed = asyncio.run(ask(arm, prompts, clients))
            os.killpg(arm.process.pid, signal.SIGSTOP)
            if number > 0:  # the first warms up
                found[arm.name].append(speed)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", choices=("qwen3", "qwen3_5"), default="qwen3")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--compiled", action="store_true")
    given = parser.parse_args()
    flags = [] if given.compiled else ["--enforce-eager"]
    readout = {"vllm_xargs": {"readout": "answer"}}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        root = Path(folder)
        model = write_model(root / "model", given.family, given.size, getattr(torch, given.dtype))
        write_directions(root / "read" / "directions", given.size)
        arms = []
        for name, plugin, read in (("alone", False, False), ("plugin", True, False), ("read", True, True)):
            url, process = running.enter_context(
                served(root / name, model, given.dtype, flags, plugin=plugin, readout=read)
            )
            arms.append(Arm(name, url, process, {}))
            if read:
                arms.append(Arm("readouts", url, process, readout))
            os.killpg(process.pid, signal.SIGSTOP)
        found = measure(arms, given.rounds, given.requests, given.clients)
    labels = {
        "alone": "vLLM",
        "plugin": "with the plugin",
        "read": "... and directions loaded, not asked for",
        "readouts": f"... and readouts of {CONCEPTS} concepts, 2 layers, each token",
    }
    for name, speeds in found.items():
        ratios = [speed / other for speed, other in zip(speeds, found["alone"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        speed = statistics.median(speeds)
        print(f"{labels[name]:55} {speed:8.1f} tokens/s   {middle:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
