"""What the server asks of an engine, whichever it is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from understudy.config import ModelSettings
from understudy.engine.detokenize import TokenTexts
from understudy.engine.directions import Directions
from understudy.engine.pool import Stream
from understudy.engine.request import (
    Completion,
    GenerationRequest,
    GenerationStep,
    Score,
    ScoreRequest,
    WeightState,
)

T = TypeVar("T")


class Engine(Protocol):
    """A served model that speaks, scores, and says which weights it speaks with.

    `weight_commit` is set by the owner of the weights' history; answers report it.
    """

    weight_commit: str | None

    @property
    def settings(self) -> ModelSettings: ...

    @property
    def directory(self) -> Path:
        """The model directory."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def texts(self) -> TokenTexts: ...

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""

    @property
    def vocabulary(self) -> int:
        """Token ids are below this."""

    @property
    def weights(self) -> WeightState:
        """The weights as they are now."""

    @property
    def directions(self) -> Directions | None:
        """What it can read and steer by."""

    @property
    def manifest(self) -> Path:
        """The manifest of the mapping that the weights lie in."""

    @property
    def running(self) -> int:
        """Requests that are being worked on."""

    @property
    def waiting(self) -> int:
        """Requests that wait their turn."""

    def submit(self, request: GenerationRequest) -> Stream[tuple[GenerationStep, ...]]:
        """Answer; each item holds steps of some rows. Raises what an engine refuses at once."""

    def submit_score(self, sequences: Sequence[ScoreRequest]) -> Stream[tuple[int, Score]]:
        """Score; items are (number of the sequence, its score), in any order."""

    def complete(self, request: GenerationRequest) -> tuple[Completion, ...]:
        """Whole answers. Blocks: not for an event loop's thread."""

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call`, made on a worker thread."""
