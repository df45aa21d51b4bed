"""Chats exported by other programs, made into conversations."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from understudy.conversation.bodies import normalise_body, written_body, written_time
from understudy.conversation.document import Conversation
from understudy.conversation.errors import InvalidImport
from understudy.conversation.grammar import MARKER_WIDTH
from understudy.conversation.parser import parse
from understudy.conversation.repository import ConversationRepository

_TITLE_LENGTH = 60
_TIME_KEYS = ("created_at", "created", "create_time", "timestamp", "time")
_MILLISECONDS = 1e11
"""A number beyond this counts milliseconds since 1970, not seconds (that would be the year 5138)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat export."""

    role: str
    name: str | None
    body: str
    created: datetime | None


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat of an export: each turn answers the one before."""

    title: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made. `left_out`: messages without any text."""

    file: str
    commit: str
    messages: int
    left_out: int = 0
    commits: int = 1
    participants: bool = False


def import_chats(
    repository: ConversationRepository,
    source: Path,
    file: str,
    author: str,
    *,
    names: Mapping[str, str] | None = None,
    started: datetime | None = None,
) -> Imported:
    """Make a new conversation of a chat export: one thread for each chat.

    `names` gives the roles (user, assistant, ...) the participants' names; a role without one keeps its own.
    Turns without a time get `started` (default: when the export was written) and one second more each.
    """
    chats = read_chats(source)
    when = started or datetime.fromtimestamp(source.stat().st_mtime, UTC)
    conversation = written_chats(chats, names or {}, when)
    commit = repository.add(file, conversation.text, author)
    turns = sum(len(chat.turns) for chat in chats)
    return Imported(file, commit, len(conversation.messages), turns - len(conversation.messages))


def read_chats(source: Path) -> tuple[Chat, ...]:
    """The chats in a file: one object with "messages", a list of them, or one in each line.

    `InvalidImport` says what is wrong with which of them; nothing is passed over.
    """
    text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")
    try:
        found = json.loads(text)
    except ValueError:
        found = [
            _json_line(line, source, number)
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip()
        ]
    rows = found if isinstance(found, list) else [found]
    if not rows:
        raise InvalidImport(f'{source} holds no chat: {{"messages": [...]}} was expected')
    return tuple(_chat(row, f"{source}, chat {number}") for number, row in enumerate(rows, start=1))


def _json_line(line: str, source: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InvalidImport(f"{source}, line {number}: JSON was expected: {error}") from error


def _chat(row: Any, where: str) -> Chat:
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise InvalidImport(f'{where}: an object with a list "messages" was expected; got {row!r:.80}')
    turns = tuple(_turn(entry, f"{where}, message {n}") for n, entry in enumerate(row["messages"], start=1))
    if not any(turn.body.strip() for turn in turns):
        raise InvalidImport(f"{where}: no message has any text")
    first = next((t for t in turns if t.role == "user" and t.body.strip()), None) or turns[0]
    return Chat(_title(row.get("title"), first.body), turns)


def _title(given: Any, body: str) -> str:
    """The chat's own title, else the beginning of what was asked first; one line that a heading can hold."""
    text = given if isinstance(given, str) and given.strip() else body
    words = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split()
    title = " ".join(words) or "Chat"
    return title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 1].rstrip() + "…"


def _turn(entry: Any, where: str) -> Turn:
    if not isinstance(entry, dict) or not isinstance(entry.get("role"), str):
        raise InvalidImport(
            f'{where}: an object with a "role" and a "content" was expected; got {entry!r:.80}'
        )
    name = entry.get("name")
    created = next((entry[key] for key in _TIME_KEYS if entry.get(key) is not None), None)
    body = _content(entry, where)
    return Turn(entry["role"], name if isinstance(name, str) else None, body, _moment(created, where))


def _content(entry: Mapping[str, Any], where: str) -> str:
    """The text of a message: its string, or its parts of text; calls of tools are shown as code."""
    content = entry.get("content")
    parts = [content] if isinstance(content, str) else content if isinstance(content, list) else []
    if content is not None and not isinstance(content, str | list):
        raise InvalidImport(f"{where}: content is a text or a list of parts; got {content!r:.80}")
    texts = [_part(part) for part in parts]
    calls = entry.get("tool_calls")
    if calls:
        texts.append(_code(calls))
    return "\n\n".join(text for text in texts if text.strip())


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    return _code(part)


def _code(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}json\n{text}\n{fence}"


def _moment(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        moment = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidImport(f"{where}: a time was expected; got {value!r}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def written_chats(chats: Iterable[Chat], names: Mapping[str, str], started: datetime) -> Conversation:
    """The chats as a conversation. Bodies are normalised like any that are submitted."""
    parts: list[str] = []
    bodies: list[str] = []
    titles: set[str] = set()
    for chat in chats:
        title, number = chat.title, 2
        while title in titles:
            title, number = f"{chat.title} ({number})", number + 1
        titles.add(title)
        parts.append(f"### {title}\n\n")
        for depth, turn in enumerate(turn for turn in chat.turns if turn.body.strip()):
            column = depth * MARKER_WIDTH
            body = normalise_body(turn.body.encode("utf-8", "replace").decode())
            when = turn.created or started + timedelta(seconds=len(bodies))
            name = valid_as_name(turn.name or names.get(turn.role, turn.role))
            written = written_body(body, column + MARKER_WIDTH, "\n")
            parts.append(f"{' ' * column}- @{name} [{written_time(when)}]:{written}\n\n")
            bodies.append(body)
    conversation = parse("".join(parts).rstrip("\n") + "\n")
    if [message.body for message in conversation.messages] != bodies:
        raise InvalidImport("this export would not read back as it was written; please report it")
    return conversation


def valid_as_name(text: str) -> str:
    """The text as a participant's name: what a name cannot hold becomes a hyphen."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c if c in "-_." or unicodedata.category(c)[0] in "LMN" else "-" for c in composed)
    return kept.strip("-") or "someone"
