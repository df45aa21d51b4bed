"""What the forms of conversations hold, as types: read from a post, and told in the API's document."""

from typing import Annotated

import msgspec

Body = Annotated[str, msgspec.Meta(max_length=4_000_000)]
Line = Annotated[str, msgspec.Meta(max_length=1000)]
Key = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,200}$")] | None
Seen = Line | None
"""The commit that the person saw."""


class StartForm(msgspec.Struct):
    """A new thread, in the conversation of this name or a new one."""

    name: Line
    title: Line
    body: Body
    key: Key = None


class PostForm(msgspec.Struct):
    """A message at the end of a thread."""

    file: Line
    thread: str
    body: Body
    key: Key = None


class MessageForm(msgspec.Struct, kw_only=True):
    """A message, and the commit at which it was seen."""

    file: Line
    id: Line
    seen: Seen = None


class ChangeForm(MessageForm, kw_only=True):
    """What is done with a message, once for each key."""

    key: Key = None


class ReplyForm(ChangeForm, kw_only=True):
    """A reply to a message."""

    body: Body


class EditForm(ChangeForm, kw_only=True):
    """Another text for a message."""

    body: Body


class DeleteForm(ChangeForm, kw_only=True):
    """A message to take back."""


class MoveForm(ChangeForm, kw_only=True):
    """A message to put into another thread, or into a new one with a title."""

    thread: str | None = None
    title: Line | None = None


class SplitForm(ChangeForm, kw_only=True):
    """A paragraph to open a thread about."""

    paragraph: int
    title: Line


class RestoreForm(msgspec.Struct):
    """A message to bring back, and the commit that took it away."""

    file: Line
    id: Line
    commit: Line
    key: Key = None


class RenameForm(msgspec.Struct):
    """Another title for a thread."""

    file: Line
    thread: str
    title: Line
    key: Key = None


class ReadForm(msgspec.Struct):
    """Up to which commit a conversation was read."""

    file: Line
    commit: Line


class StopForm(msgspec.Struct):
    """What is being said, by its key."""

    file: Line
    key: Line


class PreviewForm(msgspec.Struct):
    """What a preview is asked of; the other fields of the form it stands in are not looked at."""

    body: Body = ""
