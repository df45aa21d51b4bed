"""Lessons of a request as examples, and the answers that the model gives itself in self-distillation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
from anyio import to_thread
from starlette.requests import Request

from understudy.lessons import ChatMessage, Example
from understudy.server.errors import ApiError
from understudy.server.leaving import drain
from understudy.server.lesson_bodies import (
    CompletionLesson,
    ConversationLesson,
    CriticismLesson,
    Lesson,
    Supervise,
    filled,
    one_text,
    prompt_messages,
    read_lesson,
    spoken,
)
from understudy.server.preparation import Preparation

if TYPE_CHECKING:
    from understudy.engine import Completion as Said
    from understudy.engine import Engine, GenerationStep, Sampling

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Criticised:
    """A lesson whose answer the model is still to give, with the criticism in view. `where` names it."""

    where: str
    prompt: tuple[ChatMessage, ...]
    criticism: str
    rejected: str | None
    weight: float

    def chat(self, rejected: str) -> tuple[ChatMessage, ...]:
        """What the model answers anew: the prompt, what was said to it, and what is wrong with that."""
        return (*self.prompt, ChatMessage("assistant", rejected), ChatMessage("user", self.criticism))


@dataclass(frozen=True, slots=True)
class Revision:
    """What became of a criticised lesson: the answer that was criticised, the one that is learned, and the
    example of it, whose context holds no criticism.
    """

    where: str
    rejected: str
    answer: str
    example: Example


def encode_lessons(
    preparation: Preparation, raw: Sequence[msgspec.Raw], supervise: Supervise
) -> list[Example | Criticised]:
    """Lessons as messages, as examples. With `supervise` "all" each of the assistant's messages of a
    conversation is one, its context everything before it. Slow: call it off the event loop.

    Raises ApiError(400) that names the lesson and the field.
    """
    found: list[Example | Criticised] = []
    for number, one in enumerate(raw):
        where = f"lessons[{number}]"
        found += _encode(preparation, read_lesson(one, where), where, supervise)
    return found


def _encode(
    preparation: Preparation, lesson: Lesson, where: str, supervise: Supervise
) -> list[Example | Criticised]:
    if isinstance(lesson, ConversationLesson):
        return list(_turns(preparation, lesson, where, supervise))
    prompt = prompt_messages(lesson.prompt, f"{where}.prompt")
    if isinstance(lesson, CriticismLesson):
        criticism = one_text(lesson.criticism, "user", f"{where}.criticism")
        rejected = (
            None if lesson.rejected is None else one_text(lesson.rejected, "assistant", f"{where}.rejected")
        )
        return [Criticised(where, prompt, criticism, rejected, lesson.weight)]
    if isinstance(lesson, CompletionLesson):
        chosen = one_text(lesson.completion, "assistant", f"{where}.completion")
        return [preparation.encode(where, prompt, chosen, None, lesson.weight)]
    chosen = one_text(lesson.chosen, "assistant", f"{where}.chosen")
    rejected = one_text(lesson.rejected, "assistant", f"{where}.rejected")
    return [preparation.encode(where, prompt, chosen, rejected, lesson.weight)]


def _turns(
    preparation: Preparation, lesson: ConversationLesson, where: str, supervise: Supervise
) -> list[Example]:
    field = f"{where}.messages"
    messages = spoken(lesson.messages, field)
    if messages[-1].role != "assistant":
        problem = f"{field}: expected the last message to be the assistant's, got the {messages[-1].role}'s"
        raise ApiError(400, problem, param=field)
    if messages[0].role == "assistant":
        problem = f"{field}: expected a message that the assistant answers, the first is its own"
        raise ApiError(400, problem, param=field)
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    taught = answers if supervise == "all" else answers[-1:]
    return [
        preparation.encode(
            where,
            messages[:place],
            filled(messages[place].content, f"{field}[{place}].content"),
            None,
            lesson.weight,
        )
        for place in taught
    ]


async def revise(
    request: Request,
    preparation: Preparation,
    engine: "Engine",
    lessons: Sequence[Criticised],
    sampling: "Sampling",
    together: int,
) -> list[Revision]:
    """Let the model answer each lesson with its criticism in view; where nothing was rejected, it first
    answers without. `together` answers are generated as one batch.

    Raises ApiError(400) for a lesson that the model cannot read, ApiError(422) for one to which it says
    nothing, and ClientDisconnect when the client leaves.
    """
    prompts = await to_thread.run_sync(_contexts, engine, [(one.where, one.prompt) for one in lessons])
    silent = [place for place, one in enumerate(lessons) if one.rejected is None]
    first = await _answers(request, engine, [prompts[place] for place in silent], sampling, together)
    said = {place: _spoken(answer, lessons[place].where) for place, answer in zip(silent, first, strict=True)}
    rejected = [
        said[place].text if place in said else one.rejected or "" for place, one in enumerate(lessons)
    ]
    chats = [(one.where, one.chat(text)) for one, text in zip(lessons, rejected, strict=True)]
    teachers = await to_thread.run_sync(_contexts, engine, chats)
    answers = await _answers(request, engine, teachers, sampling, together)

    def examples() -> list[Revision]:
        found = []
        for place, (one, answer) in enumerate(zip(lessons, answers, strict=True)):
            _spoken(answer, one.where)
            shown = preparation.encode(one.where, one.prompt, answer.text, rejected[place], one.weight)
            example = replace(
                shown,
                continuation_ids=answer.token_ids,  # as the model said it, token by token
                rejected_ids=said[place].token_ids if place in said else shown.rejected_ids,
                teacher_context_ids=teachers[place],
            )
            preparation.check_one(example, one.where)
            found.append(Revision(one.where, rejected[place], answer.text, example))
        return found

    return await to_thread.run_sync(examples)


def _contexts(engine: "Engine", chats: Sequence[tuple[str, Sequence[ChatMessage]]]) -> list[TokenIds]:
    from understudy.engine import EngineError, encode_chat

    found = []
    for where, messages in chats:
        try:
            found.append(encode_chat(engine.tokenizer, messages))
        except EngineError as error:
            raise ApiError(400, f"{where}: {error}", param=where) from error
    return found


async def _answers(
    request: Request,
    engine: "Engine",
    prompts: Sequence[TokenIds],
    sampling: "Sampling",
    together: int,
) -> "list[Said]":
    from understudy.engine import GenerationRequest, gather_completions

    found: list[Said] = []
    for start in range(0, len(prompts), together):
        batch = tuple(prompts[start : start + together])
        steps: list[GenerationStep] = []
        async for passed in drain(request, engine.submit(GenerationRequest(batch, sampling))):
            steps += passed
        found += gather_completions(steps, len(batch))
    return found


def _spoken(answer: "Said", where: str) -> "Said":
    if not answer.text.strip():
        problem = f"{where}: expected the model to answer, it said nothing: give an answer to learn yourself"
        raise ApiError(422, problem, param=where, code="no_answer")
    return answer
