"""Threads in Markdown, kept in Git.

`parse` reads a conversation without losing a byte; `start`, `post`, `reply` and `edit` are pure functions on
what it gives; `ConversationRepository` makes each of them one commit, and tells from the history what
happened.
"""

from understudy.conversation.anchors import Place
from understudy.conversation.bodies import normalise_body, valid_name, valid_title
from understudy.conversation.checking import Finding, check
from understudy.conversation.comparing import Piece, compare_words
from understudy.conversation.document import Conversation, Message, Span, Thread
from understudy.conversation.drivers import drive_merge, install_merge_driver
from understudy.conversation.errors import (
    AmbiguousAnchor,
    AmbiguousThread,
    Conflict,
    ConversationError,
    DeletedMessage,
    DuplicateThread,
    FileThere,
    InvalidAnchor,
    InvalidBody,
    InvalidImport,
    InvalidName,
    InvalidParticipants,
    InvalidPath,
    InvalidQuery,
    InvalidTarget,
    InvalidTime,
    InvalidTitle,
    InvalidTrailer,
    KeyReused,
    MergeStopped,
    NotAllowed,
    NotAWorkspace,
    PushRejected,
    RemoteFailure,
    RepositoryBusy,
    RepositoryFailure,
    StructureChanged,
    Unchanged,
    UnknownFile,
    UnknownMessage,
    UnknownParagraph,
    UnknownRemote,
    UnknownRevision,
    UnknownThread,
)
from understudy.conversation.exporting import export_html, export_json
from understudy.conversation.grafting import import_older
from understudy.conversation.highlighting import highlight_css
from understudy.conversation.history import Change
from understudy.conversation.importing import Imported, import_chats
from understudy.conversation.index import Activity, Entry, Index
from understudy.conversation.maintenance import Maintained, maintain, maintain_when_due, maintenance_due
from understudy.conversation.merging import MergeNote, merge
from understudy.conversation.operations import edit, post, reply, start
from understudy.conversation.parser import parse
from understudy.conversation.participants import (
    Access,
    Kind,
    Participant,
    Participants,
    Right,
    read_participants,
    write_participants,
)
from understudy.conversation.quoting import paragraphs
from understudy.conversation.remotes import Pulled, add_remote, clone, pull, push
from understudy.conversation.rendering import BODY_CSS, plain_line, render_body
from understudy.conversation.repository import ConversationRepository, Posted
from understudy.conversation.restoring import restore
from understudy.conversation.restructuring import delete, merge_threads, move, rename, split
from understudy.conversation.revisions import Revision
from understudy.conversation.searching import MATCH_END, MATCH_START

__all__ = [
    "BODY_CSS",
    "MATCH_END",
    "MATCH_START",
    "Access",
    "Activity",
    "AmbiguousAnchor",
    "AmbiguousThread",
    "Change",
    "Conflict",
    "Conversation",
    "ConversationError",
    "ConversationRepository",
    "DeletedMessage",
    "DuplicateThread",
    "Entry",
    "FileThere",
    "Finding",
    "Imported",
    "Index",
    "InvalidAnchor",
    "InvalidBody",
    "InvalidImport",
    "InvalidName",
    "InvalidParticipants",
    "InvalidPath",
    "InvalidQuery",
    "InvalidTarget",
    "InvalidTime",
    "InvalidTitle",
    "InvalidTrailer",
    "KeyReused",
    "Kind",
    "Maintained",
    "MergeNote",
    "MergeStopped",
    "Message",
    "NotAWorkspace",
    "NotAllowed",
    "Participant",
    "Participants",
    "Piece",
    "Place",
    "Posted",
    "Pulled",
    "PushRejected",
    "RemoteFailure",
    "RepositoryBusy",
    "RepositoryFailure",
    "Revision",
    "Right",
    "Span",
    "StructureChanged",
    "Thread",
    "Unchanged",
    "UnknownFile",
    "UnknownMessage",
    "UnknownParagraph",
    "UnknownRemote",
    "UnknownRevision",
    "UnknownThread",
    "add_remote",
    "check",
    "clone",
    "compare_words",
    "delete",
    "drive_merge",
    "edit",
    "export_html",
    "export_json",
    "highlight_css",
    "import_chats",
    "import_older",
    "install_merge_driver",
    "maintain",
    "maintain_when_due",
    "maintenance_due",
    "merge",
    "merge_threads",
    "move",
    "normalise_body",
    "paragraphs",
    "parse",
    "plain_line",
    "post",
    "pull",
    "push",
    "read_participants",
    "rename",
    "render_body",
    "reply",
    "restore",
    "split",
    "start",
    "valid_name",
    "valid_title",
    "write_participants",
]
