"""The whole loop of dreams, on a model of whom it is known what it fails."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from understudy.behaviours import (
    Batch,
    DreamError,
    DreamLog,
    Instruction,
    Invariant,
    LogProbability,
    Margin,
    Material,
    Prompt,
    Requirement,
    RoundBegun,
    RuleJudge,
    Speech,
    Template,
    Zone,
    digests_of,
    dream,
    lessons_of,
    open_round,
    report_round,
)
from understudy.behaviours.imagining import OF_ONE_GROUP
from understudy.behaviours.sources import deal, scenarios_of

INSTRUCTION = "Do it, please."
SYLLABLES = ("bo", "ki", "ra", "mu", "te", "sol", "ven", "dag", "pil", "hox")
THINGS = [first + second + third for first in SYLLABLES for second in SYLLABLES for third in SYLLABLES[::3]]


def invariant(name: str = "acts", things: Sequence[str] = THINGS, instruction: bool = True) -> Invariant:
    templates = (Template("Fetch the {thing} for me.", "{thing}"), Template("I want the {thing}.", "{thing}"))
    slots = {"thing": list(things)}
    return Invariant(
        name=name,
        wanted="Acts.",
        kind="wanted",
        requirement=Requirement(0.9, 0.75),
        judge=RuleJudge(accept=["^Done"]),
        margin=Margin(["Done"], ["No"]),
        temperature=1.0,
        instruction=Instruction(INSTRUCTION, "after") if instruction else None,
        scenarios=deal(scenarios_of(templates, slots, ["thing"])),
        templates=templates,
        slots=slots,
        split_by=("thing",),
    )


def share(text: str) -> float:
    """Between 0 and 1, always the same of the same text, and as good as drawn evenly."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


class Dreamer:
    """Fails a message with a probability that is `failing` of its share, and knows it. Under the instruction
    it says what is wanted. What a person began to say it ends with a word of its own.
    """

    context_length = 1000

    def __init__(self, failing: Callable[[float], float]) -> None:
        self.failing = failing

    def chance(self, prompt: Prompt) -> float:
        return self.failing(share(prompt[-1].content))

    def length(self, prompt: Prompt) -> int:
        return sum(len(turn.content.split()) for turn in prompt)

    def answer(self, prompts: Sequence[Prompt], speech: Speech) -> list[str]:
        return [self.say(prompt, speech) for prompt in prompts]

    def say(self, prompt: Prompt, speech: Speech) -> str:
        if prompt[-1].content == INSTRUCTION:
            return f"Done: {prompt[0].content}"
        fails = Random(f"{prompt} {speech.seed}").random() < self.chance(prompt)
        return "No." if fails else "Done."

    def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> list[LogProbability]:
        chances = [
            self.chance(prompt) if text == "No" else 1.0 - self.chance(prompt) for prompt, text in texts
        ]
        return [LogProbability(math.log(max(chance, 1e-9)), 1) for chance in chances]

    def readouts(self, said: Sequence[tuple[Prompt, str]], concept: str, layer: int | None) -> list[float]:
        raise AssertionError("nothing is read out here")

    def continue_user(self, begun: Sequence[Prompt], speech: Speech) -> list[str | None]:
        random = Random(f"{begun} {speech.seed}")
        return [
            f"{prompt[-1].content} {random.choice(SYLLABLES)}{random.choice(SYLLABLES)} now."
            for prompt in begun
        ]


def begun(invariants: Sequence[Invariant], budget: int = 400, seed: int = 0) -> RoundBegun:
    names = tuple(one.name for one in invariants if one.instruction)
    return RoundBegun(0, "w1", budget, seed, Zone(), names, digests_of(invariants), Material())


def whole_round(
    folder: Path, failing: Callable[[float], float], invariants: Sequence[Invariant], budget: int = 400
) -> DreamLog:
    with open_round(folder, begun(invariants, budget)) as log:
        dream(log, invariants, Dreamer(failing), now=lambda: datetime.now(UTC))
    return log


@pytest.mark.parametrize(
    "failing", [lambda x: 0.7 * x, lambda x: x**6, lambda x: x**12], ids=["line", "sixth", "twelfth"]
)
def test_the_failure_rate_settles_in_the_zone(failing: Callable[[float], float], tmp_path: Path) -> None:
    report = report_round(whole_round(tmp_path, failing, [invariant()]))
    assert report.reach == "in the zone" and report.settled.n == 200
    assert report.correlation is not None and report.correlation.low > 0


