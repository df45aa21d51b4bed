"""What is to be learned: lessons mined from conversations, imported, approved; the ledger."""

from understudy.lessons.chat import ChatMessage, Role
from understudy.lessons.context import chat_context
from understudy.lessons.errors import (
    AmbiguousLesson,
    IllegalTransition,
    LedgerVersion,
    LessonError,
    LessonFormat,
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
from understudy.lessons.requests import RequestQueue, RequestState, TrainingRequest

__all__ = [
    "SHORT_ID",
    "TRANSITIONS",
    "AmbiguousLesson",
    "ChatMessage",
    "Event",
    "Example",
    "IllegalTransition",
    "Ledger",
    "LedgerEntry",
    "LedgerVersion",
    "Lesson",
    "LessonError",
    "LessonFormat",
    "LessonResult",
    "Proposal",
    "QueueFull",
    "RequestConflict",
    "RequestQueue",
    "RequestState",
    "Role",
    "Session",
    "SessionConflict",
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
    "read_lessons",
    "write_lessons",
]
