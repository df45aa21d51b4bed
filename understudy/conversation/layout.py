"""Where text is put in, taken out and moved in a conversation file: each function touches one place only.

What is `written` are whole lines, the last one's ending included; `ending` is the file's.
"""

from collections.abc import Iterator, Sequence

from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.grammar import BLANK, HEADING, MARKER_WIDTH, columns, dedent

_FENCES = ("```", "~~~")


def opened(text: str, heading: str, written: str, ending: str) -> tuple[str, int]:
    """The text with one more thread at its end, and where in it the written message begins."""
    lead = f"{_gap(text, ending)}{HEADING} {heading}{ending}{ending}"
    return f"{text}{lead}{written}", len(text) + len(lead)


def placed(text: str, begin: int, end: int, written: str, ending: str) -> tuple[str, int]:
    """The text with a message behind the last filled line between two offsets, and where it begins.

    It is set off by a blank line before it, and by one after it if a line follows at once.
    """
    place = line_after(text, begin + len(text[begin:end].rstrip(BLANK)), end)
    before, after = text[:place], text[place:]
    lead = ending if before.endswith("\n") else _line_end(before, ending) + ending
    trail = ending if after.split("\n", 1)[0].strip(BLANK) else ""
    return f"{before}{lead}{written}{trail}{after}", place + len(lead)


def removed(text: str, start: int, end: int) -> str:
    """The text without the lines from `start`, where a line begins, to the one that `end` stands in.

    Of the blank lines that would meet, the one before goes too, so what `placed` put in leaves no trace; at
    the beginning of the file, the one behind.
    """
    before, after = text[:start], text[line_after(text, end, len(text)) :]
    if before.endswith("\n") and not after.split("\n", 1)[0].strip(BLANK):
        last_line = before.rfind("\n", 0, -1) + 1
        if not before[last_line:].strip(BLANK):
            before = before[:last_line]
    elif not before.strip("\ufeff") and not after.split("\n", 1)[0].strip(BLANK):
        after = after.partition("\n")[2]
    return before + after


def lifted(text: str, roots: Sequence[Message], ending: str) -> str:
    """These messages and all below them with their dashes at column 0, whole lines, ready to be `placed`.

    `roots` stand one after the other in the file.
    """
    moved = [(below, root.span.text_column - MARKER_WIDTH) for root in roots for below in root.walk()]
    return shifted(text, moved, ending)


def shifted(text: str, messages: Sequence[tuple[Message, int]], ending: str) -> str:
    """These messages, each moved to the left by so many columns, whole lines, ready to be `placed`.

    They stand one after the other in the file. Bodies read as before: each of their lines keeps what it has
    beyond its message's text column.
    """
    last = messages[-1][0]
    parts = []
    for message, shift in messages:
        span = message.span
        end = line_after(text, message.body_end, span.end) if message is last else span.end
        if shift == 0:
            parts.append(text[span.start : end])
            continue
        column = span.text_column - shift
        parts.append(" " * (column - MARKER_WIDTH) + text[span.start : span.body].lstrip(" \t"))
        parts.append("\n".join(_moved_lines(text[span.body : end], span.text_column, column)))
    written = "".join(parts)
    return written if written.endswith("\n") else written + _line_end(written, ending)


def _moved_lines(raw: str, old: int, new: int) -> Iterator[str]:
    """The lines of a body, those after the first moved from one text column to another."""
    first, *rest = raw.split("\n")
    yield first
    for line in rest:
        content = dedent(line, old)
        if not content.strip("\r"):
            yield content
        elif content.startswith(_FENCES) and columns(line[: len(line) - len(line.lstrip(" \t"))]) < old:
            # Left of its text column it was no fence; one column left of the new one it is none either.
            yield " " * (new - 1) + content
        else:
            yield " " * new + content


def thread_end(doc: Conversation, thread: Thread) -> int:
    """The offset at which the next thread, or the end of the file, stands."""
    following = doc.threads[doc.threads.index(thread) + 1 :]
    return following[0].start if following else len(doc.text)


def line_after(text: str, place: int, end: int) -> int:
    """Where the line behind this place begins, `end` if none does before it."""
    line_end = text.find("\n", place, end)
    return line_end + 1 if line_end >= 0 else end


def _gap(text: str, ending: str) -> str:
    """What brings the end of a text to the start of a line behind a blank one."""
    filled = text.rstrip(BLANK)
    wanted = 2 if filled.strip("\ufeff") else 0
    unended = 0 if text.endswith("\n") or not text.strip("\ufeff") else 1
    more = max(wanted - text.count("\n", len(filled)), unended)
    return _line_end(text, ending) + ending * (more - 1) if more else ""


def _line_end(text: str, ending: str) -> str:
    """What ends the last line of this text: a `\\r` there is the first half of an ending."""
    return "\n" if text.endswith("\r") else ending
