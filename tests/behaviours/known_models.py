"""Invariants and a model for them whose rates, probabilities and readouts are known."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from understudy.behaviours import (
    Invariant,
    LogProbability,
    Margin,
    Prompt,
    Requirement,
    RuleJudge,
    Scenario,
    Speech,
    Split,
)
from understudy.behaviours.judges import JudgeSpecification
from understudy.behaviours.specification import Kind
from understudy.lessons import ChatMessage

SPLITS: tuple[Split, ...] = ("train", "development", "test")
SAYS_YES = RuleJudge(accept=["^yes"])
BEGINS_YES = Margin(["yes"], ["no"])


def asked(text: str) -> Prompt:
    return (ChatMessage("user", text),)


def place(text: str) -> float:
    """A number in [0, 1) that follows from the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def invariant(
    name: str,
    count: int = 400,
    *,
    kind: Kind = "kept",
    judge: JudgeSpecification = SAYS_YES,
    margin: Margin | None = BEGINS_YES,
    temperature: float = 0.0,
    max_tokens: int = 48,
    **marks: float,
) -> Invariant:
    """It asks "<name> <split> 0", "<name> <split> 1" and so on, `count` in each split."""
    return Invariant(
        name=name,
        wanted="Says yes.",
        kind=kind,
        requirement=Requirement(**{"required": 0.9, "indifferent": 0.75, **marks}),
        judge=judge,
        scenarios={
            split: tuple(Scenario(asked(f"{name} {split} {number}")) for number in range(count))
            for split in SPLITS
        },
        margin=margin,
        temperature=temperature,
        max_tokens=max_tokens,
    )


@dataclass
class Known:
    """A model that goes by a prompt's first word: it says yes to that share of the prompts, always the same
    ones, and puts the margin of yes against no at `lifts`, give or take a half that depends on the prompt.
    """

    shares: dict[str, float]
    lifts: dict[str, float] = field(default_factory=dict)
    context_length: int = 1000
    said: list[tuple[Prompt, Speech]] = field(default_factory=list)
    scored: list[tuple[Prompt, str]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        """The texts of the prompts that were answered."""
        return [prompt[-1].content for prompt, _ in self.said]

    @property
    def seen(self) -> set[str]:
        """The splits of all prompts that were answered or scored."""
        texts = [*self.asked, *(prompt[-1].content for prompt, _ in self.scored)]
        return {text.split()[1] for text in texts}

    def length(self, prompt: Prompt) -> int:
        return sum(len(turn.content) for turn in prompt)

    def answer(self, prompts: Sequence[Prompt], speech: Speech) -> Sequence[str]:
        self.said += [(prompt, speech) for prompt in prompts]
        self.batches.append(len(prompts))
        return [self.say(prompt[-1].content) for prompt in prompts]

    def say(self, text: str) -> str:
        return "yes" if place(text) < self.shares[text.split()[0]] else "no"

    def lift(self, prompt: Prompt) -> float:
        text = prompt[-1].content
        return self.lifts.get(text.split()[0], 0.0) + place(f"lift of {text}") - 0.5

    def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> list[LogProbability]:
        self.scored += texts
        return [
            LogProbability((self.lift(prompt) if text.startswith("yes") else 0.0) - len(text), len(text))
            for prompt, text in texts
        ]

    def readouts(
        self, said: Sequence[tuple[Prompt, str]], concept: str, layer: int | None
    ) -> Sequence[float]:
        if concept != "calm":
            raise ValueError(f"expected a concept that is loaded (calm), got {concept!r}")
        return [self.lift(prompt) for prompt, _ in said]
