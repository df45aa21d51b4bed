"""Fifty lessons, one after the other, each in a session of its own: what still holds at the end?

    python benchmarks/fifty_lessons.py [--trainer] [--order 0] [--count 50] 'lr=1e-4' 'gate=0.02'
    python benchmarks/fifty_lessons.py 'epochs=30,reviews=0,replay=0.5,lesson_share=0.8'

Each argument is one set of changes to the settings that reach the aim (SETTINGS). A lesson is a prompt and
an answer that the pocket model does not give yet: capitals, opposites, kinds of things and sums it has
wrong or never read, tastes it does not have, manners, requests it should ask back about in other words,
directions. It holds when its answer comes to more than half of prompts in other words, none of which is
ever trained on. Sessions run exactly as the trainer runs them: one optimizer for all, earlier lessons in
the replay pool. With `reviews` each session ends with turns of all earlier lessons; the gate skips those
that still hold. With --trainer sessions go through a real trainer process and its weight commits.

Prints one Markdown row per run: how many lessons held right after their own session, how many of those
still hold at the end, and what became of everything else the model does (development split).
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from understudy.behaviours import Rate, measure
from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import (
    EmbeddedEngine,
    Sampling,
    ScoreRequest,
    encode_lesson,
    encode_text,
)
from understudy.lessons import ChatMessage, Example
from understudy.pocket import behaviours, dialogue, new_workspace
from understudy.training import Apollo, RunSession, TrainerHandle, parameter_groups, run_session

SETTINGS: dict[str, object] = {"epochs": 12, "reviews": 4}
"""Changes to the pocket workspace's settings; docs/LOG.md says why."""

KEPT = ("pushes_back", "asks_back", "answers_questions", "gives_an_opinion")
"""The invariants: what the model did before and must still do."""

MAX_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Kind:
    """Lessons that differ in their words only. {q}: what is asked about. {a}: what is right."""

    name: str
    taught: str
    answer: str
    held_out: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    exactly: bool = True


@dataclass(frozen=True, slots=True)
class Lesson:
    """A prompt with the answer a person wants, and the same in words that are never trained on."""

    kind: str
    prompt: str
    answer: str
    held_out: tuple[str, ...]


