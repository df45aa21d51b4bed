"""The model's voice, when it is loaded in this process."""

from typing import TYPE_CHECKING

from understudy.config import ParticipantSettings
from understudy.lessons import ChatMessage
from understudy.participant.answering import Answer

if TYPE_CHECKING:
    from understudy.engine import Engine


def speak(engine: "Engine", settings: ParticipantSettings, chat: tuple[ChatMessage, ...]) -> Answer:
    """One answer of the engine's model. Raises what the engine raises, PromptTooLong among it."""
    from understudy.engine import GenerationRequest, Sampling, encode_chat

    sampling = Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature)
    commit = engine.weight_commit
    [said] = engine.complete(GenerationRequest((encode_chat(engine.tokenizer, chat),), sampling))
    return Answer(said.text.strip(), commit)
