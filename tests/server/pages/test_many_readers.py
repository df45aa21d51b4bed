"""Two hundred readers, five writers and the model at once, by the load script, bounded."""

import statistics

from loading import load_script


def test_everyone_sees_every_message_once_and_in_order() -> None:
    result = load_script("benchmarks", "live_readers").measure(readers=200, writers=5, messages=24)
    assert result.messages >= 5 * 24, "and what the model said"
    assert len(result.seen) == 200 and result.wrong == 0
    assert result.refreshed == 0 and result.speeches > 0
    memory = result.memory_megabytes
    fifth = len(memory) // 5
    settled, last = statistics.mean(memory[fifth : 2 * fifth]), statistics.mean(memory[-fifth:])
    assert last < 1.3 * settled, "it does not grow with what is said"