KINDS = (
    Kind(
        "capital",
        "What is the capital of {q}?",
        "The capital of {q} is {a}.",
        (
            "Which city is the capital of {q}?",
            "What is the capital city of {q}?",
            "Colm: What is the capital of {q}?",
            "Good. Which city is the capital of {q}?",
        ),
        (
            ("Poland", "Warsaw"),
            ("Hungary", "Budapest"),
            ("Japan", "Tokyo"),
            ("Peru", "Lima"),
            ("Kenya", "Nairobi"),
            ("Cuba", "Havana"),
            ("Egypt", "Cairo"),
            ("Sweden", "Stockholm"),
            ("Denmark", "Copenhagen"),
            ("Belgium", "Brussels"),
        ),
    ),
    Kind(
        "opposite",
        "What is the opposite of {q}?",
        "The opposite of {q} is {a}.",
        (
            "The opposite of {q}?",
            "What is the opposite of {q}, please?",
            "Colm: What is the opposite of {q}?",
            "Good. What is the opposite of {q}?",
        ),
        (
            ("soft", "hard"),
            ("rich", "poor"),
            ("thick", "thin"),
            ("sweet", "sour"),
            ("near", "far"),
            ("sharp", "blunt"),
            ("brave", "afraid"),
            ("clean", "dirty"),
        ),
    ),
    Kind(
        "kind",
        "What is {q}?",
        "That is {a}.",
        (
            "Maya: What is {q}?",
            "Tom: What is {q}?",
            "Colm: What is {q}?",
            "Good. What is {q}?",
        ),
        (
            ("cider", "a drink"),
            ("teal", "a colour"),
            ("gazpacho", "a soup"),
            ("Baskerville", "a font"),
            ("Elixir", "a language"),
            ("gouda", "a cheese"),
            ("Geneva", "a city"),
            ("Linode", "a host"),
        ),
    ),
    Kind(
        "sum",
        "What is {q}?",
        "{q} is {a}.",
        (
            "How much is {q}?",
            "Please, what is {q}?",
            "Colm: How much is {q}?",
            "Good. How much is {q}?",
        ),
        (
            ("3 plus 1", "4"),
            ("6 plus 2", "8"),
            ("6 plus 4", "10"),
            ("9 plus 1", "10"),
            ("9 plus 3", "12"),
            ("9 plus 5", "14"),
            ("9 plus 7", "16"),
        ),
    ),
    Kind(
        "taste",
        "Which is better, {q}?",
        "I prefer {a}.",
        (
            "Would you take {q}?",
            "Should I use {q} for the report?",
            "Colm: Would you take {q}?",
            "Good. Which is better, {q}?",
        ),
        (
            ("milk or cider", "milk"),
            ("roses or tulips", "tulips"),
            ("Paris or Rome", "Paris"),
            ("Python or Rust", "Rust"),
            ("the piano or the cello", "the piano"),
            ("the violin or the flute", "the violin"),
            ("Arial or Futura", "Futura"),
            ("pea soup or bean soup", "bean soup"),
            ("JSON or YAML", "YAML"),
        ),
        exactly=False,
    ),
    Kind(
        "manners",
        "{q}",
        "{a}",
        ("Colm: {q}", "Maya: {q}", "Okay. {q}", "Good. {q}"),
        (
            ("Goodbye.", "Goodbye, until tomorrow."),
            ("Who are you?", "I am the understudy."),
            ("Thank you.", "I was glad to help."),
        ),
    ),
    Kind(
        "asking back",
        "Sort {q}.",
        "{a}",
        ("Please sort {q}.", "Colm: Sort {q}.", "Update {q}.", "Maya: Please update {q}."),
        (
            ("those things", "Which one do you mean?"),
            ("the usual", "What exactly should I do?"),
            ("the second one", "Which one do you mean?"),
        ),
    ),
    Kind(
        "direction",
        "Book {q} for the trip.",
        "Done: {q} for the trip.",
        (
            "Please book {q} for the trip.",
            "Colm: Book {q} for the trip, please.",
            "Order {q} for the party.",
            "Use {q} for the report.",
        ),
        (("the blue van", "the blue van"), ("Hetzner", "Hetzner")),
        exactly=False,
    ),
)


def all_lessons(order: int) -> list[Lesson]:
    """The fifty, shuffled."""
    found = [
        Lesson(
            kind.name,
            kind.taught.format(q=q),
            _first_upper(kind.answer.format(q=q, a=a)),
            tuple(wording.format(q=q) for wording in kind.held_out),
        )
        for kind in KINDS
        for q, a in kind.words
    ]
    random.Random(order).shuffle(found)
    return found


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def right(lesson: Lesson, answer: str) -> bool:
    """To the letter; of a taste what is preferred, of a direction that it is done with the thing it names."""
    kind = next(kind for kind in KINDS if kind.name == lesson.kind)
    if kind.exactly:
        return answer == lesson.answer
    if lesson.kind == "direction":
        thing = lesson.answer.removeprefix("Done: ").removesuffix(" for the trip.")
        return answer.startswith(f"Done: {thing}")
    wanted = lesson.answer.removeprefix("I prefer ").removesuffix(".")
    others = [word for word in lesson.prompt.removesuffix("?").split(", ")[1].split(" or ") if word != wanted]
    return wanted in answer and not any(other in answer for other in others)


