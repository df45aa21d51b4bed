"""How behaviour changes with the number of lessons: with the guards (loss gate, replay) and without."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from understudy.behaviours import Behaviour, Rate, measure
from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import EmbeddedEngine, Sampling, ScoreRequest, encode_lesson, encode_text
from understudy.lessons import Example
from understudy.pocket import lessons as pocket_lessons
from understudy.training import Apollo, parameter_groups, run_session
from understudy.workspace import Rehearsal

MARKS = (1, 3, 10, 30, 100)
EARLY_MARKS = (1, 2, 3)
EARLY_DRAWS = 5
MAX_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Point:
    """What the model does after some lessons, by behaviour."""

    lessons: int
    rates: dict[str, Rate]


@dataclass(frozen=True, slots=True)
class Curves:
    """Guarded and bare learning, and the first lessons over several draws."""

    guarded: tuple[Point, ...]
    bare: tuple[Point, ...]
    early: tuple[tuple[Point, ...], ...]


class Laboratory:
    """A copy of the model that may be taught anything, and put back."""

    def __init__(self, directory: Path, settings: TrainingSettings, rehearsals: Sequence[Rehearsal]) -> None:
        self._engine = EmbeddedEngine(ModelSettings(), directory)
        self.settings = settings
        self._start = {name: tensor.clone() for name, tensor in self._engine.shared.tensors.items()}
        encode = self._engine.tokenizer
        self._replay = tuple(
            Example(made.context_ids, made.continuation_ids, kept=line.kept)
            for line in rehearsals
            for made in [encode_lesson(encode, line.messages[:-1], line.messages[-1].content)]
        )

    def close(self) -> None:
        self._engine.close()

    def teach(
        self, draw: int, marks: Sequence[int], behaviours: Sequence[Behaviour], settings: TrainingSettings
    ) -> Iterator[Point]:
        """Start anew, take the draw's lessons one by one, and measure at each mark."""
        engine = self._engine
        with torch.no_grad():
            for name, tensor in engine.shared.tensors.items():
                tensor.copy_(self._start[name])
        optimizer = Apollo(parameter_groups(engine.model, settings), settings)
        examples = [
            encode_lesson(engine.tokenizer, lesson.prompt, lesson.chosen)
            for lesson in pocket_lessons(draw, max(marks))
        ]
        done = 0
        for mark in marks:
            run_session(
                engine.model, optimizer, examples[done:mark], self._replay, settings, lessons_before=done
            )
            done = mark
            yield Point(mark, self.measure(behaviours))

    def measure(self, behaviours: Sequence[Behaviour], temperature: float = 0.0) -> dict[str, Rate]:
        """Answers of the model as it stands, judged; greedy unless a temperature is given."""
        sampling = Sampling(max_tokens=MAX_TOKENS, temperature=temperature, seed=1)
        found = measure(behaviours, lambda prompts: self._engine.chat(prompts, sampling))
        return {name: one.rate for name, one in found.items()}

    def perplexity(self, texts: Sequence[str]) -> float:
        """Of texts, each from its second token on."""
        sequences = [encode_text(self._engine.tokenizer, text, special_tokens=True) for text in texts]
        scores = self._engine.score([ScoreRequest(ids, ((1, len(ids)),)) for ids in sequences])
        found = [one for score in scores for one in score.logprobs[0]]
        return math.exp(-sum(found) / len(found))


def draw_curves(
    laboratory: Laboratory, behaviours: Sequence[Behaviour], progress: Callable[[str], None]
) -> Curves:
    """All curves; `progress` is told before each point."""
    by_name = {behaviour.name: behaviour for behaviour in behaviours}
    watched = [by_name[name] for name in ("accepts", "pushes_back", "accepts_harm")]
    guarded = laboratory.settings
    bare = guarded.model_copy(update={"gate": None, "replay": 0.0})
    arms: dict[str, list[Point]] = {}
    for name, settings in (("with", guarded), ("without", bare)):
        arms[name] = []
        for point in laboratory.teach(0, MARKS, watched, settings):
            arms[name].append(point)
            progress(f"{name} gate and replay: {point.lessons} lessons")
    early = []
    for draw in range(1, EARLY_DRAWS + 1):
        early.append(tuple(laboratory.teach(draw, EARLY_MARKS, watched[:1], guarded)))
        progress(f"first lessons, draw {draw} of {EARLY_DRAWS}")
    return Curves(tuple(arms["with"]), tuple(arms["without"]), tuple(early))
