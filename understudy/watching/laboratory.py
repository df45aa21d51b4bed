"""A copy of a model that may be taught anything, and put back."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from understudy.behaviours import Behaviour, Rate, measure
from understudy.config import ModelSettings, TrainingSettings
from understudy.engine import EmbeddedEngine, Sampling, ScoreRequest, encode_lesson, encode_text
from understudy.lessons import ChatMessage, Example
from understudy.pocket import lessons as pocket_lessons
from understudy.training import Apollo, SessionResult, parameter_groups, run_session
from understudy.weights import MovementReport, measure_movement, pair_streams, read_config
from understudy.workspace import Rehearsal

MAX_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Point:
    """What the model does after some lessons, by behaviour."""

    lessons: int
    rates: dict[str, Rate]


class Laboratory:
    """A copy of the model in `directory`, held in memory: nothing is written to the directory."""

    def __init__(self, directory: Path, settings: TrainingSettings, rehearsals: Sequence[Rehearsal]) -> None:
        self.engine = EmbeddedEngine(ModelSettings(), directory)
        self.settings = settings
        self.start: Mapping[str, Tensor] = {
            name: tensor.clone() for name, tensor in self.engine.shared.tensors.items()
        }
        self._config = read_config(directory)
        self.replay = tuple(
            Example(made.context_ids, made.continuation_ids, kept=line.kept)
            for line in rehearsals
            for made in [self.encode(line.messages[:-1], line.messages[-1].content)]
        )
        self._optimizer: Apollo | None = None
        self._taught = 0

    def close(self) -> None:
        self.engine.close()

    # ------------------------------------------------------------------ teaching

    def reset(self, settings: TrainingSettings | None = None) -> None:
        """The weights as they came, and an optimizer that remembers nothing."""
        chosen = settings or self.settings
        self.load(self.start)
        self._optimizer = Apollo(parameter_groups(self.engine.model, chosen), chosen)
        self._taught = 0

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Other weights, by name."""
        for name, tensor in self.engine.shared.tensors.items():
            tensor.copy_(tensors[name])

    def snapshot(self) -> dict[str, Tensor]:
        """The weights as they are now."""
        return {name: tensor.clone() for name, tensor in self.engine.shared.tensors.items()}

    def encode(self, messages: Sequence[ChatMessage], answer: str) -> Example:
        """A lesson as token ids."""
        return encode_lesson(self.engine.tokenizer, messages, answer)

    def lessons(self, draw: int, count: int) -> list[Example]:
        """The first lessons of a draw: clear directions, each acted on."""
        return [self.encode(lesson.prompt, lesson.chosen) for lesson in pocket_lessons(draw, count)]

    def session(self, examples: Sequence[Example], settings: TrainingSettings) -> SessionResult:
        """One session more since the last reset, with the optimizer of the ones before."""
        if self._optimizer is None:
            raise ValueError("expected a laboratory that was reset to begin with: call reset()")
        found = run_session(
            self.engine.model, self._optimizer, examples, self.replay, settings, lessons_before=self._taught
        )
        self._taught += len(examples) * settings.epochs
        return found

    def teach(
        self, draw: int, marks: Sequence[int], behaviours: Sequence[Behaviour], settings: TrainingSettings
    ) -> Iterator[Point]:
        """Start anew, take the draw's lessons one by one, and measure at each mark."""
        self.reset(settings)
        examples, done = self.lessons(draw, max(marks)), 0
        for mark in marks:
            self.session(examples[done:mark], settings)
            done = mark
            yield Point(mark, self.measure(behaviours))

    # ------------------------------------------------------------------ measuring

    def answers(self, prompts: Sequence[Sequence[ChatMessage]], temperature: float = 0.0) -> tuple[str, ...]:
        """One answer to each prompt; greedy unless a temperature is given."""
        return self.engine.chat(prompts, Sampling(max_tokens=MAX_TOKENS, temperature=temperature, seed=1))

    def measure(self, behaviours: Sequence[Behaviour], temperature: float = 0.0) -> dict[str, Rate]:
        """Answers of the model as it stands, judged."""
        found = measure(behaviours, lambda prompts: self.answers(prompts, temperature))
        return {name: one.rate for name, one in found.items()}

    def perplexity(self, texts: Sequence[str]) -> float:
        """Of texts, each from its second token on."""
        sequences = [encode_text(self.engine.tokenizer, text, special_tokens=True) for text in texts]
        scores = self.engine.score([ScoreRequest(ids, ((1, len(ids)),)) for ids in sequences])
        found = [one for score in scores for one in score.logprobs[0]]
        return math.exp(-sum(found) / len(found))

    def movement(self) -> MovementReport:
        """How far everything is from where it started."""
        now = self.engine.shared.tensors
        names = sorted(self.start)
        return measure_movement(
            pair_streams(((name, self.start[name]) for name in names), ((name, now[name]) for name in names)),
            self._config,
        )
