"""What checking costs: twenty invariants on the pocket model, batched against one answer at a time, and the
gate against the session that it judges.

`python benchmarks/checking.py`
"""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import torch

from understudy.behaviours import (
    EngineVoice,
    Gate,
    Invariant,
    LogProbability,
    ModelSubject,
    Prompt,
    Speech,
    check,
    read_invariants,
)
from understudy.config import GateSettings, TrainingSettings
from understudy.pocket import checkpoint_directory, replay
from understudy.pocket.invariants import folder
from understudy.watching import Laboratory
from understudy.workspace import Rehearsal

Found = TypeVar("Found")
INVARIANTS = 20


@dataclass
class OneByOne:
    """A subject that is asked and scored one prompt at a time: the peer."""

    subject: ModelSubject

    @property
    def context_length(self) -> int:
        return self.subject.context_length

    def length(self, prompt: Prompt) -> int:
        return self.subject.length(prompt)

    def answer(self, prompts: Sequence[Prompt], speech: Speech) -> list[str]:
        return [text for prompt in prompts for text in self.subject.answer([prompt], speech)]

    def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> list[LogProbability]:
        return [found for text in texts for found in self.subject.log_probabilities([text])]

    def readouts(
        self, said: Sequence[tuple[Prompt, str]], concept: str, layer: int | None
    ) -> Sequence[float]:
        return self.subject.readouts(said, concept, layer)


def many(count: int) -> list[Invariant]:
    """The pocket model's invariants, again under other names: those draw other scenarios first."""
    shipped = itertools.islice(itertools.cycle(read_invariants(folder())), count)
    return [msgspec.structs.replace(one, name=f"{one.name}-{number}") for number, one in enumerate(shipped)]


def seconds(work: Callable[[], Found]) -> tuple[float, Found]:
    """How long a call takes, and what it gives."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--budget", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainingSettings(rank=1)
    rehearsals = [Rehearsal(tuple(messages), kept) for messages, kept in replay(seed=0, count=400)]
    laboratory = Laboratory(checkpoint_directory(), settings, rehearsals)
    subject = ModelSubject(EngineVoice(laboratory.engine))
    invariants = many(INVARIANTS)
    check(invariants[:2], subject, budget=16, split="development")  # warm
    batched, verdicts = seconds(lambda: check(invariants, subject, budget=given.budget, split="development"))
    alone, same = seconds(
        lambda: check(invariants, OneByOne(subject), budget=given.budget, split="development")
    )
    agreed = sum(one.decision == other.decision for one, other in zip(verdicts, same, strict=True))
    asked = sum(one.rate.n for one in verdicts)
    ratio = f"batched {batched:.1f} s, one by one {alone:.1f} s, ratio {batched / alone:.2f}"
    print(f"{INVARIANTS} invariants, {asked} scenarios: {ratio}")
    print(f"decided alike: {agreed} of {len(verdicts)} (drawn answers differ, and rounding does)")

    gate = Gate(read_invariants(folder()), subject, GateSettings())
    laboratory.reset()
    fast, before = seconds(gate.probe)
    session, _ = seconds(lambda: laboratory.session(laboratory.lessons(0, 10), settings))
    whole, ruling = seconds(lambda: gate.rule(before, before, 0.0))
    now = gate.probe()
    still, _ = seconds(lambda: gate.rule(before, now, 0.0))
    asked_too = f"with {len(ruling.evidence['verdicts'])} invariants asked {whole:.1f} s ({ruling.choice})"
    print(
        f"the gate: probes before {fast:.1f} s; after, nothing fallen, {still:.1f} s; {asked_too}; ", end=""
    )
    print(f"the session of ten lessons {session:.1f} s")
    laboratory.close()


if __name__ == "__main__":
    main()
