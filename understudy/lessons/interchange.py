"""Lessons in and out as JSON Lines, in the shapes that other training tools read and write.

`{"messages": [...]}`, the last one the assistant's; `{"prompt": ..., "completion": ...}`; `{"prompt": ...,
"chosen": ..., "rejected": ...}`. Prompts and answers may be strings or lists of messages. A `source` beside
them is kept.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from understudy.lessons.chat import ChatMessage, Role
from understudy.lessons.errors import LessonFormat
from understudy.lessons.lesson import Lesson, Source

Shape = Literal["messages", "completion", "preference"]

_SHAPES = "'messages', 'prompt' with 'completion', or 'prompt' with 'chosen' and 'rejected'"


class _Problem(Exception):
    """What is wrong with one line; becomes a `LessonFormat` with its number."""


def read_lessons(path: Path | str) -> list[Lesson]:
    """Every lesson of a file; blank lines are passed over, any other line that is no lesson is a
    `LessonFormat`.
    """
    lessons = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                lessons.append(_lesson(line, Source(str(path), "", f"line {number}", "", "", "")))
            except _Problem as problem:
                raise LessonFormat(str(path), number, str(problem)) from problem
    return lessons


def write_lessons(path: Path | str, lessons: Iterable[Lesson], shape: Shape | None = None) -> None:
    """Write lessons, one per line, whole or not at all.

    Without a shape, those with a rejected answer are preferences and the others messages. A preference
    without one is a `ValueError`.
    """
    target = Path(path)
    text = "".join(json.dumps(_line(lesson, shape), ensure_ascii=False) + "\n" for lesson in lessons)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        # What is not Unicode (a lone surrogate) becomes its JSON escape.
        with aside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _line(lesson: Lesson, shape: Shape | None) -> dict[str, object]:
    prompt = [asdict(message) for message in lesson.context]
    answer = {"role": "assistant", "content": lesson.chosen}
    source = asdict(lesson.source)
    wanted = shape or ("messages" if lesson.rejected is None else "preference")
    if wanted == "messages":
        return {"messages": [*prompt, answer], "source": source}
    if wanted == "completion":
        return {"prompt": prompt, "completion": [answer], "source": source}
    if lesson.rejected is None:
        raise ValueError(
            f"a preference needs a rejected answer; this lesson has none: {lesson.chosen[:60]!r}"
        )
    rejected = {"role": "assistant", "content": lesson.rejected}
    return {"prompt": prompt, "chosen": [answer], "rejected": [rejected], "source": source}


def _lesson(line: bytes, here: Source) -> Lesson:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _Problem(f"JSON was expected: {error}") from error
    if not isinstance(row, dict):
        raise _Problem(f"an object was expected; got {type(row).__name__}")
    source = _source(row.get("source"), here)
    if "messages" in row:
        messages = _messages(row["messages"], "messages", "user")
        if not messages or messages[-1].role != "assistant":
            raise _Problem("'messages' must end with the assistant's answer")
        return Lesson(messages[:-1], _filled(messages[-1].content, "messages"), None, source)
    if "chosen" in row and "rejected" in row and "prompt" in row:
        prompt = _messages(row["prompt"], "prompt", "user")
        return Lesson(prompt, _answer(row, "chosen"), _answer(row, "rejected"), source)
    if "completion" in row and "prompt" in row:
        return Lesson(_messages(row["prompt"], "prompt", "user"), _answer(row, "completion"), None, source)
    raise _Problem(f"keys {_SHAPES} were expected; got {', '.join(map(repr, row)) or 'none'}")


def _messages(value: object, key: str, role: Role) -> tuple[ChatMessage, ...]:
    if isinstance(value, str):
        return (ChatMessage(role, value),) if value else ()
    if not isinstance(value, list):
        raise _Problem(f"{key!r} must be a string or a list of messages; got {type(value).__name__}")
    return tuple(_message(item, key) for item in value)


def _message(item: object, key: str) -> ChatMessage:
    if not isinstance(item, Mapping) or not isinstance(item.get("content"), str):
        raise _Problem(f"each message in {key!r} needs a 'role' and a 'content' of text; got {item!r:.80}")
    for role in get_args(Role):
        if item.get("role") == role:
            return ChatMessage(role, item["content"])
    raise _Problem(f"a role in {key!r} must be one of {', '.join(get_args(Role))}; got {item.get('role')!r}")


def _answer(row: Mapping[str, object], key: str) -> str:
    messages = _messages(row[key], key, "assistant")
    if len(messages) != 1 or messages[0].role != "assistant":
        raise _Problem(f"{key!r} must be one answer of the assistant's; got {len(messages)} messages")
    return _filled(messages[0].content, key)


def _filled(text: str, key: str) -> str:
    if not text.strip():
        raise _Problem(f"the answer in {key!r} is empty")
    return text


def _source(value: object, here: Source) -> Source:
    """The source that the line names, or the line itself."""
    if isinstance(value, Mapping) and set(value) == set(Source.__slots__):
        fields = {name: value[name] for name in Source.__slots__}
        if all(isinstance(field, str) for field in fields.values()):
            return Source(**fields)
    return here
