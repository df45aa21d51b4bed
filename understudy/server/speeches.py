"""What the model is saying right now: answers in the making, which people watch and may stop."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from understudy.lessons import ChatMessage
from understudy.participant import Answer

if TYPE_CHECKING:
    from understudy.engine import Engine, Sampling, Stream

SpeechKind = Literal["answer", "retry", "alternatives", "revision"]
"""A reply to a message; the model's own message said anew; several ways to say it; a criticised message
revised."""


@dataclass(slots=True)
class Speech:
    """One thing being said, in one or several versions (`texts`), about a message of a file.

    `message` is the one that is answered, or, for all kinds but `answer`, the model's own that is said anew.
    """

    key: str
    file: str
    message: str
    kind: SpeechKind
    texts: list[str]
    weight_commit: str | None = None
    ended: bool = False
    failure: str = ""
    stopped_by: str | None = None
    stream: "Stream[object] | None" = field(default=None, repr=False)

    def stop(self, by: str) -> None:
        """Cut it short; what was said so far stands."""
        self.stopped_by = by
        if self.stream is not None:
            self.stream.cancel()


Listener = Callable[[Speech], None]
"""Told of every change of a speech, on the event loop."""


class Speeches:
    """All that is being said now. Its methods belong to one event loop."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._now: dict[str, Speech] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Have every change told from now on."""
        self._listeners.append(listener)

    def of(self, file: str) -> tuple[Speech, ...]:
        """What is being said in this conversation."""
        return tuple(speech for speech in self._now.values() if speech.file == file)

    def stop(self, key: str, by: str) -> Speech | None:
        """Cut a speech short; None if it is over already."""
        speech = self._now.get(key)
        if speech is not None:
            speech.stop(by)
        return speech

    def report(self, file: str, message: str, kind: SpeechKind, failure: str) -> None:
        """Tell everyone why something that the model was to say is not there."""
        self._tell(Speech(uuid.uuid4().hex, file, message, kind, [], ended=True, failure=failure))

    async def say(
        self,
        file: str,
        message: str,
        kind: SpeechKind,
        chat: Sequence[ChatMessage],
        sampling: "Sampling",
        samples: int = 1,
    ) -> tuple[Answer, ...]:
        """Let the model answer a chat `samples` times, told to all listeners as it speaks.

        Raises what the engine raises; the listeners are told why.
        """
        from understudy.engine import GenerationRequest, encode_chat

        speech = Speech(uuid.uuid4().hex, file, message, kind, [""] * samples)
        self._now[speech.key] = speech
        try:
            prompt = await asyncio.to_thread(encode_chat, self._engine.tokenizer, chat)
            speech.weight_commit = self._engine.weight_commit
            stream = self._engine.submit(GenerationRequest((prompt,), sampling, samples=samples))
            speech.stream = stream  # type: ignore[assignment]  # a stream of anything
            if speech.stopped_by is not None:
                stream.cancel()
            self._tell(speech)
            async for steps in stream:
                for step in steps:
                    speech.texts[step.row] += step.text
                self._tell(speech)
        except Exception as error:
            speech.failure = str(error)
            raise
        finally:
            if speech.stream is not None:
                speech.stream.cancel()
            del self._now[speech.key]
            speech.ended = True
            self._tell(speech)
        return tuple(Answer(text.strip(), speech.weight_commit, speech.stopped_by) for text in speech.texts)

    def _tell(self, speech: Speech) -> None:
        for listener in self._listeners:
            listener(speech)
