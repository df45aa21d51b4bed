"""When packed copies are made again; what they compute is in test_vllm_weights.py."""

from typing import Any

import pytest
import torch

from understudy.engine.vllm.packing import PASS_SECONDS, PackedMatrices, PackedMatrix


class Matrix:
    """Takes some of the clock's time to pack, and counts."""

    def __init__(self, clock: "Clock", seconds: float) -> None:
        self.clock, self.seconds, self.packed = clock, seconds, 0

    def pack(self) -> None:
        self.clock.now += self.seconds
        self.packed += 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def matrices(clock: Clock, *seconds: float) -> tuple[PackedMatrices, list[Any]]:
    packed = PackedMatrices(clock)
    made: list[Any] = [Matrix(clock, each) for each in seconds]
    for one in made:
        packed.add(one)
    return packed, made


def test_nothing_is_packed_while_nothing_moves(clock: Clock) -> None:
    packed, made = matrices(clock, 0.01, 0.01)
    packed.follow(0, training=False)
    assert [one.packed for one in made] == [0, 0]
    packed.follow(1, training=False)
    packed.follow(1, training=False)
    assert [one.packed for one in made] == [1, 1] and packed.generation == 1


def test_a_large_model_is_packed_over_several_passes(clock: Clock) -> None:
    packed, made = matrices(clock, *[0.06] * 5)
    for generation, expected in ((1, 2), (1, 4), (2, 5)):
        before = clock.now
        packed.follow(generation, training=False)
        assert clock.now - before <= PASS_SECONDS + 0.06
        assert sum(one.packed for one in made) == expected
    assert packed.generation == 1, "the copies may be older than what came meanwhile"
    packed.follow(2, training=False)
    assert made[0].packed == 2


def test_while_training_most_of_the_time_is_left_to_answers(clock: Clock) -> None:
    packed, _ = matrices(clock, 0.02)
    spent = 0.0
    for generation in range(1, 1001):
        before = clock.now
        packed.follow(generation, training=True)
        spent += clock.now - before
        clock.now += 0.005
    assert 0.05 <= spent / (clock.now - 100.0) <= 0.11
    packed.follow(1001, training=False)
    assert packed.generation == 1001, "at its end the session is served at once"


def test_the_handler_stays_and_the_old_copy_is_given_up() -> None:
    given_up: list[int] = []

    class Handler:
        def __init__(self, weight: torch.Tensor) -> None:
            self.handler_tensor = torch.tensor(int(weight[0, 0]))

        def __del__(self) -> None:
            given_up.append(int(self.handler_tensor))

    weight = torch.nn.Parameter(torch.full((2, 2), 7.0))
    matrix = PackedMatrix(weight, Handler)
    held = matrix.handler.handler_tensor
    weight.data.fill_(9.0)
    matrix.pack()
    assert int(held) == 9 and given_up == [7]
    assert held is matrix.handler.handler_tensor
