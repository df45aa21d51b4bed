"""The model's part in conversations: answers, the same message said anew, alternatives, revisions."""

import asyncio
import secrets
from typing import TYPE_CHECKING

from understudy.conversation import ConversationError, ConversationRepository, Message, Posted, UnknownMessage
from understudy.lessons import ChatMessage, chat_context, with_notes
from understudy.participant import Answer, EmptyAnswer, NothingToAnswer, post_answer, question, reword
from understudy.server.errors import ApiError
from understudy.server.speeches import Speeches, SpeechKind
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Sampling

VARIED_TEMPERATURE = 0.8
"""Of answers that are to differ from the one that stands."""
ALTERNATIVES = 3


class Answers:
    """Lets the model speak in the conversations of a workspace, while all readers look on.

    Raises what the engine and the conversations raise, and NothingToAnswer and EmptyAnswer.
    """

    def __init__(self, workspace: Workspace, repository: ConversationRepository, speeches: Speeches) -> None:
        self.speeches = speeches
        self._workspace, self._repository = workspace, repository
        self._name = workspace.settings.model.name
        self._giving: set[tuple[str, str]] = set()

    async def give(self, file: str, to: str) -> Posted | None:
        """Reply to a message; None if a reply to it is being given already."""
        if (file, to) in self._giving:
            return None
        self._giving.add((file, to))
        try:
            notes = await asyncio.to_thread(lambda: self._workspace.notes)
            chat = await asyncio.to_thread(question, self._repository, file, to, self._name, notes)
            [said] = await self.speeches.say(file, to, "answer", chat, self._sampling(varied=False))
            try:
                return await asyncio.to_thread(
                    post_answer, self._repository, file, to, self._name, said, notes
                )
            except (EmptyAnswer, ConversationError) as error:
                self.speeches.report(file, to, "answer", str(error))
                raise
        finally:
            self._giving.discard((file, to))

    async def retry(self, file: str, message: str, seen: str | None) -> Posted:
        """Say the model's own message anew, in other words perhaps.

        Raises ApiError(409) where a person has worded it: their words are not replaced by chance.
        """
        own = await asyncio.to_thread(self._own, file, message)
        await asyncio.to_thread(self._require_unedited, file, own)
        [said] = await self._anew(file, own, "retry", 1)
        notes = await asyncio.to_thread(lambda: self._workspace.notes)
        return await asyncio.to_thread(
            lambda: reword(self._repository, file, message, self._name, said, notes, expected_revision=seen)
        )

    async def alternatives(self, file: str, message: str) -> tuple[Answer, ...]:
        """Other ways in which the model would say its message, without those that say the same; nothing is
        posted.
        """
        own = await asyncio.to_thread(self._own, file, message)
        said = await self._anew(file, own, "alternatives", ALTERNATIVES)
        different = {answer.text: answer for answer in said if answer.text and answer.text != own.body}
        return tuple(different.values())

    async def revision(self, file: str, criticism: str) -> tuple[Message, Answer]:
        """What the model would say in place of its message with this reply to it, a criticism, in view;
        with the message. Nothing is posted.
        """
        own, chat = await asyncio.to_thread(self._criticised, file, criticism)
        [said] = await self.speeches.say(file, own.id, "revision", chat, self._sampling(varied=False))
        return own, said

    # ------------------------------------------------------------------ parts

    async def _anew(self, file: str, own: Message, kind: SpeechKind, samples: int) -> tuple[Answer, ...]:
        notes = await asyncio.to_thread(lambda: self._workspace.notes)
        chat = with_notes(notes, chat_context(_path(own)[:-1], self._name))
        if not chat:
            raise NothingToAnswer(
                f"expected a message that answers another, {own.id} in {file} opens a thread"
            )
        return await self.speeches.say(file, own.id, kind, chat, self._sampling(varied=True), samples)

    def _criticised(self, file: str, criticism: str) -> tuple[Message, tuple[ChatMessage, ...]]:
        reply = self._repository.read(file).message(criticism)
        own = reply.parent
        if own is None or own.author != self._name or own.deleted or reply.deleted:
            raise NothingToAnswer(f"expected a reply to the model's message, {criticism} in {file} is none")
        return own, with_notes(self._workspace.notes, chat_context(_path(reply), self._name))

    def _own(self, file: str, message: str) -> Message:
        found = self._repository.read(file).message(message)
        if found.author != self._name or found.deleted:
            raise NothingToAnswer(f"expected a message of {self._name!r}, {message} in {file} is none")
        return found

    def _require_unedited(self, file: str, own: Message) -> None:
        try:
            last = self._repository.history(file, own.id)[-1]
        except (UnknownMessage, IndexError):
            return
        if last.author != self._name:
            raise ApiError(
                409,
                f"{last.author} has corrected this message: ask for alternatives, or edit it again",
                code="corrected_already",
            )

    def _sampling(self, *, varied: bool) -> "Sampling":
        from understudy.engine import Sampling

        settings = self._workspace.settings.participant
        if not varied:
            return Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature)
        return Sampling(
            max_tokens=settings.max_tokens,
            temperature=max(VARIED_TEMPERATURE, settings.temperature),
            seed=secrets.randbits(32),
        )


def _path(message: Message) -> tuple[Message, ...]:
    steps = [message]
    while (parent := steps[-1].parent) is not None:
        steps.append(parent)
    return tuple(reversed(steps))