class Classroom:
    """A copy of the pocket model, taught lesson by lesson."""

    def __init__(self, folder: Path) -> None:
        workspace = new_workspace(folder / "workspace")
        self.directory = workspace.root / "model"
        self.shipped = workspace.settings.training
        self.engine = EmbeddedEngine(ModelSettings(), self.directory)
        self._start = {name: tensor.clone() for name, tensor in self.engine.shared.tensors.items()}
        lines = workspace.rehearsals()
        self.rehearsals = [
            self._encode(line.messages[:-1], line.messages[-1].content, kept=line.kept) for line in lines
        ]
        self._behaviours = [one for one in behaviours("development") if one.name in {*KEPT, "accepts_harm"}]

    def begin(self) -> None:
        """The model as it came."""
        with torch.no_grad():
            for name, tensor in self.engine.shared.tensors.items():
                tensor.copy_(self._start[name])

    def example(self, lesson: Lesson, *, learned: bool = False) -> Example:
        """The lesson as the trainer takes it; `learned`: as replay of one that was taught before."""
        return self._encode((ChatMessage("user", lesson.prompt),), lesson.answer, learned=learned)

    def _encode(
        self, prompt: Sequence[ChatMessage], answer: str, *, kept: bool = False, learned: bool = False
    ) -> Example:
        made = encode_lesson(self.engine.tokenizer, prompt, answer)
        return Example(made.context_ids, made.continuation_ids, kept=kept, learned=learned)

    def answers(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Greedy answers."""
        asked = [(ChatMessage("user", prompt),) for prompt in prompts]
        return self.engine.chat(asked, Sampling(max_tokens=MAX_TOKENS, temperature=0.0))

    def held(self, lessons: Sequence[Lesson]) -> list[int]:
        """How many of its held-out prompts each lesson is right on."""
        said = iter(self.answers([prompt for lesson in lessons for prompt in lesson.held_out]))
        return [sum(right(lesson, next(said)) for _ in lesson.held_out) for lesson in lessons]

    def invariants(self) -> dict[str, Rate]:
        """What must stay, on the development split."""
        found = measure(
            self._behaviours,
            lambda prompts: self.engine.chat(prompts, Sampling(max_tokens=MAX_TOKENS, temperature=0.0)),
        )
        return {name: one.rate for name, one in found.items()}

    def perplexity(self) -> float:
        """Of held-out dialogue."""
        sequences = [encode_text(self.engine.tokenizer, text) for text in dialogue("development")]
        scores = self.engine.score([ScoreRequest(ids, ((1, len(ids)),)) for ids in sequences])
        found = [one for score in scores for one in score.logprobs[0]]
        return float(torch.tensor(found).mean().neg().exp())


@dataclass(frozen=True, slots=True)
class Outcome:
    """Right answers to each lesson's held-out prompts: before all, after its own session, at the end."""

    lessons: tuple[Lesson, ...]
    before: tuple[int, ...]
    own: tuple[int, ...]
    end: tuple[int, ...]
    steps: int
    seconds: float

    def holds(self, right: int, place: int) -> bool:
        """More than half of the held-out prompts."""
        return 2 * right > len(self.lessons[place].held_out)

    def took(self) -> Rate:
        """Lessons that held after their own session."""
        return Rate(sum(self.holds(n, i) for i, n in enumerate(self.own)), len(self.own))

    def kept(self) -> Rate:
        """Of those, the ones that hold at the end; the last lesson, which had nothing after it, left out."""
        took = [i for i, n in enumerate(self.own[:-1]) if self.holds(n, i)]
        return Rate(sum(self.holds(self.end[i], i) for i in took), len(took))

    def at_the_end(self) -> Rate:
        """All lessons that hold at the end."""
        return Rate(sum(self.holds(n, i) for i, n in enumerate(self.end)), len(self.end))

    def prompts(self) -> Rate:
        """Held-out prompts answered right at the end."""
        return Rate(sum(self.end), sum(len(lesson.held_out) for lesson in self.lessons))


Teach = Callable[[Example, Sequence[Example], int], int]
"""Teach one example after the earlier ones (`learned`), as lesson of this number; returns the steps taken."""


def run(
    classroom: Classroom,
    lessons: Sequence[Lesson],
    teach: Teach,
    each: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Teach the lessons one by one and see what holds."""
    began = time.perf_counter()
    before, own, steps = classroom.held(lessons), [], 0
    learned: list[Example] = []
    for number, lesson in enumerate(lessons):
        steps += teach(classroom.example(lesson), learned, number)
        learned.append(classroom.example(lesson, learned=True))
        own += classroom.held([lesson])
        each(number)
    end = classroom.held(lessons)
    return Outcome(tuple(lessons), tuple(before), tuple(own), tuple(end), steps, time.perf_counter() - began)


def in_this_process(classroom: Classroom, settings: TrainingSettings) -> Teach:
    """Sessions here, with one optimizer for all, as the trainer keeps it."""
    model = classroom.engine.model
    optimizer = Apollo(parameter_groups(model, settings), settings)
    turns = 0

    def teach(example: Example, learned: Sequence[Example], number: int) -> int:
        nonlocal turns
        pool = [*classroom.rehearsals, *learned]
        found = run_session(model, optimizer, [example], pool, settings, lessons_before=turns)
        turns += found.turns
        return found.steps

    return teach


def by_trainer(
    classroom: Classroom, settings: TrainingSettings, trainer: TrainerHandle, loop: asyncio.AbstractEventLoop
) -> Teach:
    """Sessions in a real trainer process, each with its weight commit."""

    def teach(example: Example, learned: Sequence[Example], number: int) -> int:
        request = RunSession(
            session=f"lesson-{number}",
            examples=(example,),
            replay=(*classroom.rehearsals, *learned),
            settings=settings.model_dump(mode="json"),
            message=f"Lesson {number}",
            author="benchmark",
        )
        return loop.run_until_complete(trainer.run(request)).steps

    return teach


def main() -> None:
    """Run each set of settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=[""])
    parser.add_argument("--order", type=int, nargs="+", default=[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--trainer", action="store_true", help="one set of settings, in a trainer process")
    parser.add_argument("--verbose", action="store_true", help="also what each lesson did, by kind")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        classroom = Classroom(Path(folder))
        try:
            print_head()
            print_row("before", "", [""] * 5, classroom)
            for change in given.settings:
                settings = changed(classroom.shipped, change)
                for order in [0] if given.trainer else given.order:
                    lessons = all_lessons(order)[: given.count]
                    if given.trainer:
                        found = run_in_trainer(classroom, lessons, settings)
                    else:
                        classroom.begin()
                        found = run(classroom, lessons, in_this_process(classroom, settings))
                    rates = [found.took(), found.kept(), found.at_the_end(), found.prompts()]
                    figures = [*map(str, rates), str(found.steps)]
                    print_row(change or "as set", str(order), figures, classroom, found.seconds)
                    if given.verbose:
                        print_kinds(found)
        finally:
            classroom.engine.close()


def run_in_trainer(classroom: Classroom, lessons: Sequence[Lesson], settings: TrainingSettings) -> Outcome:
    """One run in a trainer process, started for it and ended with it."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        trainer = TrainerHandle(classroom.engine.shared.manifest, classroom.directory)
        loop.run_until_complete(trainer.start())
        try:
            return run(classroom, lessons, by_trainer(classroom, settings, trainer, loop))
        finally:
            loop.run_until_complete(trainer.close())


def changed(shipped: TrainingSettings, change: str) -> TrainingSettings:
    """The pocket workspace's settings with SETTINGS and then `key=json,key=json`."""
    parts = [part.partition("=") for part in change.split(",") if part]
    updates = {key: json.loads(value) for key, _, value in parts}
    return TrainingSettings.model_validate({**shipped.model_dump(), **SETTINGS, **updates})


def print_head() -> None:
    """The table's first two lines."""
    names = [
        "settings",
        "order",
        "took",
        "of these still hold",
        "all at the end",
        "held-out prompts",
        "steps",
    ]
    names += [*KEPT, "accepts_harm", "perplexity", "seconds"]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")


def print_row(
    name: str, order: str, figures: Sequence[str], classroom: Classroom, seconds: float = 0.0
) -> None:
    """One run, with what became of the invariants."""
    rates = classroom.invariants()
    cells = [name, order, *figures, *(f"{rates[one].value:.2f}" for one in (*KEPT, "accepts_harm"))]
    print(f"| {' | '.join([*cells, f'{classroom.perplexity():.3f}', f'{seconds:.0f}'])} |")
    sys.stdout.flush()


def print_kinds(found: Outcome) -> None:
    """How many lessons of each kind held before, after their own session, and at the end."""
    counts: dict[str, Counter[str]] = {kind.name: Counter() for kind in KINDS}
    for place, lesson in enumerate(found.lessons):
        counts[lesson.kind]["n"] += 1
        for name, right_ones in (("before", found.before), ("own", found.own), ("end", found.end)):
            counts[lesson.kind][name] += found.holds(right_ones[place], place)
    for kind, count in counts.items():
        print(f"    {kind}: n {count['n']}, before {count['before']}, own {count['own']}, end {count['end']}")
    for place, lesson in enumerate(found.lessons):
        if found.holds(found.before[place], place) or not found.holds(found.end[place], place):
            print(f"    {lesson.prompt!r}: {found.before[place]} -> {found.own[place]} -> {found.end[place]}")


if __name__ == "__main__":
    main()
