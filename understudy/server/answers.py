"""Answers in the shapes of OpenAI's completion API, plus `understudy`: the weights they were spoken with."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from understudy.engine import (
        Completion,
        GenerationStep,
        TextReader,
        TokenLogprob,
        TokenTexts,
        WeightState,
    )
    from understudy.server.readouts import AnswerReadouts

Kind = Literal["chat", "text"]
INITIAL = "initial"
"""How answers call weights that were never trained."""


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """What all parts of one answer share."""

    kind: Kind
    model: str
    texts: "TokenTexts"
    logprobs: bool
    readouts: "AnswerReadouts | None" = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(
        self, completions: Sequence["Completion"], usage: Mapping[str, int], weights: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A complete answer."""
        offsets = TextOffsets(self.texts)
        choices = []
        for index, completion in enumerate(completions):
            said: dict[str, Any] = {"text": completion.text}
            if self.kind == "chat":
                said = {"message": {"role": "assistant", "content": completion.text, "refusal": None}}
            logprobs = self._logprobs(completion.logprobs, index, offsets)
            told = {"logprobs": logprobs, "finish_reason": completion.finish_reason}
            choices.append({"index": index, **said, **told, **self.read(index, completion)})
        return {**self._head(chunk=False), "choices": choices, "usage": usage, "understudy": weights}

    def opening(self, rows: int) -> list[dict[str, Any]]:
        """The chunks before the first token: in a chat, who speaks."""
        if self.kind == "text":
            return []
        delta = {"role": "assistant", "content": ""}
        return [
            self._chunk({"index": row, "delta": delta, "logprobs": None, "finish_reason": None})
            for row in range(rows)
        ]

    def read(self, row: int, said: "Completion | GenerationStep") -> dict[str, Any]:
        """The fields with readouts. Only where they were asked for: other clients never see them."""
        return {} if self.readouts is None else self.readouts.tell(row, said)

    def chunk(
        self,
        step: "GenerationStep",
        offsets: "TextOffsets",
        weights: Mapping[str, Any],
        read: Mapping[str, Any],
    ) -> dict[str, Any]:
        """One step of a streamed answer; `read` are its fields with readouts."""
        said: dict[str, Any] = {"text": step.text}
        if self.kind == "chat":
            said = {"delta": {"content": step.text} if step.text else {}}
        logprobs = self._logprobs(step.logprobs, step.row, offsets) if step.logprobs else None
        told = {"logprobs": logprobs, "finish_reason": step.finish_reason}
        return {**self._chunk({"index": step.row, **said, **told, **read}), "understudy": weights}

    def usage_chunk(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """The last chunk, for clients that asked for usage."""
        return {**self._head(chunk=True), "choices": [], "usage": usage}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head(chunk=True), "choices": [choice]}

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        chat = self.kind == "chat"
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.id}",
            "object": f"chat.completion{'.chunk' if chunk else ''}" if chat else "text_completion",
            "created": self.created,
            "model": self.model,
        }

    def _logprobs(
        self, tokens: Sequence["TokenLogprob"], row: int, offsets: "TextOffsets"
    ) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        if self.kind == "chat":
            return {"content": [self._chat_logprob(token) for token in tokens], "refusal": None}
        names = [self._name(token.token_id) for token in tokens]
        return {
            "tokens": names,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{self._name(i): logprob for i, logprob in token.top} for token in tokens],
            "text_offset": [offsets.advance(row, token.token_id) for token in tokens],
        }

    def _chat_logprob(self, token: "TokenLogprob") -> dict[str, Any]:
        top = [self._named(i, logprob) for i, logprob in token.top]
        return {**self._named(token.token_id, token.logprob), "top_logprobs": top}

    def _named(self, token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self._name(token_id),
            "bytes": list(self.texts.spell(token_id)),
            "logprob": logprob,
        }

    def _name(self, token_id: int) -> str:
        return self.texts.spell(token_id).decode(errors="replace")


class TextOffsets:
    """Where each row's next token begins in its text, in whole characters."""

    def __init__(self, texts: "TokenTexts") -> None:
        self._texts = texts
        self._rows: dict[int, tuple[TextReader, int]] = {}

    def advance(self, row: int, token_id: int) -> int:
        """Where this token of the row begins."""
        reader, here = self._rows.get(row) or (self._texts.reader(()), 0)
        self._rows[row] = reader, here + len(reader.read(token_id))
        return here


def count_usage(prompts: Sequence[Sequence[int]], completion_tokens: int) -> dict[str, int]:
    """OpenAI's `usage`: a prompt counts once, however many answers it gets."""
    prompt_tokens = sum(len(prompt) for prompt in prompts)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def describe_weights(before: "WeightState", now: "WeightState") -> dict[str, Any]:
    """The weights an answer was spoken with; `training` when they moved, or were being moved, meanwhile."""
    moved = before.step != now.step or before.commit != now.commit
    return {
        "weight_commit": before.commit,
        "weight_step": before.step,
        "training": moved or before.training or now.training,
    }


def weight_header(weights: "WeightState") -> dict[str, str]:
    """The header that names the weights at the beginning of an answer."""
    return {"X-Understudy-Weights": weights.commit or INITIAL}
