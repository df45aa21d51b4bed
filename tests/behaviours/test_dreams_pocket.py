"""Dreams on the pocket model, whole: what lessons left undone is raised, and nothing is seen to be lost."""

from typing import Any

import pytest
from loading import load_script

from understudy.behaviours import HeldOut, read_invariants, split_of
from understudy.pocket.invariants import folder


@pytest.fixture(scope="module")
def dreaming() -> Any:
    """The benchmark as a module."""
    return load_script("benchmarks", "dreaming")


def test_one_round_raises_what_ten_lessons_left_undone(dreaming: Any) -> None:
    invariants = {one.name: one for one in read_invariants(folder())}
    laboratory = dreaming.opened()
    try:
        before, after, report, dreams = dreaming.run_draw(
            laboratory, tuple(invariants.values()), draw=2, split="test", budget=200
        )
    finally:
        laboratory.close()
    own_words = invariants["own-words"].requirement
    assert before["own-words"].interval()[1] < own_words.required, "the lessons alone leave it under its mark"
    assert after["own-words"].interval()[0] > before["own-words"].value
    for name, invariant in invariants.items():
        if invariant.kind == "kept":
            assert after[name].interval()[1] >= invariant.requirement.required, f"{name} is below its mark"

    assert report.reach == "in the zone" and 0.2 <= report.settled.value <= 0.5
    assert report.correlation is not None and report.correlation.low > 0.4
    held = HeldOut(tuple(invariants.values()))
    assert len(dreams) <= 200 and {one.invariant for one in dreams} >= {"own-words", "push-back"}
    for one in dreams:
        assert split_of(one.scenario) == "train" and not held.leaks(invariants[one.invariant], one.scenario)
