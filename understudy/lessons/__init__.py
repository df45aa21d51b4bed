"""What is to be learned: lessons mined from conversations, imported, approved; the ledger."""

from understudy.lessons.chat import ChatMessage, Role
from understudy.lessons.context import chat_context
from understudy.lessons.decisions import Choice, Decisions, KeepOrRevert, SessionDecision
from understudy.lessons.errors import (
    AmbiguousLesson,
    IllegalTransition,
    LedgerVersion,
    LessonError,
    LessonFormat,
    NoOpenQuestion,
    QueueFull,
    RequestConflict,
    SessionConflict,
    UnknownLesson,
    UnknownRequest,
    UnknownSession,
)
from understudy.lessons.example import Example
from understudy.lessons.interchange import Shape, read_lessons, write_lessons
from understudy.lessons.ledger import Ledger
from understudy.lessons.lesson import SHORT_ID, Lesson, Source, digest
from understudy.lessons.mining import mine, moves
from understudy.lessons.notes import NOTES_TRAILER, Note, notes_in, notes_trailer, with_notes
from understudy.lessons.records import (
    TRANSITIONS,
    Event,
    LedgerEntry,
    LessonResult,
    Proposal,
    Session,
    State,
    Training,
)
from understudy.lessons.replies import WEIGHTS_TRAILER, Reply, replies
from understudy.lessons.requests import RequestQueue, RequestState, TrainingRequest

__all__ = [
    "NOTES_TRAILER",
    "SHORT_ID",
    "TRANSITIONS",
    "WEIGHTS_TRAILER",
    "AmbiguousLesson",
    "ChatMessage",
    "Choice",
    "Decisions",
    "Event",
    "Example",
    "IllegalTransition",
    "KeepOrRevert",
    "Ledger",
    "LedgerEntry",
    "LedgerVersion",
    "Lesson",
    "LessonError",
    "LessonFormat",
    "LessonResult",
    "NoOpenQuestion",
    "Note",
    "Proposal",
    "QueueFull",
    "Reply",
    "RequestConflict",
    "RequestQueue",
    "RequestState",
    "Role",
    "Session",
    "SessionConflict",
    "SessionDecision",
    "Shape",
    "Source",
    "State",
    "Training",
    "TrainingRequest",
    "UnknownLesson",
    "UnknownRequest",
    "UnknownSession",
    "chat_context",
    "digest",
    "mine",
    "moves",
    "notes_in",
    "notes_trailer",
    "read_lessons",
    "replies",
    "with_notes",
    "write_lessons",
]
