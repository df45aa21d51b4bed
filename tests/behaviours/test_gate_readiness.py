"""What the gate looks at before a session: whether it could be judged, and what is rehearsed in it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from judge_server import Judge, judging
from known_models import Known, asked, invariant
from msgspec.structs import replace

from understudy.behaviours import (
    Gate,
    Invariant,
    JudgeFailed,
    LikelihoodJudge,
    Margin,
    ModelJudge,
    NoAnswer,
    Prompt,
    ReadoutJudge,
    Scenario,
    ScenarioTooLong,
    Speech,
    contrast,
)
from understudy.config import GateSettings
from understudy.lessons import ChatMessage

SETTINGS = GateSettings(probes=12, budget=80)


def long_one() -> Invariant:
    one = invariant("good", 20)
    added = (*one.scenarios["development"], Scenario(asked("good development " + "x" * 1000)))
    return replace(one, scenarios={**one.scenarios, "development": added})


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda: invariant("good", 0), ValueError, "good: expected scenarios in the development split"),
        (long_one, ScenarioTooLong, "good: expected scenarios of at most 952 tokens"),
        (lambda: invariant("good", judge=ReadoutJudge("angry", at_least=1.0)), ValueError, "is loaded"),
        (
            lambda: invariant("good", judge=ModelJudge("http://127.0.0.1:9/v1", "m", "none.jsonl")),
            ValueError,
            r"good: expected labelled answers in none\.jsonl",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["kept", "wanted"])
def test_what_could_not_be_judged_is_said_before_anything_is_asked(
    wrong: Callable[[], Invariant], error: type[Exception], match: str, kind: str
) -> None:
    model = Known({"good": 1.0, "fine": 1.0})
    with pytest.raises(error, match=match):
        Gate([invariant("fine"), replace(wrong(), kind=kind)], model, SETTINGS)
    assert model.said == [] and model.scored == []


def test_a_judge_that_is_away_is_noticed_before(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text('{"prompt": "x", "answer": "yes", "shows": true}\n')
    with judging() as judge:
        judge.status = 503
        one = replace(invariant("good", judge=ModelJudge(judge.url, "m", "l.jsonl")), folder=tmp_path)
        with pytest.raises(JudgeFailed, match="got 503"):
            Gate([one], Known({"good": 1.0}), SETTINGS)


def test_only_what_the_budget_reaches_has_to_fit() -> None:
    one = long_one()
    for seed in range(3):
        assert Gate([one], Known({"good": 1.0}), GateSettings(budget=1, seed=seed)).kept == (one,)
    with pytest.raises(ScenarioTooLong):
        Gate([one], Known({"good": 1.0}), GateSettings(budget=21))


# ---------------------------------------------------------------------- what is rehearsed


def test_what_is_rehearsed_is_the_models_own_and_of_the_train_split() -> None:
    model = Known({"good": 0.7}, {"good": 1.0})
    found = contrast(invariant("good", 100), model, 40, seed=3)
    assert len(model.asked) == 40 and model.seen == {"train"}
    assert [prompt for prompt, _ in found] == [p for p, _ in model.said if model.say(p[-1].content) == "yes"]
    assert {text for _, text in found} == {"yes"} and 20 < len(found) < 40
    assert {speech for _, speech in model.said} == {Speech(0.0, 48, 3)}


def test_it_follows_from_the_seed_and_grows_with_the_count() -> None:
    one = invariant("good", 100)
    few, many, other = (
        contrast(one, Known({"good": 1.0}), count, seed) for count, seed in [(8, 0), (16, 0), (8, 1)]
    )
    assert many[:8] == few and len(few) == len(other) == 8 and few != other
    assert contrast(one, Known({"good": 1.0}), 0, 0) == []
    assert len(contrast(one, Known({"good": 1.0}), 1000, 0)) == 100


def test_answers_are_drawn_as_the_invariant_says() -> None:
    model = Known({"good": 1.0})
    contrast(invariant("good", 9, temperature=0.8, max_tokens=7), model, 9, seed=1)
    assert {speech for _, speech in model.said} == {Speech(0.8, 7, 1)}


@pytest.mark.parametrize(
    "one",
    [
        invariant("good", judge=LikelihoodJudge(), margin=Margin(["{target}"])),
        invariant("good", judge=ReadoutJudge("calm", at_least=0.0)),
        replace(invariant("good"), scenarios={**invariant("good").scenarios, "train": ()}),
    ],
    ids=["likelihood", "readout", "no train split"],
)
def test_where_no_answer_shows_it_nothing_is_rehearsed(one: Invariant) -> None:
    model = Known({"good": 1.0})
    assert contrast(one, model, 32, 0) == [] and model.said == [] and model.scored == []


def test_what_a_judging_model_passes_is_rehearsed(tmp_path: Path) -> None:
    with judging() as judge:
        judge.wrong_where_not = 1.0
        one = replace(invariant("good", judge=ModelJudge(judge.url, "m", "l.jsonl")), folder=tmp_path)
        found = contrast(one, model := Known({"good": 0.5}), 20, 0)
        assert len(found) == 20 == len(model.asked), "this judge says yes to all"
        assert {text for _, text in found} == {"yes", "no"}
        assert {question_of(judge, place) for place in range(20)} == set(model.asked)


def question_of(judge: Judge, place: int) -> str:
    """The prompt that the judge was shown."""
    return judge.questions[place].partition("user: ")[2].partition("\n")[0]


def test_what_cannot_be_answered_is_an_error() -> None:
    class Mute(Known):
        def answer(self, prompts: Sequence[Prompt], speech: Speech) -> list[str]:
            return [" "] * len(prompts)

    with pytest.raises(NoAnswer, match="got an empty one"):
        contrast(invariant("good", 3), Mute({}), 3, 0)
    one = invariant("good", 3)
    long = Scenario((ChatMessage("user", "x" * 990),))
    with pytest.raises(ScenarioTooLong):
        contrast(replace(one, scenarios={**one.scenarios, "train": (long,)}), Known({}), 3, 0)
