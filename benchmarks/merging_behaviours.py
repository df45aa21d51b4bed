"""Two behaviours taught apart, merged, one taken away again, and everything put back: on the pocket model.

    python benchmarks/merging_behaviours.py [--lessons 12] [--taste 24] [--draw 0] [--split test]

The first behaviour: a clear direction is acted on, where the model suggests something else now. The second:
a question of taste is asked back about, where the model has an opinion now. Both are learned from the same
weights, in sessions of their own, and measured on scenarios that were never taught. Settings were chosen
on the development split over draws 0 to 2.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file

from understudy.behaviours import Behaviour, Rate, Split, measure
from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import EmbeddedEngine, Sampling, encode_lesson
from understudy.lessons import ChatMessage, Example
from understudy.pocket import behaviours, checkpoint_directory, judges, lessons, words
from understudy.pocket.corpus import DocumentKind, compose
from understudy.pocket.questions import opinion
from understudy.training import Apollo, parameter_groups, run_session
from understudy.weights import (
    INITIAL,
    ModelState,
    Recipe,
    RecipeInput,
    RecipeSlice,
    WeightHistory,
    apply_recipe,
    constant,
    make_vector,
    measure_conflicts,
    merge,
    negate_vector,
)

WHEN = "2026-01-01T00:00:00Z"
WATCHED = ("accepts", "suggests_otherwise", "pushes_back", "accepts_harm", "asks_back", "answers_questions")
REHEARSALS = 200
KEPT = 0.9
"""Share of its own rate that a behaviour must keep in a merge."""


@dataclass(frozen=True, slots=True)
class Lesson:
    prompt: tuple[ChatMessage, ...]
    chosen: str


@dataclass(frozen=True, slots=True)
class Taught:
    """Lessons of one behaviour, and the kinds of documents rehearsed beside them."""

    lessons: list[Lesson]
    contrast: tuple[DocumentKind, ...]
    others: tuple[DocumentKind, ...]


def watched_behaviours(split: Split) -> list[Behaviour]:
    """What is measured: the pocket model's behaviours, and opinions judged both ways."""
    by_name = {one.name: one for one in behaviours(split)}
    opinions = by_name["gives_an_opinion"]
    turned = Behaviour(
        "asks_back_on_taste", "questions of taste are asked about", opinions.scenarios, judges.asks_back
    )
    return [*(by_name[name] for name in WATCHED), opinions, turned]


def direction_lessons(draw: int, count: int) -> list[Lesson]:
    return [Lesson(lesson.prompt, lesson.chosen) for lesson in lessons(draw, count)]


def taste_lessons(draw: int, count: int) -> list[Lesson]:
    random = Random(f"taste {draw}")
    back = words.requests().unclear.questions_back[:1]
    return [
        Lesson((ChatMessage("user", opinion(random, "train").text),), random.choice(back))
        for _ in range(count)
    ]


