"""A lesson: what was said before, what should have been said, and what was said instead."""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256

from understudy.lessons.chat import ChatMessage

SHORT_ID = 12
"""Hex digits of a lesson's digest that people see."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a lesson comes from: the message, the commit that corrected it, who, when (ISO 8601, UTC)."""

    file: str
    thread: str
    message: str
    commit: str
    author: str
    time: str


@dataclass(frozen=True, slots=True)
class Lesson:
    """In this context say `chosen`, not `rejected` (None where only the good answer is known)."""

    context: tuple[ChatMessage, ...]
    chosen: str
    rejected: str | None
    source: Source


def digest(lesson: Lesson) -> str:
    """What identifies a lesson: SHA-256 of its context and answers, wherever they come from."""
    content = [[asdict(message) for message in lesson.context], lesson.chosen, lesson.rejected]
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
