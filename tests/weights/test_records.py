"""What the newest weights hold of all that was ever changed, after any number of ways back."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from understudy.weights import WeightCommit, WeightHistory, changes_held, lessons_held, read_commits

WHEN = "2026-01-02T03:04:05Z"
Step = tuple[str, ...] | int
"""A change that learned these lessons, or the way back to the commit of that number; 0 is the beginning."""


def steps(size: int) -> st.SearchStrategy[list[Step]]:
    """Histories; a way back may lead to any commit before it, also to another way back."""
    change = st.lists(st.sampled_from("abcdef"), max_size=3, unique=True).map(tuple)

    @st.composite
    def drawn(draw: st.DrawFn) -> list[Step]:
        length = draw(st.integers(0, size))
        return [draw(change | st.integers(0, number)) for number in range(length)]

    return drawn()


def recorded(history: Sequence[Step]) -> tuple[WeightCommit, ...]:
    """The records that such a history leaves."""
    made: list[WeightCommit] = []
    for number, step in enumerate(history, start=1):
        about = WeightCommit("", number, made[-1].id if made else None, WHEN, "m", "a", None, (), {}, 0.0)
        if isinstance(step, int):
            about = replace(about, details={"restores": made[step - 1].id if step else None})
        else:
            about = replace(about, lessons=step)
        made.append(about.identified())
    return tuple(made)


def by_hand(history: Sequence[Step]) -> list[int]:
    """The numbers of the changes held, from the beginning on: what was held after each commit is kept."""
    held: list[list[int]] = [[]]
    for number, step in enumerate(history, start=1):
        held.append(held[step] if isinstance(step, int) else [*held[-1], number])
    return held[-1]


@settings(deadline=None)
@given(steps(14))
def test_the_changes_held_are_those_not_undone(history: list[Step]) -> None:
    commits = recorded(history)
    expected = by_hand(history)
    assert [commit.number for commit in changes_held(commits)] == expected
    learned = [history[number - 1] for number in expected]
    assert lessons_held(commits) == {one for step in learned if isinstance(step, tuple) for one in step}
    for earlier in range(len(history)):
        assert [one.number for one in changes_held(commits[:earlier])] == by_hand(history[:earlier])


def test_nothing_is_held_before_the_first_commit() -> None:
    assert changes_held(()) == () and lessons_held(()) == frozenset()


@settings(max_examples=40, deadline=None)
@given(steps(6))
def test_a_real_history_holds_what_its_weights_are_made_of(history: list[Step]) -> None:
    """Each change adds its own power of two, so the weights tell which are in them."""
    with tempfile.TemporaryDirectory() as folder:
        live = {"a": torch.zeros(3)}
        save_file(live, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        opened, done = WeightHistory.open(Path(folder)), list[Step]()
        for step in history:
            number = len(done) + 1
            if isinstance(step, int):
                if step >= len(done):
                    continue  # nothing to restore: refused
                target = opened.commits[step - 1].id if step else None
                opened.restore(live, target, author="a", created=WHEN)
            else:
                live["a"].add_(2.0**number)
                opened.commit(live, message="m", author="a", created=WHEN, lessons=step)
            done.append(step)
            held = [one.number for one in changes_held(read_commits(Path(folder)))]
            assert held == by_hand(done)
            assert live["a"].tolist() == [float(sum(2**one for one in held))] * 3
