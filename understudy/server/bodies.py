"""The bodies of the completion API, as OpenAI's clients send them.

What would change the answer and is not supported is refused by name; what only labels a request
(`user`, `metadata`, ...) is taken and has no effect.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from understudy.lessons import ChatMessage, Role
from understudy.server.errors import ApiError
from understudy.server.readouts import Per, Scale

if TYPE_CHECKING:
    from understudy.engine import ReadoutSpan, Steer

MAX_SAMPLES = 128  # OpenAI's limit for n
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Bound = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 1})]  # the engine says why
TokenId = Annotated[int, msgspec.Meta(ge=0)]
Stops = str | Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(max_length=16)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`stream_options`."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ExtraArguments(msgspec.Struct, forbid_unknown_fields=True):
    """`vllm_xargs`: what vLLM passes on to its plugins. Both engines take the same."""

    readout: bool | Literal["answer", "all"] | None = None
    readout_scale: Scale | None = None
    readout_per: Per | None = None
    steer: str | list[str] | None = None

    def span(self) -> "ReadoutSpan | None":
        """Whose tokens are read."""
        return ("answer" if self.readout else None) if isinstance(self.readout, bool) else self.readout

    def refuse_unsupported(self) -> None:
        """Raises ApiError(400) for what says how to read when nothing is read."""
        for name in ("readout_scale", "readout_per"):
            if getattr(self, name) is not None and self.span() is None:
                _refuse(f"vllm_xargs.{name}", "only together with `readout`")

    def steering(self) -> "tuple[Steer, ...]":
        """Raises ApiError(400) for what is no steer, with the grammar."""
        from understudy.engine import BadRequest, Steer

        listed = [self.steer] if isinstance(self.steer, str) else self.steer or []
        try:
            return tuple(Steer.parse(text) for text in listed)
        except BadRequest as error:
            raise ApiError(400, str(error), param="vllm_xargs.steer") from error


class SamplingBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both completion routes take."""

    model: str
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES)] | None = None
    max_tokens: AtLeastOne | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop: Stops | None = None
    ignore_eos: bool = False  # vLLM's extension of the same name: go on past the end, to max_tokens
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    vllm_xargs: ExtraArguments | None = None

    def stops(self) -> tuple[str, ...]:
        if self.stop is None or self.stop == "":
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def refuse_unsupported(self) -> None:
        """Raises ApiError(400) for a field that is known but cannot be honoured."""
        if self.stream_options is not None and not self.stream:
            _refuse("stream_options", "only together with `stream: true`")
        if self.presence_penalty:
            _refuse("presence_penalty", "0, penalties are not supported")
        if self.frequency_penalty:
            _refuse("frequency_penalty", "0, penalties are not supported")
        if self.logit_bias:
            _refuse("logit_bias", "none, biases are not supported")
        if self.vllm_xargs is not None:
            self.vllm_xargs.refuse_unsupported()


class CompletionBody(SamplingBody, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | list[str | TokenId | list[TokenId]]
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        if self.echo:
            _refuse("echo", "false; to score a text use POST /score")
        if self.best_of not in (None, 1, self.n):
            _refuse("best_of", "nothing, 1 or the value of n")
        if self.suffix:
            _refuse("suffix", "nothing, text is only continued")

    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or token ids. Raises ApiError(400) for a mixture or an empty list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        listed = self.prompt
        if listed and all(isinstance(token, int) for token in listed):
            return [[token for token in listed if isinstance(token, int)]]
        texts = [prompt for prompt in listed if isinstance(prompt, str)]
        ids = [prompt for prompt in listed if isinstance(prompt, list)]
        if not listed or len(listed) not in (len(texts), len(ids)):
            _refuse("prompt", "a string, a list of strings, a list of token ids, or a list of such lists")
        return [*texts, *ids]


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message's content; only text can be read."""

    text: str
    type: Literal["text"] = "text"


class MessageBody(msgspec.Struct, forbid_unknown_fields=True):
    """A chat message. The further fields are those that OpenAI's own answers carry, sent back empty."""

    role: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(_ROLES)})]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None
    annotations: list[Any] | None = None

    def spoken(self, where: str) -> ChatMessage:
        """The message, which stands at `where`, as a chat template takes it; OpenAI's `developer` is its
        `system`.
        """
        role = _ROLES.get(self.role)
        if role is None:
            field = f"{where}.role"
            raise ApiError(400, f"{field}: expected {', '.join(_ROLES)}, got {self.role!r}", param=field)
        return ChatMessage(role, self._text())

    def _text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatBody(SamplingBody, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[MessageBody], msgspec.Meta(min_length=1)]
    max_completion_tokens: AtLeastOne | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        if self.top_logprobs is not None and not self.logprobs:
            _refuse("top_logprobs", "only together with `logprobs: true`")
        if self.response_format not in (None, {"type": "text"}):
            _refuse("response_format", 'nothing or {"type": "text"}')
        if self.tools:
            _refuse("tools", "none, tools are not supported")
        if self.tool_choice not in (None, "none", "auto"):
            _refuse("tool_choice", "nothing, tools are not supported")
        if self.modalities not in (None, ["text"]):
            _refuse("modalities", 'nothing or ["text"]')
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            _refuse("max_completion_tokens", "only one of it and max_tokens, or the same number")


class ScoredSequence(msgspec.Struct, forbid_unknown_fields=True):
    """One sequence of `POST /score`: its tokens, or a text to encode, and what to score of it."""

    ranges: Annotated[list[tuple[Bound, Bound]], msgspec.Meta(extra_json_schema={"minItems": 1})]
    token_ids: list[TokenId] | None = None
    text: str | None = None


class ScoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /score`."""

    sequences: Annotated[list[ScoredSequence], msgspec.Meta(min_length=1)]
    model: str | None = None


def _refuse(field: str, expected: str) -> None:
    raise ApiError(400, f"{field}: expected {expected}", param=field, code="unsupported_value")
