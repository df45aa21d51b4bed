"""What is new in conversations, told to everyone who looks on: each commit once, in order, and what the
model is saying right now.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
from sse_starlette import ServerSentEvent

from understudy.conversation import (
    Change,
    ConversationError,
    ConversationRepository,
    Message,
    Participants,
    UnknownRevision,
)
from understudy.server.pages.message_views import MessageViews, thread_key
from understudy.server.pages.origins import Origins
from understudy.server.speeches import Speech, Speeches
from understudy.server.waiting import set_within

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.2
"""How often the newest commit is looked at: hand-made commits tell nobody."""
KEPT = 512
"""Items that a channel keeps; who is further behind is caught up from Git."""
TICK_SECONDS = 2.0
"""How long a reader is told nothing at most: then it is seen whether they may still read."""
MOST_CHANGES = 200
"""Commits that a reader who comes back is told one by one; beyond, the page is loaded anew."""
SPEECH_SECONDS = 0.1
"""A speech is told at most this often."""


@dataclass(frozen=True, slots=True)
class Item:
    """One event. `id` is the commit that it tells of; what the model is saying has none."""

    event: str
    data: str
    id: str | None = None
    encoded: bytes = field(init=False, repr=False)
    """As it is sent: made once for all readers."""

    def __post_init__(self) -> None:
        sent = ServerSentEvent(event=self.event, data=self.data, id=self.id)
        object.__setattr__(self, "encoded", sent.encode())


@dataclass(slots=True)
class _Channel:
    """What is told of one conversation while anyone looks on, from the commit `began` on. `told` counts items
    ever put in.
    """

    began: str
    head: str
    blob: str
    items: deque[Item] = field(default_factory=lambda: deque(maxlen=KEPT))
    told: int = 0
    readers: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, item: Item) -> None:
        self.items.append(item)
        self.told += 1
        self.news.set()
        self.news = asyncio.Event()

    def after(self, place: int) -> Sequence[Item] | None:
        """The items behind this place; None if some of them are gone."""
        behind = self.told - place
        if behind > len(self.items):
            return None
        return list(self.items)[len(self.items) - behind :]

    def place_of(self, commit: str) -> int | None:
        """The place behind this commit's item, or the beginning; None if what came after it is not kept."""
        if commit == self.began and self.told == len(self.items):
            return 0
        for back, item in enumerate(reversed(self.items)):
            if item.id == commit:
                return self.told - back
        return None


