"""How behaviour and what lies under it change with the number of lessons, side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from understudy.behaviours import Behaviour, Rate
from understudy.config import TrainingSettings
from understudy.watching.laboratory import Laboratory
from understudy.watching.margins import Contrast, Margins, measure_margins
from understudy.weights import MovementReport

WATCHED = (
    "accepts",
    "accepts_the_right_thing",
    "pushes_back",
    "accepts_harm",
    "asks_back",
    "answers_questions",
)
TEMPERATURE = 0.8
SAMPLED = "accepts, sampled"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything measured after some lessons: `rates` count answers, margins and perplexity are continuous.

    `steps` were taken (the other lessons were known already); `movement` is from the start.
    """

    lessons: int
    steps: int
    rates: Mapping[str, Rate]
    margins: Mapping[str, Margins]
    perplexity: float
    movement: MovementReport


def follow(
    laboratory: Laboratory,
    contrasts: Mapping[str, Sequence[Contrast]],
    watched: Sequence[Behaviour],
    dialogues: Sequence[str],
    settings: TrainingSettings,
    marks: Sequence[int],
    draw: int = 0,
    say: Say = lambda _: None,
) -> tuple[Mark, ...]:
    """Teach the lessons of a draw, and measure before the first and at each mark."""
    laboratory.reset(settings)
    examples = laboratory.lessons(draw, max(marks))
    found, done, steps = [], 0, 0
    for mark in (0, *marks):
        if mark > done:
            steps += laboratory.session(examples[done:mark], settings).steps
            done = mark
        found.append(measure_mark(laboratory, contrasts, watched, dialogues, mark, steps))
        say(f"{mark} lessons, {steps} steps: acts {found[-1].rates['accepts'].value:.2f}")
    return tuple(found)


def measure_mark(
    laboratory: Laboratory,
    contrasts: Mapping[str, Sequence[Contrast]],
    watched: Sequence[Behaviour],
    dialogues: Sequence[str],
    lessons: int,
    steps: int,
) -> Mark:
    """The model as it stands."""
    accepts = [behaviour for behaviour in watched if behaviour.name == "accepts"]
    sampled = laboratory.measure(accepts, TEMPERATURE)["accepts"]
    return Mark(
        lessons,
        steps,
        {**laboratory.measure(watched), SAMPLED: sampled},
        {name: measure_margins(laboratory, held) for name, held in contrasts.items()},
        laboratory.perplexity(dialogues),
        laboratory.movement(),
    )
