"""What is asked of an engine and what it answers: values without torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from understudy.engine.errors import BadRequest
from understudy.engine.steer import Steer

FinishReason = Literal["stop", "length"]
ReadoutSpan = Literal["answer", "all"]
Readout = Sequence[Sequence[Sequence[float]]]
"""[tokens][layers][concepts]: what the residual stream says of each concept where a token was chosen.

A token of an answer is chosen at the position before it; a prompt's are read at their own positions.
"""
MAX_LOGPROBS = 20
"""Alternatives that can be asked for per token, as in OpenAI's API."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Temperature 0 is greedy. `top_k` 0 and `top_p` 1 leave the distribution whole. `max_tokens` None
    means: as much as the context holds. The same `seed` gives the same answer to the same request with
    the same weights, whatever else runs. `logprobs` asks for the log-probability of each token, and of
    that many most likely alternatives. `ignore_eos` goes on past the end that the model would choose.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "at least 1", self.max_tokens)
        finite = math.isfinite(self.temperature) and self.temperature >= 0
        _require(finite, "temperature", "a number of at least 0", self.temperature)
        _require(0 < self.top_p <= 1, "top_p", "a number above 0 and at most 1", self.top_p)
        _require(self.top_k >= 0, "top_k", "0 (off) or more", self.top_k)
        _require(all(self.stop), "stop", "strings of at least one character", self.stop)
        _require(
            self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
            "logprobs",
            f"0 to {MAX_LOGPROBS}",
            self.logprobs,
        )
        _require(self.seed is None or -(2**63) <= self.seed < 2**63, "seed", "a 64-bit integer", self.seed)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Several prompts (token ids), each answered `samples` times, decoded together as one batch.

    Row `prompt * samples + sample` is the answer number `sample` to prompt number `prompt`. `readout` asks
    for the concepts' readouts at each token of the answers, or of prompts and answers (`all`).
    """

    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 1
    readout: ReadoutSpan | None = None
    steering: tuple[Steer, ...] = ()
    at_once: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.prompts), "prompts", "at least one", self.prompts)
        _require(self.samples >= 1, "samples", "at least 1", self.samples)
        for number, prompt in enumerate(self.prompts):
            _require(bool(prompt), f"prompt {number}", "at least one token", prompt)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's natural log-probability as the model sees it: before temperature, top-p and top-k."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationStep:
    """What one row gained: its new tokens, and the text that is certain by now.

    Text lags behind the tokens while a character is incomplete or a stop string may be beginning.
    `finish_reason` is set on a row's last step. A prompt's readout comes with its row's first step.
    """

    row: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason | None
    readout: Readout = ()
    prompt_readout: Readout = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One whole answer. `token_ids` holds the end-of-turn token when the model said one; `text` does not."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason
    readout: Readout = ()
    prompt_readout: Readout = ()


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A sequence whose tokens in `ranges` (each [start, end)) are to be scored given all before them."""

    token_ids: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _require(bool(self.ranges), "ranges", "at least one", self.ranges)
        for start, end in self.ranges:
            if start == 0:
                raise BadRequest(
                    "expected ranges that start at 1 or later, because nothing stands before token 0 "
                    f"to predict it; got [0, {end})"
                )
            _require(
                0 < start < end <= len(self.token_ids),
                "range",
                f"0 < start < end <= {len(self.token_ids)} (the number of tokens)",
                [start, end],
            )


@dataclass(frozen=True, slots=True)
class Score:
    """Natural log-probabilities, one tuple per requested range, one number per token."""

    logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class WeightState:
    """Which weights speak: the last commit, the optimizer steps since start, and whether they move."""

    commit: str | None
    step: int
    training: bool


def _require(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise BadRequest(f"{name}: expected {expected}, got {got!r}")
