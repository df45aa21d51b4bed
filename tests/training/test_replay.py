"""The replay schedule keeps its shares after every lesson, repeats itself, and wears examples evenly."""

import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.lessons import Example
from understudy.training import Replay, ReplayError

POOL = tuple(Example((1,), (number,), kept=number < 4) for number in range(10))
LEARNED = tuple(Example((2,), (number,), learned=True, kept=number == 0) for number in range(4))
hundredths = st.integers(0, 95)


@given(hundredths, st.integers(0, 100), st.integers(0, 5), st.integers(1, 60))
def test_shares_hold_after_every_lesson(share: int, contrast: int, seed: int, lessons: int) -> None:
    replay = Replay(POOL, share / 100, contrast / 100, 0.5, seed)
    shown: list[Example] = []
    for lesson in range(1, lessons + 1):
        shown += replay.due(lesson)
        exact = Fraction(share, 100)
        assert len(shown) == math.floor(lesson * exact / (1 - exact))
        kept = sum(example.kept for example in shown)
        assert kept == math.ceil(len(shown) * Fraction(contrast, 100))


@given(hundredths, st.integers(0, 100), st.integers(0, 100), st.integers(0, 5), st.integers(1, 60))
def test_the_share_of_learned_lessons_holds_after_every_lesson(
    share: int, contrast: int, learned: int, seed: int, lessons: int
) -> None:
    replay = Replay(POOL + LEARNED, share / 100, contrast / 100, learned / 100, seed)
    shown: list[Example] = []
    for lesson in range(1, lessons + 1):
        shown += replay.due(lesson)
        kept = sum(example.kept for example in shown)
        assert kept == math.ceil(len(shown) * Fraction(contrast, 100))
        rest = [example for example in shown if not example.kept]
        assert sum(example.learned for example in rest) == math.ceil(len(rest) * Fraction(learned, 100))


@given(hundredths, st.integers(0, 100), st.integers(0, 100), st.integers(0, 5), st.integers(1, 60))
def test_before_the_first_lesson_is_learned_others_stand_in(
    share: int, contrast: int, learned: int, seed: int, lesson: int
) -> None:
    with_share = Replay(POOL, share / 100, contrast / 100, learned / 100, seed)
    assert with_share.due(lesson) == Replay(POOL, share / 100, contrast / 100, 0.0, seed).due(lesson)


def test_the_default_shares_with_lessons_learned() -> None:
    replay = Replay(POOL + LEARNED, 0.25, 0.5, 0.5, 0)
    due = [example for lesson in range(1, 25) for example in replay.due(lesson)]
    kinds = ["kept" if example.kept else "learned" if example.learned else "other" for example in due]
    assert kinds == ["kept", "learned", "kept", "other"] * 2


def test_the_default_shares() -> None:
    replay = Replay(POOL, 0.25, 0.5, 0.5, 0)
    due = [replay.due(lesson) for lesson in range(1, 13)]
    assert [len(examples) for examples in due] == [0, 0, 1] * 4
    assert [examples[0].kept for examples in due if examples] == [True, False, True, False]


@given(st.integers(0, 5), st.integers(0, 60))
def test_any_restart_repeats_it(seed: int, start: int) -> None:
    one, other = Replay(POOL, 0.6, 0.5, 0.5, seed), Replay(POOL, 0.6, 0.5, 0.5, seed)
    whole = [one.due(lesson) for lesson in range(1, 80)]
    assert [other.due(lesson) for lesson in range(start + 1, 80)] == whole[start:]


def test_seeds_differ() -> None:
    first, second = (
        [Replay(POOL, 0.5, 0.5, 0.5, seed).due(lesson) for lesson in range(1, 30)] for seed in (0, 1)
    )
    assert first != second


def test_examples_are_used_up_before_any_comes_again() -> None:
    replay = Replay(POOL, 0.5, 0.4, 0.5, 3)
    shown = Counter(example for lesson in range(1, 101) for example in replay.due(lesson))
    assert set(shown.values()) == {10}


def test_a_pool_that_cannot_serve_is_refused() -> None:
    kept = tuple(example for example in POOL if example.kept)
    with pytest.raises(ReplayError, match=r"expected other examples .* got 4 kept, 0 learned, 0 other"):
        Replay(kept, 0.25, 0.5, 0.5, 0)
    with pytest.raises(ReplayError, match=r"expected kept and other examples .* set replay to 0"):
        Replay((), 0.25, 0.5, 0.5, 0)
    with pytest.raises(ReplayError, match=r"expected other examples .* got 5 kept, 3 learned, 0 other"):
        Replay(kept + LEARNED, 0.25, 0.5, 0.5, 0)
    assert Replay(kept + LEARNED, 0.25, 0.5, 1.0, 0).due(6)[0].learned
    assert Replay(kept, 0.25, 1.0, 0.5, 0).due(3)[0].kept
    assert Replay((), 0.0, 0.5, 0.5, 0).due(1000) == ()
    with pytest.raises(ValueError, match="from 1"):
        Replay(POOL, 0.25, 0.5, 0.5, 0).due(0)
