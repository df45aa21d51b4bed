"""Rates and intervals against published values, and measuring that cannot flatter."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from understudy.behaviours import Behaviour, Rate, Scenario, measure
from understudy.lessons import ChatMessage


def scenario(text: str, target: str = "") -> Scenario:
    return Scenario((ChatMessage("user", text),), target)


def echo(prompts: Sequence[tuple[ChatMessage, ...]]) -> list[str]:
    return [prompt[-1].content.upper() for prompt in prompts]


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_are_clopper_pearson(drawn: tuple[int, int]) -> None:
    successes, n = drawn
    low, high = Rate(successes, n).interval(0.95)
    assert low == pytest.approx(beta.ppf(0.025, successes, n - successes + 1) if successes else 0.0)
    assert high == pytest.approx(beta.ppf(0.975, successes + 1, n - successes) if successes < n else 1.0)
    assert low <= Rate(successes, n).value <= high


def test_a_rate_says_its_n() -> None:
    assert str(Rate(57, 60)) == "0.95 [0.86, 0.99] n=60"


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_impossible_rates_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
        Rate(successes, n)


def test_nothing_measured_has_no_value_and_says_nothing() -> None:
    assert Rate(0, 0).interval() == (0.0, 1.0)
    with pytest.raises(ValueError, match="0 scenarios"):
        _ = Rate(0, 0).value


def test_each_prompt_is_asked_once_and_judged_by_every_behaviour() -> None:
    asked: list[int] = []

    def answer(prompts: Sequence[tuple[ChatMessage, ...]]) -> list[str]:
        asked.append(len(prompts))
        return echo(prompts)

    shared = (scenario("yes", "YES"), scenario("no", "YES"))
    found = measure(
        [
            Behaviour("agrees", "", shared, lambda s, a: a == s.target),
            Behaviour("speaks", "", (*shared, scenario("more")), lambda s, a: bool(a)),
        ],
        answer,
    )
    assert asked == [3]
    assert found["agrees"].rate == Rate(1, 2)
    assert found["speaks"].rate == Rate(3, 3)
    assert [a for _, a, _ in found["speaks"].answers] == ["YES", "NO", "MORE"]


def test_a_missing_answer_is_an_error_not_a_result() -> None:
    one = Behaviour("one", "", (scenario("a"), scenario("b")), lambda s, a: True)
    with pytest.raises(ValueError, match="expected 2 answers, got 1"):
        measure([one], lambda prompts: ["only one"])


def test_a_behaviour_without_scenarios_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="'empty' has no scenarios"):
        measure([Behaviour("empty", "", (), lambda s, a: True)], echo)


def test_a_judge_that_fails_is_heard() -> None:
    def broken(scenario: Scenario, answer: str) -> bool:
        raise LookupError("no verdict")

    with pytest.raises(LookupError, match="no verdict"):
        measure([Behaviour("one", "", (scenario("a"),), broken)], echo)
