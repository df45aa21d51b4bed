"""The plan for reading several sequences as one: what is read, in what order, each beginning once."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from understudy.training.trie import Run, plan_reading

Sequences = list[tuple[int, ...]]

# Few different tokens, so that beginnings are shared, sequences equal, and some begin others.
sequences = st.lists(st.lists(st.integers(0, 2), max_size=8).map(tuple), max_size=9)


def beginnings(given_sequences: Sequences) -> set[tuple[int, ...]]:
    return {sequence[:end] for sequence in given_sequences for end in range(1, len(sequence) + 1)}


def walk(runs: tuple[Run, ...]) -> list[tuple[int, ...]]:
    """What has been read from the very beginning after each run, by a reader who keeps one path of states."""
    path: list[tuple[int, ...]] = [()]
    after = []
    for run in runs:
        while len(path[-1]) > run.start:
            path.pop()
        assert len(path[-1]) == run.start  # the state that the run goes on from is on the path
        if run.tokens:
            path.append(path[-1] + run.tokens)
        after.append(path[-1])
    return after


@given(sequences)
def test_every_sequence_ends_where_its_place_says(given_sequences: Sequences) -> None:
    runs = plan_reading(given_sequences)
    ends = {place: read for run, read in zip(runs, walk(runs), strict=True) for place in run.places}
    assert ends == dict(enumerate(given_sequences))
    assert sum(len(run.places) for run in runs) == len(given_sequences)


@given(sequences)
def test_every_beginning_is_read_exactly_once(given_sequences: Sequences) -> None:
    runs = plan_reading(given_sequences)
    read = [
        whole[:end]
        for run, whole in zip(runs, walk(runs), strict=True)
        for end in range(run.start + 1, run.end + 1)
    ]
    assert len(read) == len(set(read))
    assert set(read) == beginnings(given_sequences)


@given(sequences)
def test_no_run_is_cut_without_need(given_sequences: Sequences) -> None:
    runs = plan_reading(given_sequences)
    after = walk(runs)
    for run, whole in zip(runs, after, strict=True):
        assert run.tokens or (run.places and run.start == 0)
        branches = sum(
            other.start == run.end and longer[: run.end] == whole and bool(other.tokens)
            for other, longer in zip(runs, after, strict=True)
        )
        assert run.places or branches > 1


@given(sequences)
def test_branches_come_in_the_order_of_their_sequences(given_sequences: Sequences) -> None:
    runs = plan_reading(given_sequences)
    order = [place for run in runs for place in run.places]
    first: dict[tuple[int, ...], int] = {}
    for place, sequence in enumerate(given_sequences):
        for end in range(len(sequence) + 1):
            first.setdefault(sequence[:end], place)
    for one, other in pairwise(order):
        left, right = given_sequences[one], given_sequences[other]
        shared = next(
            (end for end, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]),
            min(len(left), len(right)),
        )
        assert left != right or one < other
        if len(left) > shared and len(right) > shared:  # two branches: the one that was named first
            assert first[left[: shared + 1]] < first[right[: shared + 1]]
        else:
            assert len(left) <= len(right)  # a sequence before those that continue it


def test_a_thread_with_branches() -> None:
    thread = [(1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 6), (), (1, 2, 3), (1, 2, 3, 4), (9,)]
    assert plan_reading(thread) == (
        Run(0, (), (3,)),
        Run(0, (1, 2), ()),
        Run(2, (3,), (0, 4)),
        Run(3, (4,), (5,)),
        Run(4, (5,), (1,)),
        Run(2, (6,), (2,)),
        Run(0, (9,), (6,)),
    )


def test_nothing_to_read() -> None:
    assert plan_reading([]) == ()
    assert plan_reading([(), ()]) == (Run(0, (), (0, 1)),)


def test_a_thread_deeper_than_the_stack() -> None:
    replies = [tuple(range(length)) for length in range(1, 1501)]
    runs = plan_reading(replies)
    assert [run.places for run in runs] == [(place,) for place in range(1500)]
    assert sum(len(run.tokens) for run in runs) == 1500