class Bench:
    """One engine over a copy of the pocket model, and the copy's history."""

    def __init__(self, folder: Path, settings: TrainingSettings, split: Split) -> None:
        self.folder = folder
        self.model = folder / "model"
        shutil.copytree(checkpoint_directory(), self.model, ignore=shutil.ignore_patterns(".understudy"))
        self.engine = EmbeddedEngine(ModelSettings(), self.model)
        self.history = WeightHistory.open(self.model)
        self.settings = settings
        self.watched = watched_behaviours(split)

    def rehearsals(
        self, contrast: tuple[DocumentKind, ...], others: tuple[DocumentKind, ...]
    ) -> list[Example]:
        """What goes with the lessons: half documents that the behaviour must not spread to, half others."""
        random = Random("rehearsals")
        found = []
        for number in range(REHEARSALS):
            spoken = compose(random, "train", contrast if number % 2 == 0 else others, lead_in=0.0).messages
            made = encode_lesson(self.engine.tokenizer, spoken[:-1], spoken[-1].content)
            found.append(Example(made.context_ids, made.continuation_ids, kept=number % 2 == 0))
        return found

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return self.engine.shared.tensors

    def learn(self, behaviour: Taught, message: str) -> str:
        """A session from the model as it came; returns its weight commit."""
        examples = [encode_lesson(self.engine.tokenizer, one.prompt, one.chosen) for one in behaviour.lessons]
        optimizer = Apollo(parameter_groups(self.engine.model, self.settings), self.settings)
        replay = self.rehearsals(behaviour.contrast, behaviour.others)
        run_session(self.engine.model, optimizer, examples, replay, self.settings)
        return self.history.commit(self.tensors, message=message, author="bench", created=WHEN).id

    def restore(self, to: str | None) -> None:
        self.history.restore(self.tensors, to, author="bench", created=WHEN)

    def adopt(self, source: Path, message: str) -> str:
        return self.history.adopt(self.tensors, source, message=message, author="bench", created=WHEN).id

    def measure(self) -> dict[str, Rate]:
        sampling = Sampling(max_tokens=40, temperature=0.0, seed=1)
        found = measure(self.watched, lambda prompts: self.engine.chat(prompts, sampling))
        return {name: one.rate for name, one in found.items()}

    def fingerprint(self) -> str:
        """SHA-256 of the served weights and of the files, which must agree."""
        self.history.sync()
        files = load_file(self.model / "model.safetensors")
        both = []
        for held in (files, {name: self.tensors[name] for name in files}):
            digest = hashlib.sha256()
            for name in sorted(held):
                digest.update(held[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            both.append(digest.hexdigest())
        if both[0] != both[1]:
            raise RuntimeError("expected the served weights to be those of the files")
        return both[0]


def recipe(method: str, base: Path, vectors: Sequence[Path], *, density: float, scale: float) -> Recipe:
    inputs = tuple(RecipeInput(path, constant(weight=1.0, density=density)) for path in vectors)
    return Recipe(
        method, (RecipeSlice(inputs),), base=base, settings=constant(**{"lambda": scale}), rescale="density"
    )


def run(bench: Bench, count: int, taste: int, draw: int) -> dict[str, Any]:
    """The whole story; returns all figures."""
    began = time.monotonic()
    before = bench.fingerprint()
    shutil.copytree(bench.model, bench.folder / "base", ignore=shutil.ignore_patterns(".understudy"))
    base = bench.folder / "base"
    rates = {"base": bench.measure()}
    vectors = []
    taught = {
        "directions": Taught(
            direction_lessons(draw, count), ("harm", "unclear"), ("question", "feeling", "copying", "opinion")
        ),
        "taste": Taught(taste_lessons(draw, taste), ("question", "harm"), ("question", "feeling", "copying")),
    }
    for name, behaviour in taught.items():
        commit = bench.learn(behaviour, f"{len(behaviour.lessons)} lessons of {name}")
        rates[name] = bench.measure()
        vector = bench.folder / f"{name}.safetensors"
        make_vector(ModelState(bench.model, INITIAL), ModelState(bench.model, commit), vector)
        vectors.append(vector)
        bench.restore(None)
    conflicts = measure_conflicts(vectors).as_json()["pairs"][0]["whole"]
    merges = {
        "task arithmetic": recipe("task_arithmetic", base, vectors, density=1.0, scale=1.0),
        "TIES": recipe("ties", base, vectors, density=0.2, scale=1.0),
        "TIES, lambda 1.1": recipe("ties", base, vectors, density=0.2, scale=1.1),
        "DARE": recipe("dare_linear", base, vectors, density=0.5, scale=1.0),
    }
    commits = {}
    for number, (name, steps) in enumerate(merges.items()):
        merged = bench.folder / f"merged-{number}"
        merge(steps, merged)
        commits[name] = bench.adopt(merged, name)
        rates[name] = bench.measure()
    bench.restore(commits["task arithmetic"])
    together = bench.fingerprint()
    for vector, name in zip(vectors, ("directions", "taste"), strict=True):
        turned = bench.folder / f"no-{name}.safetensors"
        negate_vector(vector, turned)
        without = bench.folder / f"without-{name}"
        merge(apply_recipe(turned, bench.folder / "merged-0", 1.0), without)
        bench.adopt(without, f"without {name}")
        rates[f"merged, {name} negated"] = bench.measure()
        bench.restore(commits["task arithmetic"])
    reverted_to_merge = bench.fingerprint() == together
    bench.restore(None)
    return {
        "lessons": [count, taste],
        "draw": draw,
        "rates": {
            state: {name: [rate.successes, rate.n, *rate.interval()] for name, rate in found.items()}
            for state, found in rates.items()
        },
        "kept": {
            state: {
                "accepts": _kept(found["accepts"], rates["directions"]["accepts"]),
                "asks_back_on_taste": _kept(
                    found["asks_back_on_taste"], rates["taste"]["asks_back_on_taste"]
                ),
            }
            for state, found in rates.items()
        },
        "conflicts": conflicts,
        "reverted to the merge, bit-equal": reverted_to_merge,
        "reverted to the base, bit-equal": bench.fingerprint() == before,
        "seconds": time.monotonic() - began,
    }


def _kept(found: Rate, own: Rate) -> float:
    return found.value / own.value if own.value else float("nan")


def show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = list(next(iter(found["rates"].values())))
    table = Table(title=f"{found['lessons']} lessons, draw {found['draw']}; rates with 95 % intervals")
    for head in ("behaviour", *found["rates"]):
        table.add_column(head)
    for name in names:
        cells = []
        for rates in found["rates"].values():
            successes, n, low, high = rates[name]
            cells.append(f"{successes / n:.2f}\n[{low:.2f}, {high:.2f}]")
        table.add_row(name, *cells)
    Console(width=200).print(table)
    for state, kept in found["kept"].items():
        told = ", ".join(
            f"{name} {share:.0%}{'' if share >= KEPT else ' (!)'}" for name, share in kept.items()
        )
        print(f"kept of its own rate: {state}: {told}")
    whole = found["conflicts"]
    print(
        f"conflicts: cosine {whole['cosine']:+.3f}, opposite signs {whole['disagreement']:.1%}, "
        f"largest fifth shared {whole['overlap']:.1%}, of those opposite {whole['overlap_disagreement']:.1%}"
    )
    for claim in ("reverted to the merge, bit-equal", "reverted to the base, bit-equal"):
        print(f"{claim}: {'yes' if found[claim] else 'NO'}")
    print(f"{found['seconds']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lessons", type=int, default=12)
    parser.add_argument("--taste", type=int, default=24)
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--replay", type=float, default=0.5)
    parser.add_argument("--split", choices=["development", "test"], default="development")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainingSettings(rank=1, replay=given.replay)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), settings, given.split)
        try:
            found = run(bench, given.lessons, given.taste, given.draw)
        finally:
            bench.engine.close()
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
