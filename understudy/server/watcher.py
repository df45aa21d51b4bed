"""Watches the workspace's conversations: new messages get an answer, edits of the model's become lessons."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.config import ConfigError
from understudy.conversation import (
    ConversationError,
    ConversationRepository,
    RepositoryBusy,
    maintain_when_due,
)
from understudy.lessons import Ledger, mine, moves
from understudy.participant import EmptyAnswer, NothingToAnswer, due
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.server.speaking import Answers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits for the model."""

    file: str
    message: str


def look(name: str, repository: ConversationRepository, ledger: Ledger) -> tuple[list[Waiting], str]:
    """Read what was committed since the watermark: propose lessons, name the messages to answer.

    Also returns the commit that was read up to. It becomes the watermark only once the answers stand, so
    a server that dies in between answers them after its restart; no lesson is ever proposed twice.
    """
    since, head = ledger.watermark(), repository.head()
    if since == head:
        return [], head
    for lesson in mine(repository, name, since):
        proposal = ledger.propose(lesson)
        if proposal.new:
            log.info("lesson %s proposed, from %s", proposal.entry.short, lesson.source.file)
    return _unanswered(repository, name, since), head


def _unanswered(repository: ConversationRepository, name: str, since: str | None) -> list[Waiting]:
    found: dict[Waiting, None] = {}
    for change in repository.changes(since):
        if change.after is None or change.file not in repository.files():
            continue
        now, moved = repository.read(change.file), moves(change).values()
        for message in due(change.before, change.after, now, name, moved):
            found[Waiting(change.file, message.id)] = None
    return list(found)


async def watch(
    workspace: Workspace,
    repository: ConversationRepository,
    answers: "Answers",
    seen: Callable[[], None] = lambda: None,
) -> None:
    """Look at every new commit, until cancelled, and answer what waits for the model, all at once. A message
    that cannot be answered is logged and left; one for which there is only no room now is tried again.
    `seen` is called after each look that found a new commit.
    """
    name, ledger = workspace.settings.model.name, workspace.ledger
    pause = workspace.settings.server.watch_seconds
    while True:
        found, head = await asyncio.to_thread(look, name, repository, ledger)
        if found:
            await asyncio.gather(*(_answer(answers, waiting, pause) for waiting in found))
        await asyncio.to_thread(_remember, ledger, head)
        seen()
        await asyncio.sleep(pause)


async def _answer(answers: "Answers", waiting: Waiting, pause: float) -> None:
    from understudy.engine import EngineBusy, EngineError

    while True:
        try:
            await answers.give(waiting.file, waiting.message)
        except (EngineBusy, RepositoryBusy) as error:
            log.info("message %s in %s waits: %s", waiting.message, waiting.file, error)
            await asyncio.sleep(pause)
            continue
        except (EngineError, ConversationError, ConfigError, EmptyAnswer, NothingToAnswer) as error:
            log.warning("message %s in %s was not answered: %s", waiting.message, waiting.file, error)
        return


async def keep_tidy(workspace: Workspace) -> None:
    """Pack the conversations' repository whenever that is due, until cancelled; a failure is logged."""
    while True:
        try:
            done = await asyncio.to_thread(maintain_when_due, workspace.repository)
            if done is not None:
                log.info(
                    "packed the conversations: %d bytes before, %d after", done.bytes_before, done.bytes_after
                )
        except ConversationError as error:
            log.warning("the conversations were not packed: %s", error)
        await asyncio.sleep(workspace.settings.server.maintain_seconds)


def _remember(ledger: Ledger, head: str) -> None:
    if ledger.watermark() != head:
        ledger.set_watermark(head)