class Board:
    """The channels of all conversations. Its methods belong to one event loop."""

    def __init__(
        self, repository: ConversationRepository, origins: Origins, views: MessageViews, speeches: Speeches
    ) -> None:
        self._repository, self._origins, self._views, self._speeches = repository, origins, views, speeches
        self.participants: Participants = repository.participants()
        """As of the newest commit that was told."""
        self._channels: dict[str, _Channel] = {}
        self._head: str | None = None
        self._look = asyncio.Event()
        self._turn = asyncio.Lock()
        self._last_told: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        speeches.listen(self._hear)

    def start(self, work: "Coroutine[Any, Any, None]") -> None:
        """See work through that nobody waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def poke(self) -> None:
        """Look for new commits now: something was said."""
        self._look.set()

    async def run(self) -> None:
        """Tell every new commit, until cancelled."""
        while True:
            self._look.clear()  # before the look: whoever pokes meanwhile is heard
            try:
                async with self._turn:
                    await self._tell_commits()
            except ConversationError as error:
                log.warning("what is new could not be read: %s", error)
            await set_within(self._look, LOOK_SECONDS)

    async def follow(self, file: str, since: str | None) -> AsyncIterator[Sequence[Item]]:
        """Everything that is new in a conversation after the commit `since`, as it comes, and first what is
        being said. Now and then, when there is nothing, an empty piece.

        Raises what reading raises.
        """
        channel = await self._join(file)
        try:
            place, head = channel.told, channel.head
            kept = None if since in (None, head) else channel.place_of(since)
            if kept is not None:
                place = kept
            else:
                yield await self._missed(file, since or head, head)
            yield [_speech_item(speech) for speech in self._speeches.of(file)]
            while True:
                news, items = channel.news, channel.after(place)
                if items is None:  # too far behind: what was said is in Git, what is being said comes again
                    behind, place, head = head, channel.told, channel.head
                    items = await self._missed(file, behind, head)
                else:
                    place, head = place + len(items), channel.head
                if items:
                    yield items
                if channel.told == place and not await set_within(news, TICK_SECONDS):
                    yield ()
        finally:
            channel.readers -= 1
            if not channel.readers and self._channels.get(file) is channel:
                del self._channels[file]

    # ------------------------------------------------------------------ commits

    async def _join(self, file: str) -> _Channel:
        """The conversation's channel, with one reader more."""
        async with self._turn:
            await self._tell_commits()
            channel = self._channels.get(file)
            if channel is None:
                assert self._head is not None
                blob = await asyncio.to_thread(self._repository.revision, file, self._head)
                channel = self._channels[file] = _Channel(self._head, self._head, blob)
            channel.readers += 1
            return channel

    async def _missed(self, file: str, since: str, until: str) -> list[Item]:
        """What was said after one commit and up to another."""
        if since == until:
            return []
        return await asyncio.to_thread(self._read_missed, file, since, until)

    def _read_missed(self, file: str, since: str, until: str) -> list[Item]:
        try:
            changes = list(islice(self._repository.changes(since, file, until), MOST_CHANGES + 1))
        except UnknownRevision:  # not a commit of this history
            return [Item("refresh", "{}", until)]
        if len(changes) > MOST_CHANGES:
            return [Item("refresh", "{}", until)]
        return [self._item(change) for change in changes]

    async def _tell_commits(self) -> None:
        """Put into each channel what its conversation's new commits changed."""
        head = await asyncio.to_thread(self._repository.head)
        if head == self._head:
            return
        watched = {file: channel.blob for file, channel in self._channels.items()}
        told = await asyncio.to_thread(lambda: list(self._news(self._head, head, watched)))
        self.participants = await asyncio.to_thread(self._repository.participants, head)
        self._head = head
        for file, item, blob in told:
            channel = self._channels.get(file)
            if channel is not None:
                channel.blob = blob
                if item is not None:
                    channel.put(item)
        for channel in self._channels.values():
            channel.head = head

    def _news(
        self, since: str | None, head: str, watched: dict[str, str]
    ) -> Iterator[tuple[str, Item | None, str]]:
        """Of each watched conversation its new items, and at last the version that it is at."""
        if not watched:
            return
        seen: set[str] = set()
        for change in self._repository.changes(since, until=head):
            if change.file in watched:
                seen.add(change.file)
                yield change.file, self._item(change), watched[change.file]
        standing = set(self._repository.files(head))
        for file, blob in watched.items():
            now = self._repository.revision(file, head) if file in standing else ""
            history_left = now != blob and file not in seen  # commits were taken back by hand
            yield file, Item("refresh", "{}", head) if history_left else None, now

    def _item(self, change: Change) -> Item:
        """What one commit changed, as the page applies it."""
        return Item("changes", msgspec.json.encode(self._told(change)).decode(), change.commit)

    def _told(self, change: Change) -> dict[str, Any]:
        told: dict[str, Any] = {"commit": change.commit, "author": change.author}
        before, after = change.before, change.after
        if after is None or before is None or change.moved or _rearranged(change):
            return {**told, "refresh": True}
        places = {message.id: place for place, message in enumerate(after.messages)}
        added = []
        for message in change.added:
            place = places[message.id]
            previous = after.messages[place - 1] if place else None
            added.append(
                {
                    "id": message.id,
                    "author": message.author,
                    "to": message.parent.id if message.parent else None,
                    "after": previous.id if previous else None,
                    "opens": message.thread.messages[0] is message,
                    "thread": thread_key(message.thread),
                    "heading": self._views.heading(change.file, message.thread),
                    "html": self._html(change.file, message),
                }
            )
        return {
            **told,
            "added": added,
            "edited": [{"id": new.id, "html": self._html(change.file, new)} for _, new in change.edited],
            "removed": [message.id for message in change.removed],
        }

    def _html(self, file: str, message: Message) -> str:
        origin = self._origins.get(file, message.id)
        participants = self._repository.participants()
        return self._views.article(file, message, origin, participants)

    # ------------------------------------------------------------------ speeches

    def _hear(self, speech: Speech) -> None:
        channel = self._channels.get(speech.file)
        if channel is None:
            return
        now = asyncio.get_running_loop().time()
        if not speech.ended and now - self._last_told.get(speech.key, float("-inf")) < SPEECH_SECONDS:
            return
        if speech.ended:
            self._last_told.pop(speech.key, None)
        else:
            self._last_told[speech.key] = now
        channel.put(_speech_item(speech))


def _rearranged(change: Change) -> bool:
    """Whether headings changed otherwise than by new ones, which the page cannot apply piece by piece."""
    assert change.before is not None and change.after is not None
    before = [(thread.title, thread.ordinal) for thread in change.before.threads]
    after = [(thread.title, thread.ordinal) for thread in change.after.threads]
    kept = {message.id for message in change.before.messages} & {m.id for m in change.after.messages}
    old = [message.id for message in change.before.messages if message.id in kept]
    new = [message.id for message in change.after.messages if message.id in kept]
    return after[: len(before)] != before or old != new


def _speech_item(speech: Speech) -> Item:
    told = {
        "key": speech.key,
        "message": speech.message,
        "kind": speech.kind,
        "texts": speech.texts,
        "ended": speech.ended,
        "failure": speech.failure,
        "stopped_by": speech.stopped_by,
    }
    return Item("speech", msgspec.json.encode(told).decode())
