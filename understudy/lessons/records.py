"""What the ledger hands out: entries, events, sessions; and which states follow which."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from understudy.lessons.chat import ChatMessage
from understudy.lessons.lesson import SHORT_ID, Lesson, Source

State = Literal["proposed", "approved", "trained", "kept", "reverted", "refused"]
SessionState = Literal["open", "finished", "abandoned"]

TRANSITIONS: Mapping[State, tuple[State, ...]] = MappingProxyType(
    {
        "proposed": ("approved", "refused"),
        "approved": ("trained", "refused"),
        "trained": ("kept", "reverted"),
        "kept": ("reverted",),
        "reverted": ("approved",),  # its effect is out of the weights: a person may ask for another try
        "refused": ("approved", "proposed"),  # proposed: only where a superseded text was put back
    }
)
"""What each state can become. `trained` is reached through a session alone."""


@dataclass(frozen=True, slots=True)
class LessonResult:
    """What training did: mean negative log-likelihood of the chosen answer, nats per token.

    `gated`: it was low enough before, so the lesson was passed over. The other four are log-probabilities of
    the whole answers, chosen and rejected, in nats: None where they were not measured. `answer_before` and
    `answer_after`: what the model itself said in the lesson's context; None where it was not asked.
    """

    loss_before: float | None
    loss_after: float | None
    gated: bool
    chosen_before: float | None = None
    chosen_after: float | None = None
    rejected_before: float | None = None
    rejected_after: float | None = None
    answer_before: str | None = None
    answer_after: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A lesson in the ledger. `session`, `result`, `weight_commit`, `trained_at` and `settings` are those of
    its last training; `Ledger.trainings` has them all.
    """

    id: str
    lesson: Lesson
    state: State
    proposed_at: str
    changed_at: str
    superseded_by: str | None
    session: str | None
    result: LessonResult | None
    weight_commit: str | None
    trained_at: str | None = None
    settings: Mapping[str, object] | None = None

    @property
    def short(self) -> str:
        """The id as people see it."""
        return self.id[:SHORT_ID]


@dataclass(frozen=True, slots=True)
class Training:
    """One time that a lesson was trained: when, under which settings, what came of it, in which commit."""

    session: str
    began_at: str
    ended_at: str
    settings: Mapping[str, object]
    weight_commit: str | None
    result: LessonResult


@dataclass(frozen=True, slots=True)
class Proposal:
    """The entry of a proposed lesson, and whether it is new or was there already."""

    entry: LedgerEntry
    new: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a lesson's life. `state_from` is None for the first."""

    lesson: str
    state_from: State | None
    state_to: State
    at: str
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Session:
    """A run of training over lessons, with its settings."""

    id: str
    state: SessionState
    lesson_ids: tuple[str, ...]
    settings: Mapping[str, object]
    weight_commit: str | None
    began_at: str
    ended_at: str | None
    why: str


def lesson_json(lesson: Lesson) -> str:
    """The lesson as the ledger stores it."""
    return json.dumps(
        {
            "context": [[message.role, message.content] for message in lesson.context],
            "chosen": lesson.chosen,
            "rejected": lesson.rejected,
            "source": [getattr(lesson.source, name) for name in Source.__slots__],
        }
    )


def lesson_from_json(text: str) -> Lesson:
    """The inverse of `lesson_json`."""
    stored = json.loads(text)
    context = tuple(ChatMessage(role, content) for role, content in stored["context"])
    return Lesson(context, stored["chosen"], stored["rejected"], Source(*stored["source"]))


def entry_from_row(row: sqlite3.Row) -> LedgerEntry:
    """An entry from a row of `lessons` joined with its session and what that did to it."""
    return LedgerEntry(
        row["id"],
        lesson_from_json(row["content"]),
        row["state"],
        row["proposed_at"],
        row["changed_at"],
        row["superseded_by"],
        row["session"],
        result_from_json(row["result"]),
        row["weight_commit"],
        row["ended_at"],
        json.loads(row["settings"]) if row["settings"] else None,
    )


def training_from_row(row: sqlite3.Row) -> Training:
    """One training from a row of `session_lessons` joined with its session."""
    result = result_from_json(row["result"])
    assert result is not None, "the query leaves out what has none"
    return Training(
        row["id"],
        row["began_at"],
        row["ended_at"],
        json.loads(row["settings"]),
        row["weight_commit"],
        result,
    )


def result_from_json(text: str | None) -> LessonResult | None:
    """A result as the ledger stores it; older ones lack what was not measured then."""
    return LessonResult(**json.loads(text)) if text else None


def session_from_row(connection: sqlite3.Connection, row: sqlite3.Row) -> Session:
    """A session from its row, with its lessons in the order in which they were given."""
    lessons = connection.execute(
        "select lesson from session_lessons where session = ? order by position", (row["id"],)
    )
    return Session(
        row["id"],
        row["state"],
        tuple(lesson["lesson"] for lesson in lessons),
        json.loads(row["settings"]),
        row["weight_commit"],
        row["began_at"],
        row["ended_at"],
        row["why"],
    )
