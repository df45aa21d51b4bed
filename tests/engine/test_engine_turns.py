"""Turns are exclusive and fair."""

import threading

from understudy.engine.turns import Turns


def test_only_one_has_the_turn_and_nobody_is_passed_over() -> None:
    turns, threads, rounds = Turns(), 4, 200
    inside, order, most = 0, [], 0
    ready = threading.Barrier(threads)

    def work(name: int) -> None:
        nonlocal inside, most
        ready.wait()
        for _ in range(rounds):
            with turns:
                inside += 1
                most = max(most, inside)
                order.append(name)
                inside -= 1

    workers = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == 1
    assert len(order) == threads * rounds


def test_the_one_who_waits_longest_goes_next() -> None:
    turns, order = Turns(), []
    waiting: list[threading.Thread] = []

    def wait(name: int) -> None:
        with turns:
            order.append(name)

    with turns:
        for name in range(5):
            thread = threading.Thread(target=wait, args=(name,))
            thread.start()
            waiting.append(thread)
            while len(turns._waiting) <= name:
                pass
    for thread in waiting:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_turn_ends_when_its_holder_fails() -> None:
    turns = Turns()
    try:
        with turns:
            raise ValueError("mine")
    except ValueError:
        pass
    with turns:
        pass