def test_drawn_evenly_over_all_ratings_half_is_failed_and_the_loop_cannot_go_under(tmp_path: Path) -> None:
    log = whole_round(tmp_path, lambda x: x**2, [invariant()])
    low, high = report_round(log).settled.interval()
    assert low < 0.5 < high and log.batches[-1].edge < 0.1


@pytest.mark.parametrize(
    ("failing", "reach", "edge"),
    [(lambda x: 0.05 * x, "too easy", 1.0), (lambda x: 0.8 + 0.2 * x, "too hard", 0.0)],
    ids=["easy", "hard"],
)
def test_a_zone_that_cannot_be_reached_is_told(
    failing: Callable[[float], float], reach: str, edge: float, tmp_path: Path
) -> None:
    log = whole_round(tmp_path, failing, [invariant()])
    assert report_round(log).reach == reach and log.batches[-1].edge == edge


def test_ratings_are_the_chances_where_the_margin_says_all(tmp_path: Path) -> None:
    log = whole_round(tmp_path, lambda x: x**3, [invariant()])
    for one in log.dreams:
        assert one.rating == pytest.approx(share(one.scenario.prompt[-1].content) ** 3, abs=1e-6)
    for mean, failed in report_round(log).ratings:
        low, high = failed.interval(0.999)
        assert low <= mean <= high


def test_failures_and_only_they_become_lessons_without_the_instruction(tmp_path: Path) -> None:
    log = whole_round(tmp_path, lambda x: x, [invariant()], budget=60)
    made = [lesson for batch in log.batches for _, lesson in lessons_of(log.begun, batch)]
    failed = [one.scenario.prompt for one in log.dreams if not one.shown]
    assert [lesson.context for lesson in made] == failed != []
    for lesson in made:
        assert lesson.rejected == "No." and lesson.chosen.startswith("Done: ")
        assert len(lesson.context) == 1 and INSTRUCTION not in lesson.context[0].content
    messages = Counter(lesson.source.message for lesson in made)
    assert set(messages.values()) == {1}, "the ledger would take one for the other"


def test_both_sides_are_asked_in_every_batch_and_no_group_takes_it_over(tmp_path: Path) -> None:
    invariants = [invariant("acts", THINGS[::2]), invariant("waits", THINGS[1::2])]
    log = whole_round(tmp_path, lambda x: x**3, invariants, budget=200)
    assert all({one.invariant for one in batch.dreams} == {"acts", "waits"} for batch in log.batches)
    groups = Counter(
        (one.invariant, one.scenario.group) for batch in log.batches[:-1] for one in batch.dreams
    )
    last = Counter((one.invariant, one.scenario.group) for one in log.batches[-1].dreams)
    assert all(groups[group] < OF_ONE_GROUP for group in last)


def test_a_round_of_few_words_ends_when_there_is_nothing_new(tmp_path: Path) -> None:
    log = whole_round(tmp_path, lambda x: 0.5, [invariant(things=THINGS[:12])], budget=400)
    assert log.ended is not None and log.ended.why == "nothing new"
    assert 0 < len(log.dreams) < 400 and report_round(log).why == "nothing new"


def test_a_round_is_over_when_the_weights_move(tmp_path: Path) -> None:
    told: list[Batch] = []
    invariants = [invariant()]
    with open_round(tmp_path, begun(invariants)) as log:
        dream(
            log,
            invariants,
            Dreamer(lambda x: x),
            now=lambda: datetime.now(UTC),
            weights=lambda: "w1" if len(told) < 2 else None,
            dreamed=told.append,
        )
    assert log.ended is not None and log.ended.why == "weights moved"
    assert len(told) == len(log.batches) == 2, "what was asked while they moved does not count"


def test_what_has_no_instruction_is_not_dreamed(tmp_path: Path) -> None:
    invariants = [invariant(instruction=False)]
    wanted = RoundBegun(0, "w1", 20, 0, Zone(), ("acts",), digests_of(invariants), Material())
    with open_round(tmp_path, wanted) as log, pytest.raises(DreamError, match=r"with an instruction .*acts"):
        dream(log, invariants, Dreamer(lambda x: x), now=lambda: datetime.now(UTC))
    assert not log.batches


def test_the_same_seed_dreams_the_same_and_another_something_else(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        with open_round(tmp_path / str(number), begun([invariant()], 60, seed)) as log:
            dream(log, [invariant()], Dreamer(lambda x: x), now=lambda: datetime.now(UTC))
        found.append([one.scenario for one in log.dreams])
    assert found[0] == found[1] != found[2]
