"""What people's own data are in tests: scored messages, lessons, lines of JSON."""

import json
from pathlib import Path

from understudy.concepts import ScoredMessage
from understudy.lessons import ChatMessage, Lesson, Source

SOURCE = Source("", "", "m", "", "ann", "")


def lines(file: Path, *rows: object) -> Path:
    file.write_text("\n\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def lesson(number: int, rejected: str | None = "Go for a walk.", chosen: str = "I hear you") -> Lesson:
    context = (ChatMessage("user", f"Day {number} was long, and number {number * 7} was late again."),)
    return Lesson(context, f"{chosen}: {number} is hard, {number * 3} harder.", rejected, SOURCE)


def scored(text: str, *scores: tuple[str, float], answers: str = "", of: str = "talk") -> ScoredMessage:
    context = (ChatMessage("user", answers),) if answers else ()
    return ScoredMessage(text, context, of, f"{of}#{len(text)}", scores)


def warm(text: str, score: float, answers: str = "", of: str = "talk") -> ScoredMessage:
    return scored(text, ("warmth", score), answers=answers, of=of)
