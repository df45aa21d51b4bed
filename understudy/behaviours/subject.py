"""The model under test: asked, scored and read through one small surface, wherever it is served."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from understudy.behaviours.scenarios import Prompt

if TYPE_CHECKING:
    from understudy.engine import Completion, GenerationRequest, Score, ScoreRequest

T = TypeVar("T")
U = TypeVar("U")
TOGETHER = 128
"""Prompts or sequences in one request: what fills a batch, and a third of what a server takes."""


@dataclass(frozen=True, slots=True)
class Speech:
    """How answers are drawn. Temperature 0 takes the likeliest token."""

    temperature: float = 0.0
    max_tokens: int = 48
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LogProbability:
    """Of a text after a prompt: nats for the whole of it, and its tokens."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.total / self.tokens


class Subject(Protocol):
    """What can be asked of a model. All methods block, and raise what their engine raises."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""

    def length(self, prompt: Prompt) -> int:
        """Tokens of a prompt."""

    def answer(self, prompts: Sequence[Prompt], speech: Speech) -> Sequence[str]:
        """One answer to each prompt, in order."""

    def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> Sequence[LogProbability]:
        """How likely each text is as the beginning of the answer; as a document when there is no prompt."""

    def readouts(
        self, said: Sequence[tuple[Prompt, str]], concept: str, layer: int | None
    ) -> Sequence[float]:
        """What the residual stream says of a concept over each answer's tokens, on average; over all layers
        that have it when none is named.
        """


class Dreamer(Subject, Protocol):
    """A subject that also says what people would: it goes on with what one of them began to say."""

    def continue_user(self, begun: Sequence[Prompt], speech: Speech) -> Sequence[str | None]:
        """The last message of each prompt, a person's of which only the beginning is given, as the model has
        it go on to the end of the turn; None where that does not come in time.
        """


class Voice(Protocol):
    """What a subject needs of an engine; `EmbeddedEngine` is one."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def context_length(self) -> int: ...

    def complete(self, request: "GenerationRequest") -> "tuple[Completion, ...]":
        """Whole answers, prompt by prompt."""

    def score(self, sequences: "Sequence[ScoreRequest]") -> "tuple[Score, ...]":
        """Log-probabilities of the chosen ranges of each sequence."""

    def concepts(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The concepts and layers that readouts have, in their order."""


class ModelSubject:
    """A subject over a voice, with the model's own chat template."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._encoded: dict[Prompt, tuple[int, ...]] = {}

    @property
    def context_length(self) -> int:
        return self._voice.context_length

    def length(self, prompt: Prompt) -> int:
        return len(self._ids(prompt))

    def answer(self, prompts: Sequence[Prompt], speech: Speech) -> list[str]:
        from understudy.engine import GenerationRequest, Sampling

        sampling = Sampling(max_tokens=speech.max_tokens, temperature=speech.temperature, seed=speech.seed)

        def ask(some: Sequence[Prompt]) -> list[str]:
            request = GenerationRequest(tuple(self._ids(prompt) for prompt in some), sampling)
            return [said.text.strip() for said in self._voice.complete(request)]

        return in_batches(prompts, ask, size=self.length)

    def continue_user(self, begun: Sequence[Prompt], speech: Speech) -> list[str | None]:
        """See Dreamer. Raises ValueError where the chat template does not render people's messages alike."""
        from understudy.engine import GenerationRequest, Sampling

        sampling = Sampling(max_tokens=speech.max_tokens, temperature=speech.temperature, seed=speech.seed)

        def ask(some: Sequence[Prompt]) -> list[str | None]:
            request = GenerationRequest(tuple(self._begun_ids(prompt) for prompt in some), sampling)
            said = zip(some, self._voice.complete(request), strict=True)
            return [
                prompt[-1].content + one.text if one.finish_reason == "stop" else None for prompt, one in said
            ]

        return in_batches(begun, ask, size=self.length)

    def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> list[LogProbability]:
        from understudy.engine import ScoreRequest

        asked: list[ScoreRequest] = []
        for prompt, text in texts:
            context, continuation = self._parts(prompt, text)
            asked.append(
                ScoreRequest((*context, *continuation), ((len(context), len(context) + len(continuation)),))
            )

        def score(some: Sequence[ScoreRequest]) -> list[LogProbability]:
            spans = [one.logprobs[0] for one in self._voice.score(some)]
            return [LogProbability(sum(span), len(span)) for span in spans]

        return in_batches(asked, score, size=lambda one: len(one.token_ids))

    def readouts(self, said: Sequence[tuple[Prompt, str]], concept: str, layer: int | None) -> list[float]:
        from understudy.engine import GenerationRequest, Sampling

        concepts, layers = self._voice.concepts()
        if concept not in concepts or layer not in (None, *layers):
            raise ValueError(
                f"expected a concept and layer that are loaded ({', '.join(concepts) or 'none'}; layers "
                f"{list(layers)}), got {concept!r} and {layer}"
            )
        column = concepts.index(concept)
        rows = range(len(layers)) if layer is None else (layers.index(layer),)
        parts = [self._parts(prompt, text) for prompt, text in said]

        def read(some: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
            request = GenerationRequest(
                tuple((*context, *answer) for context, answer in some), Sampling(max_tokens=1), readout="all"
            )
            found = []
            for (_, answer), done in zip(some, self._voice.complete(request), strict=True):
                tokens = done.prompt_readout[-len(answer) :]
                found.append(
                    sum(token[row][column] for token in tokens for row in rows) / (len(tokens) * len(rows))
                )
            return found

        return in_batches(parts, read, size=lambda one: len(one[0]) + len(one[1]))

    def _ids(self, prompt: Prompt) -> tuple[int, ...]:
        from understudy.engine import encode_chat

        if prompt not in self._encoded:
            self._encoded[prompt] = encode_chat(self._voice.tokenizer, prompt)
        return self._encoded[prompt]

    def _begun_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's ids up to the end of its last message's text, whose turn is left open.

        What comes behind the text is what two prompts with other texts have in common behind theirs.
        """
        one, other = (self._ids((*prompt[:-1], replace(prompt[-1], content=text))) for text in "ab")
        same = (a == b for a, b in zip(reversed(one), reversed(other), strict=False))
        behind = sum(1 for _ in itertools.takewhile(bool, same))
        whole = self._ids(prompt)
        if prompt[-1].role != "user" or not behind or whole[-behind:] != one[-behind:]:
            raise ValueError(
                "expected a person's message and a chat template that ends all of them alike, got "
                f"{prompt[-1].role}: {prompt[-1].content[-40:]!r}"
            )
        return whole[:-behind]

    def _parts(self, prompt: Prompt, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The context's token ids and the text's. Of a document the first token is context: nothing stands
        before it to predict it.
        """
        from understudy.engine import encode_text

        if prompt:
            return self._ids(prompt), encode_text(self._voice.tokenizer, text)
        whole = encode_text(self._voice.tokenizer, text, special_tokens=True)
        return whole[:1], whole[1:]


def in_batches(
    items: Sequence[T], work: Callable[[Sequence[T]], Sequence[U]], size: Callable[[T], int]
) -> list[U]:
    """`work` on batches of items of similar size, its results in the items' order."""
    order = sorted(range(len(items)), key=lambda place: size(items[place]))
    found: dict[int, U] = {}
    for start in range(0, len(order), TOGETHER):
        places = order[start : start + TOGETHER]
        found.update(zip(places, work([items[place] for place in places]), strict=True))
    return [found[place] for place in range(len(items))]
