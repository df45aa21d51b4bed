"""The line grammar of a conversation file: which lines are structure, and how bodies avoid looking like it.

docs/FORMAT.md says the same in prose. Only `\\n` ends a line; a `\\r` before it belongs to the line ending.
"""

import re

TAB_STOP = 4
MARKER_WIDTH = 2
"""Columns from a message's dash to its text, so also from one depth to the next."""

LINE_END = "\r\n"
BLANK = " \t" + LINE_END
"""What a blank line holds: Unicode's other spaces are text."""

HEADING = "###"

TOMBSTONE = "*(deleted)*"
"""What stands on the message line in place of a deleted message's body."""

_CREATED = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?"
    r"(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_MESSAGE = r"- @(?P<author>[^\s\[\]]++) \[(?P<created>" + _CREATED + r")\]:"

STRUCTURE = re.compile(
    r"(?:\A\ufeff|^)(?:"
    r"(?P<indent>[ \t]*+)(?:" + _MESSAGE + r"|(?P<fence>`{3,}+|~{3,}+))"
    r"|(?P<heading>\#\#\#)(?=[ \t\r\n]|\Z))",
    re.MULTILINE,
)
"""Every line that can open a thread or a message, or open or close a fence."""

# What a Markdown reader could take for a message: any bullet, also behind other list and quote markers.
_MARKERS = r"^([ \t]*+(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]++|>[ \t]*+)*)"
_MESSAGE_LIKE = r"(?=\\*+[-*+][ \t]++@[^\s\[\]]++ \[" + _CREATED + r"\]:)"
_ESCAPABLE = re.compile(_MARKERS + _MESSAGE_LIKE, re.MULTILINE)
_ESCAPED = re.compile(_MARKERS + r"\\" + _MESSAGE_LIKE, re.MULTILINE)


def escape(body: str) -> str:
    """Put a backslash before the bullet of every message-like line (and one more where backslashes stand).

    CommonMark shows the backslash and the bullet as the bullet's character, so the text reads the same.
    """
    return _ESCAPABLE.sub(r"\1\\", body)


def unescape(body: str) -> str:
    """Undo `escape`."""
    return _ESCAPED.sub(r"\1", body)


def columns(whitespace: str) -> int:
    """The column that leading spaces and tabs reach."""
    if "\t" not in whitespace:
        return len(whitespace)
    column = 0
    for character in whitespace:
        column += TAB_STOP - column % TAB_STOP if character == "\t" else 1
    return column


def dedent(line: str, width: int) -> str:
    """Take up to `width` columns of indentation off; what a tab covers beyond them stays as spaces."""
    if len(line) - len(line.lstrip(" ")) >= width:
        return line[width:]
    column = 0
    for position, character in enumerate(line):
        if column >= width:
            return " " * (column - width) + line[position:]
        if character == " ":
            column += 1
        elif character == "\t":
            column += TAB_STOP - column % TAB_STOP
        else:
            return line[position:]
    return " " * (column - width)


def line_ending(text: str) -> str:
    """The file's own line ending: that of its first line."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"
