"""A message as the page shows it: the same for every reader, so that it is made once and sent to all."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup

from understudy.conversation import Conversation, Message, Participants, Thread, plain_line, render_body
from understudy.server.pages.origins import UNKNOWN, Origin
from understudy.server.pages.rendering import fragment

DEEPEST = 6
"""Levels of replies that are indented further; deeper ones name what they answer."""
_SHORT_CHARACTERS, _SHORT_KEPT, _LONG_KEPT = 4096, 4096, 16
"""Rendered bodies that are kept: many short ones, a few long ones, so that memory stays bounded."""
PREFIX, SUFFIX = "conversations/", ".md"


@dataclass(frozen=True, slots=True)
class MessageView:
    """What the template is given."""

    file: str
    message: Message
    origin: Origin
    name: str
    display: str
    answered: str
    edited_by: str
    kind: str
    html: Markup

    @property
    def depth(self) -> int:
        return min(self.message.depth, DEEPEST)


def name_of(file: str) -> str:
    """The name of a conversation in addresses: `talk` for `conversations/talk.md`."""
    return file.removeprefix(PREFIX).removesuffix(SUFFIX)


def file_of(name: str) -> str:
    """The inverse of `name_of`; what names no conversation is refused by whoever reads it."""
    return f"{PREFIX}{name}{SUFFIX}"


def thread_key(thread: Thread) -> str:
    """What names a thread's element on the page."""
    framed = f"{thread.ordinal} {thread.title}".encode("utf-8", "surrogatepass")
    return "t-" + hashlib.sha256(framed).hexdigest()[:10]


class MessageViews:
    """Makes messages into HTML."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name

    def article(self, file: str, message: Message, origin: Origin, participants: Participants) -> str:
        """One message."""
        person = participants.get(message.author)
        is_model = message.author == self._model_name or (person is not None and person.kind == "model")
        view = MessageView(
            file,
            message,
            origin,
            name_of(file),
            plain_line(person.display if person else message.author),
            plain_line(message.parent.author) if message.parent else "",
            plain_line(origin.edited_by or ""),
            "model" if is_model else "person",
            Markup("" if message.deleted else _body(message.body)),
        )
        return fragment("message.html", view=view)

    def heading(self, file: str, thread: Thread) -> str:
        """A thread's heading."""
        return fragment(
            "thread.html", file=file, thread=thread, title=plain_line(thread.title), key=thread_key(thread)
        )

    def rows(
        self,
        file: str,
        conversation: Conversation,
        window: range,
        origins: Mapping[str, Origin],
        participants: Participants,
    ) -> str:
        """The messages of a window, by their places in the file, with the headings that they stand under."""
        parts: list[str] = []
        shown: Thread | None = None
        for message in conversation.messages[window.start : window.stop]:
            if message.thread is not shown:
                shown = message.thread
                parts.append(self.heading(file, shown))
            parts.append(self.article(file, message, origins.get(message.id, UNKNOWN), participants))
        return "".join(parts)


def empty_threads(conversation: Conversation) -> Iterator[Thread]:
    """The headings without a message."""
    return (thread for thread in conversation.threads if not thread.messages and thread.title)


def _body(body: str) -> str:
    return (_short if len(body) <= _SHORT_CHARACTERS else _long)(body)


@lru_cache(maxsize=_SHORT_KEPT)
def _short(body: str) -> str:
    return render_body(body)


@lru_cache(maxsize=_LONG_KEPT)
def _long(body: str) -> str:
    return render_body(body)


def place_of(messages: Sequence[Message], identity: str) -> int | None:
    """Where a message stands in the file's order."""
    return next((place for place, one in enumerate(messages) if one.id == identity), None)
