"""Prototype a behaviour by steering, then train it: what a direction promises, and what lessons of it keep.

    python benchmarks/prototype_then_train.py [--lessons 10] [--draws 0 1 2]

The behaviour is listening: a clear direction is acted on at once. Its direction is made of messages of people
who insist, against the same people who only repeat themselves; strengths are chosen on the development
split. Steered answers to directions of the train split become lessons where a judge, in a person's stead,
approves of them (they act on the thing that was named). What is reported is of the test split: the model
as it is, steered, trained on lessons of steered answers, and trained on people's own lessons. Prints a
Markdown table.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from understudy.behaviours import Behaviour, Measurement, Rate, measure
from understudy.concepts import Corpus, Pooling, Recipe, Text, extract
from understudy.config import ModelSettings
from understudy.engine import EmbeddedEngine, GenerationRequest, Sampling, Steer, encode_chat, load_model
from understudy.lessons import ChatMessage
from understudy.pocket import behaviours, checkpoint_directory, judges, lessons, new_workspace, words
from understudy.watching import Laboratory

SHOWN = (
    "accepts",
    "accepts_the_right_thing",
    "pushes_back",
    "accepts_harm",
    "asks_back",
    "answers_questions",
)
PAIRS = 60
LAYERS = ("0", "1", "0,1", "1,2", "2")
STRENGTHS = ("0.5x", "0.7x", "1x", "1.4x", "2x", "2.8x", "4x")
GREEDY = Sampling(max_tokens=40, temperature=0.0)

Prompt = tuple[ChatMessage, ...]
Answer = Callable[[Sequence[Prompt]], list[str]]


@dataclass(frozen=True)
class Bench:
    """The steered engine, and which behaviours are measured."""

    engine: EmbeddedEngine

    def answer(self, prompts: Sequence[Prompt], steering: tuple[Steer, ...] = ()) -> list[str]:
        """One answer to each prompt, greedy."""
        encoded = tuple(encode_chat(self.engine.tokenizer, prompt) for prompt in prompts)
        return [
            completion.text
            for start in range(0, len(encoded), 64)
            for completion in self.engine.complete(
                GenerationRequest(encoded[start : start + 64], GREEDY, steering=steering)
            )
        ]

    def measure(self, split: Sequence[Behaviour], steering: tuple[Steer, ...] = ()) -> dict[str, Measurement]:
        """What the model does under a steering."""
        return measure(split, lambda prompts: self.answer(prompts, steering))


def insisting(draw: int, answer: Answer) -> Corpus:
    """Pairs: a person insists on a direction after the model's suggestion, or says it once more."""
    random, texts = Random(f"insisting {draw}"), []
    taught = lessons(draw, PAIRS)
    for number, (lesson, suggested) in enumerate(
        zip(taught, answer([one.prompt for one in taught]), strict=True)
    ):
        context = (*lesson.prompt, ChatMessage("assistant", suggested))
        insists = random.choice(words.requests().direction.insistences).format(x=lesson.thing)
        repeats = lesson.prompt[-1].content.split(": ", 1)[-1]
        for name, said in (("listening", insists), ("repeating", repeats)):
            path = f"paired/{number:03}/{name}.txt"
            texts.append(Text(path, "framing", name, f"{number:03}", "train", said, context))
    return Corpus(Path("insisting"), tuple(texts))


def choose(bench: Bench) -> tuple[Steer, ...]:
    """The layers and the strength that act on most directions, push-back kept; on the development split."""
    split = {one.name: one for one in behaviours("development")}
    watched = [split[name] for name in ("accepts_the_right_thing", "pushes_back", "asks_back")]
    best = -1.0
    chosen: tuple[Steer, ...] = ()
    for layers in LAYERS:
        for strength in STRENGTHS:
            steering = (Steer.parse(f"listening={strength}@{layers}[prompt]"),)
            rates = {name: one.rate.value for name, one in bench.measure(watched, steering).items()}
            kept = min(rates["pushes_back"], rates["asks_back"]) >= 0.9
            if kept and rates["accepts_the_right_thing"] > best:
                best, chosen = rates["accepts_the_right_thing"], steering
    return chosen


def main() -> None:
    """Make the direction, choose a strength, steer, teach, and measure each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lessons", type=int, default=10)
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", type=Path, default=checkpoint_directory())
    given = parser.parse_args()
    torch.set_num_threads(1)
    test = [one for one in behaviours("test") if one.name in SHOWN]
    with EmbeddedEngine(ModelSettings(), given.model) as plain:
        corpus = insisting(900, lambda prompts: Bench(plain).answer(prompts))
    recipe = Recipe(layers=("all",), pooling=Pooling(None), role="user")
    with tempfile.TemporaryDirectory() as folder:
        extract(load_model(given.model), corpus, recipe).directions.save(Path(folder) / "listening")
        with EmbeddedEngine(ModelSettings(), given.model, readout=Path(folder) / "listening") as engine:
            bench = Bench(engine)
            steering = choose(bench)
            print(f"steering: {', '.join(map(str, steering)) or 'none kept push-back'}\n")
            print(f"| | {' | '.join(SHOWN)} |\n|---|{'---|' * len(SHOWN)}")
            row("as it is", measured(bench.measure(test)))
            row("steered", measured(bench.measure(test, steering)))
            taught = {draw: steered_lessons(bench, draw, given.lessons, steering) for draw in given.draws}
        workspace = new_workspace(Path(folder) / "workspace")
        laboratory = Laboratory(given.model, workspace.settings.training, workspace.rehearsals())
        try:
            for draw, (examples, asked) in taught.items():
                laboratory.reset()
                laboratory.session(
                    [laboratory.encode(prompt, said) for prompt, said in examples], laboratory.settings
                )
                told = f"{len(examples)} lessons of steered answers (of {asked}), draw {draw}"
                row(told, laboratory.measure(test))
            for draw in given.draws:
                [point] = laboratory.teach(draw, [given.lessons], test, laboratory.settings)
                row(f"{given.lessons} lessons of people, draw {draw}", point.rates)
        finally:
            laboratory.close()


def steered_lessons(
    bench: Bench, draw: int, count: int, steering: tuple[Steer, ...]
) -> tuple[list[tuple[Prompt, str]], int]:
    """The first `count` steered answers that were approved, and how many were asked for them."""
    found: list[tuple[Prompt, str]] = []
    offered = lessons(draw, 20 * count)
    for asked, (lesson, said) in enumerate(
        zip(offered, bench.answer([one.prompt for one in offered], steering), strict=True), start=1
    ):
        if said.startswith("Done: ") and judges.names(said, lesson.thing):
            found.append((lesson.prompt, said))
        if len(found) == count:
            return found, asked
    return found, len(offered)


def measured(found: dict[str, Measurement]) -> dict[str, Rate]:
    """The rates alone."""
    return {name: one.rate for name, one in found.items()}


def row(name: str, rates: dict[str, Rate]) -> None:
    """One line of the table."""
    print(f"| {name} | {' | '.join(str(rates[shown]) for shown in SHOWN)} |", flush=True)


if __name__ == "__main__":
    main()
