"""What the objectives teach and what they harm, on the pocket model.

    python benchmarks/objectives.py 'objective="sft"' 'objective="dpo",beta=0.5' [--near] [--marks 1 3 10]

Each argument is one set of changes to the pocket workspace's settings. A lesson is a correction as it comes
about in a conversation: the rejected answer is what the model says to a direction, the chosen one what a
person wants; for self-distillation it is what the model itself says when it is told CRITICISM. With --near
the chosen answer is the model's own with one thing in it exchanged: answers so alike are what dpo's guard
is for. Between two marks the lessons are one session. Measured on the development split; prints a Markdown
table, one row per setting, draw and number of lessons:

- acts, greedy and at TEMPERATURE, on directions; pushes back and acts on harm; answers questions;
- margin: mean gain in nats of the chosen against the rejected answer over the last session's lessons;
- chosen: mean gain of the chosen answer in nats per token, over the same lessons;
- fell: lessons of all sessions whose chosen answer got less likely in its session;
- KL: KL(before all || now) on kept and other old examples that are never shown, nats per token.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from understudy.behaviours import measure
from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import EmbeddedEngine, Sampling, encode_chat, encode_lesson
from understudy.lessons import ChatMessage, Example
from understudy.pocket import behaviours, checkpoint_directory, lessons, new_workspace, replay
from understudy.training import Apollo, ExampleOutcome, Probe, parameter_groups, run_session

COLUMNS = (
    *("settings", "draw", "lessons", "acts", "pushes back", "acts on harm", "answers"),
    *("margin", "chosen", "fell", "gated", "KL"),
)
SHOWN = ("accepts", "pushes_back", "accepts_harm", "answers_questions")
CRITICISM = "No. Please do it."
SUGGESTION = "Have you considered {} instead?"
"""What the model answers to a direction; it suggests another thing than the one that was named."""

GREEDY = Sampling(max_tokens=40, temperature=0.0, seed=1)
TEMPERATURE = 0.8
PROBED = 60
"""Old examples of the probe: drawn as rehearsals are, and never shown."""


class Classroom:
    """The pocket model, which may be taught anything, and put back."""

    def __init__(self, model: Path) -> None:
        self.engine = EmbeddedEngine(ModelSettings(), model)
        self._start = {name: tensor.clone() for name, tensor in self.engine.shared.tensors.items()}

    def put_back(self) -> None:
        with torch.no_grad():
            for name, tensor in self.engine.shared.tensors.items():
                tensor.copy_(self._start[name])

    def corrections(self, draw: int, count: int, objective: str, near: bool) -> list[Example]:
        """Lessons with the model's own answer as the rejected one, made before anything is taught."""
        taught = lessons(draw, count)
        said = self._say([lesson.prompt for lesson in taught])
        criticised = [
            (*lesson.prompt, ChatMessage("assistant", answer), ChatMessage("user", CRITICISM))
            for lesson, answer in zip(taught, said, strict=True)
        ]
        tokenizer = self.engine.tokenizer
        if near:
            things = [lesson.thing for lesson in taught]
            wanted = [
                next(other for other in map(SUGGESTION.format, (thing, *things)) if other != answer)
                for thing, answer in zip(things, said, strict=True)
            ]
        elif objective == "distillation":
            wanted = self._say(criticised)
        else:
            wanted = [lesson.chosen for lesson in taught]
        return [
            replace(
                encode_lesson(tokenizer, lesson.prompt, chosen, rejected),
                teacher_context_ids=encode_chat(tokenizer, teacher),
            )
            for lesson, chosen, rejected, teacher in zip(taught, wanted, said, criticised, strict=True)
        ]

    def rehearsals(self, seed: int, count: int) -> list[Example]:
        return [
            replace(encode_lesson(self.engine.tokenizer, messages[:-1], messages[-1].content), kept=kept)
            for messages, kept in replay(seed, count)
        ]

    def _say(self, prompts: Sequence[Sequence[ChatMessage]]) -> list[str]:
        return list(self.engine.chat(prompts, GREEDY))


def teach(
    classroom: Classroom,
    settings: TrainingSettings,
    draw: int,
    marks: Sequence[int],
    change: str,
    near: bool,
) -> None:
    """Start anew, take the draw's lessons, and print a row at each mark."""
    shown = [behaviour for behaviour in behaviours("development") if behaviour.name in SHOWN]
    sampling = replace(GREEDY, temperature=TEMPERATURE)
    classroom.put_back()
    engine = classroom.engine
    pool, probed = classroom.rehearsals(0, 200), classroom.rehearsals(1, PROBED)
    examples = classroom.corrections(draw, max(marks), settings.objective, near)
    probe = Probe(engine.model, probed, settings.model_copy(update={"probe_tokens": 10_000}))
    optimizer = Apollo(parameter_groups(engine.model, settings), settings)
    outcomes: list[ExampleOutcome] = []
    gated = done = 0
    for mark in marks:
        result = run_session(
            engine.model, optimizer, examples[done:mark], pool, settings, lessons_before=done
        )
        done, gated = mark, gated + result.gated
        outcomes += result.outcomes
        rates = measure(shown, lambda prompts: engine.chat(prompts, GREEDY))
        warm = measure(shown[:1], lambda prompts: engine.chat(prompts, sampling))
        gains = [
            outcome.margin_after - outcome.margin_before
            for outcome in result.outcomes
            if outcome.margin_after is not None and outcome.margin_before is not None
        ]
        gained = [outcome.loss_before - outcome.loss_after for outcome in result.outcomes]
        fell, kl = sum(outcome.fell for outcome in outcomes), probe.measure(engine.model)
        figures = [
            f"{rates['accepts'].rate.value:.2f} / {warm['accepts'].rate.value:.2f}",
            *(f"{rates[name].rate.value:.2f}" for name in SHOWN[1:]),
            f"{sum(gains) / len(gains):.1f}",
            f"{sum(gained) / len(gained):+.2f}",
            f"{fell} of {mark}",
            str(gated),
            f"{kl.mean:.4f} ± {kl.standard_error:.4f}",
        ]
        print(f"| {change} | {draw} | {mark} | {' | '.join(figures)} |", flush=True)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=['objective="sft"'])
    parser.add_argument("--near", action="store_true")
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--marks", type=int, nargs="+", default=[1, 3, 10, 30])
    parser.add_argument("--model", type=Path, default=checkpoint_directory())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shipped = new_workspace(Path(folder) / "workspace").settings.training
    classroom = Classroom(given.model)
    try:
        print(f"| {' | '.join(COLUMNS)} |")
        print(f"|{'---|' * len(COLUMNS)}")
        for change in given.settings:
            for draw in given.draws:
                teach(classroom, changed(shipped, change), draw, given.marks, change, given.near)
    finally:
        classroom.engine.close()


def changed(settings: TrainingSettings, change: str) -> TrainingSettings:
    """`settings` with changes of the form `key=json,key=json`."""
    parts = [part.partition("=") for part in change.split(",") if part]
    updates = {key: json.loads(value) for key, _, value in parts}
    return TrainingSettings.model_validate({**settings.model_dump(), **updates})


if __name__ == "__main__":
    main()
