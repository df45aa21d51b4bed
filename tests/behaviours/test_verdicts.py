"""Invariants put to models whose true rates are known."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_models import Known, asked, invariant
from msgspec.structs import replace
from scipy import stats

from understudy.behaviours import (
    Invariant,
    JudgeFailed,
    LikelihoodJudge,
    LogProbability,
    Looked,
    Margin,
    NoAnswer,
    Prompt,
    ReadoutJudge,
    RuleJudge,
    Scenario,
    ScenarioTooLong,
    Smooth,
    Speech,
    Split,
    check,
)
from understudy.lessons import ChatMessage


def test_each_is_decided_and_only_as_many_are_asked_as_it_takes() -> None:
    model = Known({"good": 0.97, "bad": 0.3, "between": 0.83})
    looks: list[Looked] = []
    found = check([invariant(name) for name in model.shares], model, budget=200, looked=looks.append)
    said = {verdict.invariant: verdict for verdict in found}
    assert said["good"].decision == "holds" and said["bad"].decision == "violated"
    assert said["bad"].rate.n < said["good"].rate.n < said["between"].rate.n
    for verdict in found:
        low, high = verdict.interval
        assert low <= verdict.rate.value <= high and low <= model.shares[verdict.invariant] <= high
        assert verdict.error is None and verdict.corrected == (verdict.rate.value, low, high)
    assert len(said["bad"].failures) == 5 and all(answer == "no" for _, answer in said["bad"].failures)
    assert looks[-1].asked == sum(verdict.rate.n for verdict in found) == sum(model.batches)
    assert looks[0].decided["between"] == "undecided"
    assert looks[-1].most_left == 0
    assert all(before.most_left > after.most_left for before, after in itertools.pairwise(looks))


def test_rates_and_failures_are_those_of_the_scenarios_that_were_asked() -> None:
    model = Known({"between": 0.83})
    [verdict] = check([invariant("between", 300)], model, budget=120)
    answers = [(text, model.say(text)) for text in model.asked]
    assert len(set(model.asked)) == len(answers) == verdict.rate.n
    assert verdict.rate.successes == sum(answer == "yes" for _, answer in answers)
    wrong = [(Scenario(asked(text)), answer) for text, answer in answers if answer == "no"]
    assert list(verdict.failures) == wrong[:5]


def test_a_budget_that_is_too_small_leaves_it_open() -> None:
    [verdict] = check([invariant("good")], Known({"good": 0.97}), budget=10)
    assert verdict.decision == "undecided" and verdict.rate.n == 10


def test_the_same_seed_asks_the_same() -> None:
    found = []
    for seed in (0, 0, 1):
        model = Known({"good": 0.83})
        check([invariant("good")], model, budget=60, seed=seed)
        found.append(model.asked)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("split", ["train", "development", "test"])
def test_one_split_is_asked_and_no_other(split: Split) -> None:
    model = Known({"good": 0.83})
    check([invariant("good")], model, budget=60, split=split)
    assert model.seen == {split}


# ---------------------------------------------------------------------- the smooth measure


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=60))
def test_a_smooth_measure_has_students_interval(values: list[float]) -> None:
    found = Smooth.of(values, "nats")
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9) and found.n == len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    low, high = (
        stats.t.interval(0.95, len(values) - 1, float(np.mean(values)), error) if error else 2 * (found.mean,)
    )
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_one_value_has_the_whole_line_for_an_interval() -> None:
    found = Smooth.of([1.5], "nats")
    assert (found.mean, found.low, found.high, found.n) == (1.5, -math.inf, math.inf, 1)


def test_the_smooth_measure_is_taken_of_each_scenario_that_was_asked() -> None:
    model = Known({"good": 0.97}, {"good": 1.25})
    [verdict] = check([invariant("good")], model, budget=200)
    margins = [model.lift(asked(text)) - len("yes") + len("no") for text in model.asked]
    assert verdict.smooth.mean == pytest.approx(np.mean(margins))
    low, high = stats.t.interval(0.95, len(margins) - 1, np.mean(margins), stats.sem(margins))
    assert (verdict.smooth.low, verdict.smooth.high) == pytest.approx((low, high))
    assert (verdict.smooth.n, verdict.smooth.unit) == (verdict.rate.n, "nats")


def test_without_unacceptable_beginnings_it_is_nats_per_token() -> None:
    model = Known({"good": 0.97}, {"good": -3.0})
    [verdict] = check([invariant("good", margin=Margin(["no", "yes!"]))], model, budget=20)
    assert verdict.smooth.unit == "nats per token"
    assert (verdict.smooth.mean, verdict.smooth.low) == (-1.0, -1.0), (
        "the likeliest is 'no', at 1 nat a letter"
    )


# ---------------------------------------------------------------------- asking


def test_a_prompt_of_two_invariants_is_asked_once() -> None:
    one = invariant("good", 40)
    other = replace(one, name="also", judge=RuleJudge(reject=["^yes"]))
    model = Known({"good": 0.83})
    found = check([one, other], model, budget=40)
    assert len(model.asked) == len(set(model.asked)) < sum(verdict.rate.n for verdict in found)
    yes, no = ({scenario for scenario, _ in verdict.failures} for verdict in found)
    assert yes and no and not yes & no


def test_answers_drawn_otherwise_are_other_answers() -> None:
    one = invariant("good", 40)
    warm, short = (
        replace(one, name=n, temperature=t, max_tokens=m) for n, t, m in [("w", 0.8, 48), ("s", 0.0, 5)]
    )
    model = Known({"good": 0.83})
    check([one, warm, short], model, budget=40, seed=7)
    speeches = {speech for _, speech in model.said}
    assert speeches == {Speech(0.0, 48, 7), Speech(0.8, 48, 7), Speech(0.0, 5, 7)}
    assert len(model.said) == len(set(model.said)) > len(set(model.asked))


def test_a_likelihood_judge_draws_no_answers() -> None:
    model = Known({}, {"likely": 2.0, "unlikely": 0.0})
    judge = LikelihoodJudge(threshold=0.5)
    found = check([invariant(name, judge=judge) for name in model.lifts], model, budget=100)
    assert model.said == [] and len(model.scored) == 2 * sum(verdict.rate.n for verdict in found)
    assert [verdict.decision for verdict in found] == ["holds", "violated"]
    margins = [model.lift(prompt) - 1 >= 0.5 for prompt, text in model.scored if text == "yes"]
    assert sum(verdict.rate.successes for verdict in found) == sum(margins)


def test_documents_are_scored_and_never_asked() -> None:
    texts = tuple(Scenario((), f"story {number}") for number in range(50))
    bare = invariant("read", judge=LikelihoodJudge(-1.5), margin=Margin(["{target}"]))
    stories = replace(bare, scenarios={"train": (), "development": (), "test": texts})

    class Reader(Known):
        def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> list[LogProbability]:
            assert {prompt for prompt, _ in texts} == {()}
            self.scored += texts
            return [LogProbability(-8.0, 8 if text.endswith("7") else 4) for _, text in texts]

    model = Reader({})
    [verdict] = check([stories], model, budget=50)
    assert model.said == [] and verdict.decision == "violated"
    assert verdict.rate.successes == sum(text.endswith("7") for _, text in model.scored)


def test_a_readout_judge_reads_the_answers() -> None:
    model = Known({"calm": 1.0}, {"calm": 3.0})
    high, low = ReadoutJudge("calm", at_least=2.6), ReadoutJudge("calm", at_most=2.4)
    of_high, of_low = check(
        [
            replace(invariant("calm", judge=judge, margin=None), name=str(place))
            for place, judge in enumerate((high, low))
        ],
        model,
        budget=60,
    )
    assert of_high.decision == "holds" and of_low.decision == "violated"
    values = {text: model.lift(asked(text)) for text in model.asked}
    assert min(values.values()) < 2.6 < max(values.values())
    assert {text for text in values if values[text] < 2.6} >= {
        one.prompt[-1].content for one, _ in of_high.failures
    }
    assert of_high.smooth.unit == "readout" and 2.5 < of_high.smooth.mean < 3.5


# ---------------------------------------------------------------------- what cannot be asked


def too_long(prompt: Prompt, target: str = "") -> Callable[[], Invariant]:
    def made() -> Invariant:
        one = invariant("good", 20)
        added = (*one.scenarios["test"], Scenario(prompt, target))
        judge = RuleJudge(accept=["^yes"]) if prompt else LikelihoodJudge()
        return replace(one, scenarios={**one.scenarios, "test": added}, judge=judge)

    return made


@pytest.mark.parametrize(
    ("wrong", "match", "error"),
    [
        (
            too_long(asked("x" * 953)),
            r"good: .*at most 952 tokens.*holds 1000 .*take 48, got 953",
            ScenarioTooLong,
        ),
        (too_long((), "x" * 1001), r"good: .*at most 1000 tokens.*got 1001", ScenarioTooLong),
        (
            lambda: invariant("good", judge=ReadoutJudge("angry", at_least=1.0)),
            "expected a concept that is loaded",
            ValueError,
        ),
        (lambda: invariant("good", 0), "good: expected scenarios in the test split, it has none", ValueError),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is(
    wrong: Callable[[], Invariant], match: str, error: type[Exception]
) -> None:
    model = Known({"fine": 0.97, "good": 0.97})
    with pytest.raises(error, match=match):
        check([invariant("fine"), wrong()], model, budget=1000)
    assert model.said == [] and model.scored == []


def test_a_scenario_that_just_fits_is_asked() -> None:
    model = Known({"x" * 952: 1.0, "good": 1.0})
    check([too_long(asked("x" * 952))()], model, budget=1000)
    assert "x" * 952 in model.asked


@pytest.mark.parametrize("answers", [["", "yes"], ["yes"], ["yes", "yes", "yes"], ["  \n", "yes"]])
def test_what_was_not_answered_is_an_error_and_never_a_pass(answers: list[str]) -> None:
    class Mute(Known):
        def answer(self, prompts: Sequence[Prompt], speech: Speech) -> list[str]:
            return answers

    with pytest.raises(NoAnswer, match="expected an"):
        check([invariant("good", 2)], Mute({}), budget=2)


@pytest.mark.parametrize("wrong", [math.nan, -math.inf, math.inf])
def test_numbers_that_are_none_are_an_error_and_never_a_verdict(wrong: float) -> None:
    class Broken(Known):
        def lift(self, prompt: Prompt) -> float:
            return wrong

    with pytest.raises(JudgeFailed, match="good: expected a finite margin"):
        check([invariant("good", 2)], Broken({"good": 1.0}), budget=2)
    with pytest.raises(JudgeFailed, match="good: expected finite readouts of calm"):
        judge = ReadoutJudge("calm", at_most=1.0)
        check([invariant("good", 2, judge=judge, margin=None)], Broken({"good": 1.0}), budget=2)


def test_several_turns_are_asked_as_they_are() -> None:
    prompt = (ChatMessage("user", "good a"), ChatMessage("assistant", "b"), ChatMessage("user", "good c"))
    one = invariant("good", 1)
    model = Known({"good": 1.0})
    check([replace(one, scenarios={**one.scenarios, "test": (Scenario(prompt),)})], model, budget=1)
    assert [prompt for prompt, _ in model.said] == [prompt]
