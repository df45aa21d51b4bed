"""Lessons as messages, in the shapes in which the field writes them, as `POST /finetune` takes them.

`{"messages"}`, `{"prompt", "completion"}`, `{"prompt", "chosen", "rejected"}` and, for self-distillation,
`{"prompt", "rejected", "criticism"}`. Which one a lesson has is told by its keys.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from understudy.lessons import ChatMessage, Role
from understudy.server.bodies import MessageBody
from understudy.server.errors import ApiError
from understudy.server.messages import convert

Supervise = Literal["last", "all"]
Text = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\S")]
"""A text that says something."""
Messages = Annotated[list[MessageBody], msgspec.Meta(min_length=1)]
Prompt = Annotated[str, msgspec.Meta(min_length=1)] | Messages
Weight = Annotated[float, msgspec.Meta(gt=0, le=1000)]


class LessonBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every lesson may carry beside its messages."""

    weight: Annotated[Weight, msgspec.Meta(description="How much each of its tokens counts.")] = 1.0
    source: Annotated[Any, msgspec.Meta(description="Where it is from; taken and without effect.")] = None


class ConversationLesson(LessonBody, kw_only=True):
    """A whole conversation. The assistant's last message is what is to be learned, or each of them."""

    messages: Messages


class CompletionLesson(LessonBody, kw_only=True):
    """A prompt (a text, or messages) and the answer to it."""

    prompt: Prompt
    completion: Text | Messages


class PreferenceLesson(LessonBody, kw_only=True):
    """A prompt, the answer it should get, and the one it should not get."""

    prompt: Prompt
    chosen: Text | Messages
    rejected: Text | Messages


class CriticismLesson(LessonBody, kw_only=True):
    """A prompt, the answer it got, and what is wrong with that. The model answers anew with the criticism in
    view, and learns to give that answer without it. Without `rejected` the model first answers itself.
    """

    prompt: Prompt
    criticism: Text | Messages
    rejected: Text | Messages | None = None


Lesson = ConversationLesson | CompletionLesson | PreferenceLesson | CriticismLesson
SHAPES: tuple[type[Lesson], ...] = (ConversationLesson, CompletionLesson, PreferenceLesson, CriticismLesson)


def read_lesson(raw: msgspec.Raw, where: str) -> Lesson:
    """The lesson of one of the four shapes. Raises ApiError(400) naming the field under `where`."""
    keys = convert(raw, dict[str, msgspec.Raw], where).keys()
    if "messages" in keys:
        return convert(raw, ConversationLesson, where)
    if "criticism" in keys:
        return convert(raw, CriticismLesson, where)
    if "completion" in keys:
        return convert(raw, CompletionLesson, where)
    if "chosen" in keys:
        return convert(raw, PreferenceLesson, where)
    raise ApiError(
        400,
        f"{where}: expected the keys messages, prompt and completion, prompt with chosen and rejected, or "
        f"prompt with criticism; got {', '.join(keys) or 'none'}",
        param=where,
    )


def spoken(messages: Sequence[MessageBody], where: str) -> tuple[ChatMessage, ...]:
    """Messages as a chat template takes them."""
    return tuple(message.spoken(f"{where}[{number}]") for number, message in enumerate(messages))


def prompt_messages(prompt: str | Sequence[MessageBody], where: str) -> tuple[ChatMessage, ...]:
    """A prompt; a text is the user's message."""
    if isinstance(prompt, str):
        return (ChatMessage("user", prompt),)
    return spoken(prompt, where)


def one_text(said: str | Sequence[MessageBody], role: Role, where: str) -> str:
    """An answer or a criticism: a text, or one message of `role`. Raises ApiError(400)."""
    if isinstance(said, str):
        return said
    messages = spoken(said, where)
    if len(messages) != 1 or messages[0].role != role:
        came = ", ".join(message.role for message in messages)
        raise ApiError(400, f"{where}: expected one message of the {role}'s, got {came}", param=where)
    return filled(messages[0].content, where)


def filled(text: str, where: str) -> str:
    """`text`; raises ApiError(400) when it says nothing."""
    if not text.strip():
        raise ApiError(400, f"{where}: expected a text that says something, got {text!r:.20}", param=where)
    return text
