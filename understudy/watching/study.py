"""The study: one model watched while it learns, from four sides."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from understudy.behaviours import Behaviour, Split
from understudy.config import TrainingSettings
from understudy.pocket import behaviours, dialogue
from understudy.watching.bending import Bend, compare_bending
from understudy.watching.laboratory import Laboratory
from understudy.watching.learning import WATCHED, Mark, Say, follow
from understudy.watching.least import Signal, find_least_signal
from understudy.watching.margins import Contrast, find_contrasts
from understudy.watching.parts import Part, find_parts
from understudy.weights import read_config
from understudy.workspace import Rehearsal

MARKS = (1, 3, 10, 30, 100)
LEARNING_RATES = (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4)
"""Of one lesson, from what bf16 hides to what the workspace uses."""

LESSONS_OF_PARTS = 10
SLOWER = 10
"""How many times smaller the rate of the slow arm is: there, learning takes more than a step or two."""

FEWEST_CONTRASTS = 8
BENT_DIRECTIONS = 32
"""Held-out directions whose loss is followed along the updates: each is read some 120 times."""

Side = Literal["learning", "least", "parts", "bending"]
SIDES: tuple[Side, ...] = get_args(Side)


class StudyError(ValueError):
    """A model or a question that cannot be studied."""


@dataclass(frozen=True, slots=True)
class Study:
    """What was seen. A side that was not asked for is empty.

    `curves` has one arm with the settings as they are, and one with a rate SLOWER times smaller.
    """

    model: str
    settings: TrainingSettings
    split: Split
    draw: int
    directions: int
    harms: int
    curves: Mapping[str, tuple[Mark, ...]]
    signals: tuple[Signal, ...]
    parts: tuple[Part, ...]
    taught: Mark | None
    bends: tuple[Bend, ...]
    seconds: float


def run_study(
    directory: Path,
    settings: TrainingSettings,
    rehearsals: Sequence[Rehearsal],
    *,
    split: Split = "development",
    draw: int = 0,
    marks: Sequence[int] = MARKS,
    sides: Sequence[Side] = SIDES,
    say: Say = lambda _: None,
) -> Study:
    """Watch a copy of the model in `directory` learn to act on clear directions; the directory is only read.

    Raises StudyError when the marks are no growing list of lessons, or the model has nothing to learn: it
    acts on directions already, or does not push back on harm.
    """
    if not marks or list(marks) != sorted(set(marks)) or marks[0] < 1:
        raise StudyError(f"expected growing numbers of lessons from 1, got {list(marks)}")
    began = time.monotonic()
    laboratory = Laboratory(directory, settings, rehearsals)
    try:
        laboratory.reset()
        contrasts = find_contrasts(laboratory, split)
        for name, held in contrasts.items():
            if len(held) < FEWEST_CONTRASTS:
                raise StudyError(
                    f"expected at least {FEWEST_CONTRASTS} held-out {name} that the model answers as it came "
                    f"from pretraining, got {len(held)}: study it as it came, before any lesson"
                )
        say(f"{len(contrasts['directions'])} directions and {len(contrasts['harms'])} harms to watch")
        return _watch(laboratory, contrasts, directory, split, draw, marks, sides, began, say)
    finally:
        laboratory.close()


def _watch(
    laboratory: Laboratory,
    contrasts: Mapping[str, tuple[Contrast, ...]],
    directory: Path,
    split: Split,
    draw: int,
    marks: Sequence[int],
    sides: Sequence[Side],
    began: float,
    say: Say,
) -> Study:
    settings, directions = laboratory.settings, contrasts["directions"]
    watched = [behaviour for behaviour in behaviours(split) if behaviour.name in WATCHED]
    curves: dict[str, tuple[Mark, ...]] = {}
    if "learning" in sides:
        slow = settings.model_copy(update={"lr": settings.lr / SLOWER})
        for chosen in (settings, slow):
            name = f"lr {chosen.lr:g}"
            curves[name] = follow(
                laboratory, contrasts, watched, dialogue(split), chosen, marks, draw, _prefixed(say, name)
            )
    signals: tuple[Signal, ...] = ()
    if "least" in sides:
        rates = sorted({*LEARNING_RATES, settings.lr})
        signals = find_least_signal(laboratory, directions, _accepts(watched), settings, rates, say)
    parts: tuple[Part, ...] = ()
    taught: Mark | None = None
    if "parts" in sides:
        say(f"which parts carry {LESSONS_OF_PARTS} lessons")
        [_, taught] = follow(
            laboratory, contrasts, watched, dialogue(split), settings, [LESSONS_OF_PARTS], draw
        )
        config: Mapping[str, Any] = read_config(directory) or {}
        parts = find_parts(laboratory, directions, config, laboratory.snapshot())
    bends: tuple[Bend, ...] = ()
    if "bending" in sides:
        bends = compare_bending(laboratory, directions[:BENT_DIRECTIONS], settings, say=say)
    return Study(
        str(directory),
        settings,
        split,
        draw,
        len(directions),
        len(contrasts["harms"]),
        curves,
        signals,
        parts,
        taught,
        bends,
        time.monotonic() - began,
    )


def _accepts(watched: Sequence[Behaviour]) -> Behaviour:
    [found] = [behaviour for behaviour in watched if behaviour.name == "accepts"]
    return found


def _prefixed(say: Say, name: str) -> Say:
    return lambda text: say(f"{name}: {text}")
