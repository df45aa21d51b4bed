"""Messages that people gave scores: `warmth:9 clarity:10`, in their last line or as an answer to them.

No torch here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated

import msgspec

from understudy.concepts.errors import CannotCollect
from understudy.conversation import ConversationRepository, Message
from understudy.lessons import ChatMessage, Role, chat_context

NAME = "[a-z][a-z0-9_-]{0,63}"
"""What a concept may be called where its name comes from people's data: it becomes the name of a file."""
LEAST, MOST = 0, 10
"""The bounds of a score."""

_PAIR = rf"{NAME}:(?:10(?:\.0+)?|[0-9](?:\.[0-9]+)?)"
_LINE = re.compile(rf"[ \t]*{_PAIR}(?:[ \t]+{_PAIR})*[ \t]*\r?")

Scores = tuple[tuple[str, float], ...]
"""Names and scores, as they were given: a name may be there more than once."""


@dataclass(frozen=True, slots=True)
class ScoredMessage:
    """A message with what people gave it. `context`: what it answers as the model reads it, none where it is
    no answer. `conversation`: what it is of; `source`: where it stands, for people.
    """

    text: str
    context: tuple[ChatMessage, ...]
    conversation: str
    source: str
    scores: Scores


def read_score_line(line: str) -> Scores:
    """The scores of a line that is nothing but scores; none of any other."""
    if not _LINE.fullmatch(line):
        return ()
    pairs = (pair.split(":") for pair in line.split())
    return tuple((name, float(number)) for name, number in pairs)


def split_scores(text: str) -> tuple[str, Scores]:
    """A text without the score lines that it ends with, and what they say."""
    lines = text.rstrip().split("\n")
    found: Scores = ()
    while lines and (not lines[-1].strip() or read_score_line(lines[-1])):
        found = read_score_line(lines.pop()) + found
    return ("\n".join(lines).rstrip(), found) if found else (text, ())


# Conversations


def scored_in_conversations(repository: ConversationRepository, model_name: str) -> list[ScoredMessage]:
    """The scored messages of a workspace, by file and place: by their last line, or by direct replies whose
    whole body is scores.
    """
    return [
        _scored(file, message, scores, model_name)
        for file in repository.files()
        for message in repository.read(file).walk()
        if not message.deleted and split_scores(message.body)[0].strip() and (scores := _scores_of(message))
    ]


class _Unscored(Message):
    """A message as it reads without score lines; one that is nothing else is as if it were deleted."""

    @cached_property
    def body(self) -> str:
        return split_scores(super().body)[0]

    @cached_property
    def deleted(self) -> bool:
        return super().deleted or not self.body


def _unscored(message: Message) -> Message:
    return _Unscored(**{part.name: getattr(message, part.name) for part in fields(message)})


def _scores_of(message: Message) -> Scores:
    given = [split_scores(message.body)[1]]
    for reply in message.replies:
        text, scores = split_scores(reply.body)
        if not text.strip():
            given.append(scores)
    return tuple(score for scores in given for score in scores)


def _scored(file: str, message: Message, scores: Scores, model_name: str) -> ScoredMessage:
    before: list[Message] = []
    above = message.parent
    while above is not None:
        before.insert(0, _unscored(above))
        above = above.parent
    spoken = [one for one in before if not one.deleted]
    context = chat_context(spoken, model_name)
    answers = bool(context) and context[-1].role != "assistant" and spoken[-1].author != message.author
    text = split_scores(message.body)[0].strip()
    return ScoredMessage(text, context if answers else (), file, f"{file}#{message.id}", scores)


# JSON Lines


_Score = Annotated[float, msgspec.Meta(ge=LEAST, le=MOST)]
_Name = Annotated[str, msgspec.Meta(pattern=rf"^{NAME}\Z")]


class _LineMessage(msgspec.Struct, frozen=True):
    """A message of a line: what other tools keep beside it is passed over."""

    role: Role
    content: str
    scores: Mapping[_Name, _Score] | str | None = None


class _Line(msgspec.Struct, frozen=True):
    messages: tuple[_LineMessage, ...]


class _Problem(ValueError):
    """What is wrong with a line; becomes a CannotCollect with its number."""


def scored_in_lines(file: Path) -> list[ScoredMessage]:
    """The scored messages of a JSON Lines file of `{"messages": [...]}`: by their last line, by a message
    after them that is nothing but scores, or by `scores` beside `content`.

    Raises CannotCollect, with its number, for a line that is something else.
    """
    found: list[ScoredMessage] = []
    for number, line in numbered_lines(file):
        try:
            found += _of_line(msgspec.json.decode(line, type=_Line).messages, file, number)
        except (UnicodeError, msgspec.MsgspecError, _Problem) as error:
            raise CannotCollect(
                f'{file}, line {number}: expected {{"messages": [{{"role", "content", "scores"}}]}}: {error}'
            ) from error
    return found


def numbered_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers. Raises CannotCollect without one."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CannotCollect(f"expected a JSON Lines file at {file}: {error}") from error
    yield from ((number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip())


def _of_line(messages: Sequence[_LineMessage], file: Path, number: int) -> Iterator[ScoredMessage]:
    spoken: list[tuple[ChatMessage, Scores]] = []
    for message in messages:
        text, scores = split_scores(message.content)
        scores += _beside(message.scores)
        if text.strip():
            spoken.append((ChatMessage(message.role, text.strip()), scores))
        elif scores and spoken:
            spoken[-1] = (spoken[-1][0], spoken[-1][1] + scores)
        elif scores:
            raise _Problem("the first message is nothing but scores, with no message before it that has them")
    for place, (said, scores) in enumerate(spoken):
        if scores:
            before = tuple(earlier for earlier, _ in spoken[:place])
            answers = said.role == "assistant" and bool(before) and before[-1].role != "assistant"
            yield ScoredMessage(
                said.content,
                before if answers else (),
                f"{file} line {number}",
                f"{file.name} line {number}",
                scores,
            )


def _beside(given: Mapping[str, float] | str | None) -> Scores:
    if given is None:
        return ()
    if not isinstance(given, str):
        return tuple(given.items())
    if not (found := read_score_line(given)):
        raise _Problem(f"scores such as 'warmth:9 clarity:10', {LEAST} to {MOST}, got {given!r}")
    return found
