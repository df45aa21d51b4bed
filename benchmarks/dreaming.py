"""What dreams bring: ten lessons by a person, a round of dreams, a session over what was failed.

`python benchmarks/dreaming.py [--split test] [--draws 2,3]`

In one run and for each draw of lessons: the rate of every invariant after the lessons and after the dreams;
how often each batch failed, against the zone; ratings of difficulty against failures. Tune on the development
split; the test split is for what is reported.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from understudy.behaviours import (
    Dream,
    EngineVoice,
    Invariant,
    LikelihoodJudge,
    Material,
    ModelSubject,
    Rate,
    RoundBegun,
    RoundReport,
    RuleJudge,
    Speech,
    Split,
    Zone,
    can_be_dreamed,
    contrast,
    digests_of,
    dream,
    lessons_of,
    measure_margins,
    open_round,
    read_invariants,
    report_round,
)
from understudy.config import GateSettings, TrainingSettings
from understudy.lessons import Example, Lesson
from understudy.pocket import checkpoint_directory, replay
from understudy.pocket.invariants import folder
from understudy.watching import Laboratory
from understudy.workspace import Rehearsal

SETTINGS = TrainingSettings(rank=1)
LESSONS = 10
SAMPLES = 3
"""Answers to each scenario of an invariant whose answers are drawn at a temperature, each by another seed."""


def rates(invariants: Sequence[Invariant], subject: ModelSubject, split: Split) -> dict[str, Rate]:
    """Over all scenarios of a split."""
    return {one.name: rate(one, subject, split) for one in invariants}


def rate(invariant: Invariant, subject: ModelSubject, split: Split) -> Rate:
    """How often an invariant shows, over all its scenarios."""
    scenarios, judge = invariant.scenarios[split], invariant.judge
    if isinstance(judge, LikelihoodJudge):
        margins = measure_margins(invariant, scenarios, subject)
        return Rate(sum(one >= judge.threshold for one in margins), len(margins))
    assert isinstance(judge, RuleJudge)
    shown: list[bool] = []
    for seed in range(SAMPLES if invariant.temperature else 1):
        speech = Speech(invariant.temperature, invariant.max_tokens, seed)
        answers = subject.answer([one.prompt for one in scenarios], speech)
        shown += [judge.shows(one, answer) for one, answer in zip(scenarios, answers, strict=True)]
    return Rate(sum(shown), len(shown))


def dreamed(
    invariants: Sequence[Invariant], subject: ModelSubject, budget: int, seed: int
) -> tuple[RoundReport, list[Lesson], list[Dream]]:
    """One round: its report, the lessons, and what was asked."""
    names = tuple(one.name for one in invariants if can_be_dreamed(one))
    wanted = RoundBegun(0, "initial", budget, seed, Zone(), names, digests_of(invariants), Material())
    with tempfile.TemporaryDirectory() as place, open_round(Path(place), wanted) as log:
        dream(log, invariants, subject, now=lambda: datetime.now(UTC))
        made = [lesson for batch in log.batches for _, lesson in lessons_of(log.begun, batch)]
        return report_round(log), made, log.dreams


def contrasts(
    laboratory: Laboratory, invariants: Sequence[Invariant], subject: ModelSubject
) -> list[Example]:
    """What a server rehearses for the kept invariants: the model's answers before it learned anything."""
    settings = GateSettings()
    return [
        replace(laboratory.encode(prompt, answer), kept=True)
        for one in invariants
        if one.kind == "kept"
        for prompt, answer in contrast(one, subject, settings.contrast, settings.seed)
    ]


def run_draw(
    laboratory: Laboratory, invariants: Sequence[Invariant], draw: int, split: Split, budget: int
) -> tuple[dict[str, Rate], dict[str, Rate], RoundReport, list[Dream]]:
    """Rates after ten lessons of a draw, rates after the dreams, and the round between them."""
    subject, rehearsed = ModelSubject(EngineVoice(laboratory.engine)), laboratory.replay
    laboratory.reset(SETTINGS)
    laboratory.replay = (*rehearsed, *contrasts(laboratory, invariants, subject))
    taught = laboratory.lessons(draw, LESSONS)
    laboratory.session(taught, SETTINGS)
    before = rates(invariants, subject, split)
    report, lessons, dreams = dreamed(invariants, subject, budget, seed=draw)
    laboratory.replay = (*laboratory.replay, *(replace(one, learned=True) for one in taught))
    laboratory.session([laboratory.encode(one.context, one.chosen) for one in lessons], SETTINGS)
    laboratory.replay = rehearsed
    return before, rates(invariants, subject, split), report, dreams


def opened() -> Laboratory:
    """The pocket model with the rehearsals of its workspace."""
    rehearsals = [Rehearsal(tuple(messages), kept) for messages, kept in replay(seed=0, count=400)]
    return Laboratory(checkpoint_directory(), SETTINGS, rehearsals)


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--split", choices=["development", "test"], default="development")
    parser.add_argument("--draws", default="2,3")
    parser.add_argument("--budget", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    invariants, laboratory = read_invariants(folder()), opened()
    for draw in map(int, given.draws.split(",")):
        print(f"draw {draw} ...", file=sys.stderr)
        before, after, report, _ = run_draw(laboratory, invariants, draw, given.split, given.budget)
        lessons = sum(one.lessons for one in report.counted)
        print(f"\ndraw {draw}, {given.split} split, {lessons} dreamed lessons")
        for name in before:
            print(f"  {name:<12} {before[name]} -> {after[name]}")
        print("  failed, batch by batch:", ", ".join(f"{one.value:.2f}" for one in report.batches))
        print(f"  last half {report.settled}, {report.reach}; ratings against failures {report.correlation}")
        for mean, failed in report.ratings:
            print(f"    rated {mean:.2f}: failed {failed}")
        for one in report.counted:
            print(f"    {one.invariant}: {one.failed.n} asked, {one.lessons} lessons, dropped {one.dropped}")
    laboratory.close()


if __name__ == "__main__":
    main()
