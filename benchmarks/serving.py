"""Tokens per second of the server, alone and while the trainer writes the same weights: a ratio of one run.

    python benchmarks/serving.py [--model DIRECTORY] [--clients 4] [--tokens 128] [--rounds 5]

Clients stream completions over HTTP. Rounds without and with training alternate; each pair gives a ratio,
and the median is reported. Per CPU second (of the server's process, clients included) tells what serving
itself costs; per second also shows what the trainer's process takes from a machine with few cores.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from understudy.config import ModelSettings, ServerSettings, TrainingSettings
from understudy.engine import EmbeddedEngine, encode_chat, encode_lesson, locate_model
from understudy.lessons import ChatMessage
from understudy.server import create_app, new_token, serving
from understudy.training import RunSession, Stepped, TrainerHandle, TrainingFailed

POCKET = Path(__file__).parent.parent / "understudy" / "pocket" / "checkpoint"
QUESTION = (ChatMessage("user", "Please put the red cup on the table by the window."),)
ENDLESS_EPOCHS = 1_000_000


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of all clients gave."""

    tokens: int
    seconds: float
    cpu_seconds: float
    training_steps: int = 0

    @property
    def per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.tokens / self.cpu_seconds


async def serve_clients(url: str, prompt: tuple[int, ...], clients: int, tokens: int) -> Round:
    """Every client streams one completion; tokens are counted by the server's own usage."""

    async def one(client: httpx2.AsyncClient, seed: int) -> int:
        body = {
            "model": "understudy",
            "prompt": [list(prompt)],
            "max_tokens": tokens,
            "ignore_eos": True,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
            lines = [line async for line in answer.aiter_lines()]
        usage = next(line for line in reversed(lines) if '"usage"' in line)
        return int(usage.partition('"completion_tokens":')[2].partition(",")[0])

    started, cpu_started = time.perf_counter(), time.process_time()
    async with httpx2.AsyncClient(timeout=None) as client:
        counts = await asyncio.gather(*(one(client, seed) for seed in range(clients)))
    return Round(sum(counts), time.perf_counter() - started, time.process_time() - cpu_started)


@asynccontextmanager
async def training(trainer: TrainerHandle, request: RunSession) -> AsyncIterator[list[Stepped]]:
    """A session that steps as long as the block runs, and is then undone; yields its steps so far."""
    steps: list[Stepped] = []
    stepping = asyncio.Event()

    def stepped(step: Stepped) -> None:
        steps.append(step)
        stepping.set()

    running = asyncio.create_task(trainer.run(request, stepped))
    waiting = asyncio.create_task(stepping.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        waiting.cancel()
        running.result()
    try:
        yield steps
    finally:
        await trainer.cancel(request.session)
        try:
            await running
        except TrainingFailed:
            steps.clear()  # it was cancelled, as it should be


async def compare(engine: EmbeddedEngine, url: str, given: argparse.Namespace) -> list[tuple[Round, Round]]:
    """Alternating rounds without and with training."""
    trainer = TrainerHandle(
        engine.shared.manifest, engine.directory, log_file=engine.directory.parent / "trainer.log"
    )
    lesson = encode_lesson(engine.tokenizer, QUESTION, "I put the red cup on the table.")
    prompt = encode_chat(engine.tokenizer, QUESTION)
    settings = TrainingSettings(lr=1e-6, gate=None, replay=0.0, epochs=ENDLESS_EPOCHS)
    pairs: list[tuple[Round, Round]] = []
    await trainer.start()
    try:
        await serve_clients(url, prompt, given.clients, given.tokens)  # warm
        for number in range(given.rounds):
            alone = await serve_clients(url, prompt, given.clients, given.tokens)
            request = RunSession(
                f"benchmark-{number}",
                (lesson,),
                (),
                settings.model_dump(mode="json"),
                "Benchmark",
                "benchmark",
            )
            async with training(trainer, request) as steps:
                before = len(steps)
                taught = await serve_clients(url, prompt, given.clients, given.tokens)
                taught = Round(taught.tokens, taught.seconds, taught.cpu_seconds, len(steps) - before)
            pairs.append((alone, taught))
    finally:
        await trainer.close()
    return pairs


def report(pairs: list[tuple[Round, Round]]) -> None:
    """One Markdown table."""
    print("| | alone | while training | kept |\n|---|---|---|---|")
    readings: dict[str, Callable[[Round], float]] = {
        "tokens per second": lambda one: one.per_second,
        "tokens per CPU second": lambda one: one.per_cpu_second,
    }
    for name, read in readings.items():
        alone = statistics.median(read(one) for one, _ in pairs)
        taught = statistics.median(read(other) for _, other in pairs)
        kept = statistics.median(read(other) / read(one) for one, other in pairs)
        print(f"| {name} | {alone:.0f} | {taught:.0f} | {kept:.2f} |")
    steps = sum(other.training_steps for _, other in pairs) / sum(other.seconds for _, other in pairs)
    print(f"\n{len(pairs)} pairs of rounds; {steps:.1f} training steps per second meanwhile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=POCKET)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        # A copy: training writes its history into the model's directory.
        directory = Path(shutil.copytree(locate_model(given.model), Path(scratch) / "model"))
        with EmbeddedEngine(ModelSettings(), directory) as engine:
            app = create_app(engine, ServerSettings(), new_token())
            with serving(app) as url:
                report(asyncio.run(compare(engine, url, given)))


if __name__ == "__main__":
    main()
