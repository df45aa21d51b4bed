"""What the routes answer, as types: the API's document is made from them, and a test holds answers to it.
Those of the training API stand in `training_answers`.
"""

from typing import Literal

import msgspec


class ErrorDetail(msgspec.Struct):
    """What was expected, what came, what to do. `param` names the field that is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct):
    """Any failure, in OpenAI's shape."""

    error: ErrorDetail


# ---------------------------------------------------------------------- server


class WeightsNow(msgspec.Struct):
    """The weights: the last commit, optimizer steps since the start, whether they are being written."""

    commit: str | None
    step: int
    training: bool


class Health(msgspec.Struct):
    """`GET /health`"""

    status: Literal["ok"]
    model: str
    running: int
    waiting: int
    weights: WeightsNow


class ModelCard(msgspec.Struct):
    """The one model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(msgspec.Struct):
    """`GET /v1/models`"""

    object: Literal["list"]
    data: list[ModelCard]


# ---------------------------------------------------------------------- completions


class SpokenWith(msgspec.Struct):
    """The weights at the beginning of an answer; `training`: they moved meanwhile."""

    weight_commit: str | None
    weight_step: int
    training: bool


class Usage(msgspec.Struct):
    """Token counts; a prompt counts once, however many answers it gets."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class NamedLogprob(msgspec.Struct):
    """A token and its natural log-probability."""

    token: str
    bytes: list[int]
    logprob: float


class ChatLogprob(NamedLogprob):
    """A token of an answer, with the likeliest in its place."""

    top_logprobs: list[NamedLogprob]


class ChatLogprobs(msgspec.Struct):
    """Log-probabilities of a chat answer."""

    content: list[ChatLogprob]
    refusal: None


class ServerSentEvent(msgspec.Struct):
    """One event of a streamed answer. `data` is a chunk as JSON (an error, when one ends it), and in the
    last event the text `[DONE]`.
    """

    data: str
    event: Literal["message"]


class ChatAnswer(msgspec.Struct):
    """What the assistant said."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ReadoutStatisticsAnswer(msgspec.Struct):
    """Of readouts of baseline texts, [layers][concepts] each: what z-scores are taken by, and in `norms` the
    lengths that a strength with a trailing x counts in. `tokens`: over how many tokens.
    """

    mean: list[list[float]]
    deviation: list[list[float]]
    norms: list[list[float]]
    tokens: int


class ReadoutManifestAnswer(msgspec.Struct):
    """`GET /v1/readout/manifest`: what the two inner dimensions of a readout are."""

    concepts: list[str]
    layers: list[int]
    hidden_size: int
    dtype: str
    statistics: ReadoutStatisticsAnswer | msgspec.UnsetType = msgspec.UNSET


Readouts = list[list[list[float]]]
"""[tokens][layers][concepts]; only where `vllm_xargs.readout` asked for it."""
MeanReadouts = list[list[float]]
"""[layers][concepts], over the tokens; in the place of the others with `readout_per: "message"`."""


class ChatChoice(msgspec.Struct):
    """One answer of a chat."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]
    readout: Readouts | msgspec.UnsetType = msgspec.UNSET
    prompt_readout: Readouts | msgspec.UnsetType = msgspec.UNSET
    message_readout: MeanReadouts | msgspec.UnsetType = msgspec.UNSET
    message_prompt_readout: MeanReadouts | msgspec.UnsetType = msgspec.UNSET


class ChatCompletion(msgspec.Struct):
    """`POST /v1/chat/completions`"""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    understudy: SpokenWith


class TextLogprobs(msgspec.Struct):
    """Log-probabilities of a continued text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(msgspec.Struct):
    """One continuation."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]
    readout: Readouts | msgspec.UnsetType = msgspec.UNSET
    prompt_readout: Readouts | msgspec.UnsetType = msgspec.UNSET
    message_readout: MeanReadouts | msgspec.UnsetType = msgspec.UNSET
    message_prompt_readout: MeanReadouts | msgspec.UnsetType = msgspec.UNSET


class TextCompletion(msgspec.Struct):
    """`POST /v1/completions`"""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    understudy: SpokenWith


class ScoredRange(msgspec.Struct):
    """A range of a sequence: each token's natural log-probability, and their sum."""

    range: tuple[int, int]
    logprobs: list[float]
    sum: float


class ScoredAnswer(msgspec.Struct):
    """One scored sequence."""

    token_ids: list[int]
    ranges: list[ScoredRange]


class Scores(msgspec.Struct):
    """`POST /score`"""

    object: Literal["score"]
    model: str
    sequences: list[ScoredAnswer]
    understudy: SpokenWith
