"""Threads in Markdown, kept in Git.

`parse` reads a conversation without losing a byte; `start`, `post`, `reply` and `edit` are pure functions on
what it gives; `ConversationRepository` makes each of them one commit, and tells from the history what
happened.
"""

from understudy.conversation.bodies import normalise_body, valid_name, valid_title
from understudy.conversation.document import Conversation, Message, Span, Thread
from understudy.conversation.errors import (
    AmbiguousThread,
    Conflict,
    ConversationError,
    DuplicateThread,
    FileThere,
    InvalidBody,
    InvalidName,
    InvalidPath,
    InvalidTime,
    InvalidTitle,
    InvalidTrailer,
    NotAWorkspace,
    RepositoryBusy,
    RepositoryFailure,
    StructureChanged,
    Unchanged,
    UnknownFile,
    UnknownMessage,
    UnknownRevision,
    UnknownThread,
)
from understudy.conversation.history import Change
from understudy.conversation.operations import edit, post, reply, start
from understudy.conversation.parser import parse
from understudy.conversation.repository import ConversationRepository, Posted

__all__ = [
    "AmbiguousThread",
    "Change",
    "Conflict",
    "Conversation",
    "ConversationError",
    "ConversationRepository",
    "DuplicateThread",
    "FileThere",
    "InvalidBody",
    "InvalidName",
    "InvalidPath",
    "InvalidTime",
    "InvalidTitle",
    "InvalidTrailer",
    "Message",
    "NotAWorkspace",
    "Posted",
    "RepositoryBusy",
    "RepositoryFailure",
    "Span",
    "StructureChanged",
    "Thread",
    "Unchanged",
    "UnknownFile",
    "UnknownMessage",
    "UnknownRevision",
    "UnknownThread",
    "edit",
    "normalise_body",
    "parse",
    "post",
    "reply",
    "start",
    "valid_name",
    "valid_title",
]
