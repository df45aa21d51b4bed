"""What a person submits: names, titles, times and bodies, made safe to stand in a file."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from understudy.conversation.errors import InvalidBody, InvalidName, InvalidTime, InvalidTitle
from understudy.conversation.grammar import TOMBSTONE, escape

if TYPE_CHECKING:
    from markdown_it.token import Token

_LETTER_MARK_NUMBER = ("L", "M", "N")
_NAME_PUNCTUATION = "_.-"
_NOT_PLAIN = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, line and paragraph separators

# A first line that would mean something else behind "@name [time]: ", so it starts on a line of its own:
# indented code, quotes, HTML, tables, fences, headings, link definitions, list items, rules ...
_BLOCK_START = re.compile(
    r"[ \t><|]|`{3}|~{3}|\#{1,6}(?:[ \t]|$)|\[[^\]\n]*\]:"
    r"|(?:[-+*]|[0-9]{1,9}[.)])(?:[ \t]|$)|(?:[-_*][ \t]*+)++$",
    re.MULTILINE,
)
# ... and a first paragraph that becomes a heading or a table by an underline.
_UNDERLINE = re.compile(r"^ {0,3}[-=|:][-=|: \t]*+$", re.MULTILINE)
_BLANK_LINE = re.compile(r"\n[ \t]*+\n")
_CAN_STAY_OPEN = re.compile(r"`{3}|~{3}|<")
_PROBE = "# -"
_HTML_ENDS = (
    (re.compile(r"<(script|pre|style|textarea)(?![^\s>])", re.IGNORECASE), None),
    (re.compile(r"<!--"), "-->"),
    (re.compile(r"<\?"), "?>"),
    (re.compile(r"<!\[CDATA\["), "]]>"),
    (re.compile(r"<![A-Za-z]"), ">"),
)
"""CommonMark's HTML blocks that only their own end closes (conditions 1 - 5); None: the same tag, closing."""


def valid_name(name: str) -> str:
    """The name in Unicode's composed form, or `InvalidName`."""
    composed = unicodedata.normalize("NFC", name)
    wrong = next(
        (
            c
            for c in composed
            if c not in _NAME_PUNCTUATION and unicodedata.category(c)[0] not in _LETTER_MARK_NUMBER
        ),
        None,
    )
    if not composed or wrong is not None:
        raise InvalidName(
            f"a name holds letters, digits, '-', '_' and '.', at least one; got {name!r}"
            + (f" with {wrong!r} in it" if wrong is not None else "")
        )
    return composed


def valid_title(title: str) -> str:
    """The title without the spaces around it, or `InvalidTitle`."""
    stripped = title.strip()
    wrong = next((c for c in stripped if _is_not_plain(c)), None)
    if not stripped or wrong is not None:
        raise InvalidTitle(
            f"a title is one line that is not blank; got {title!r}"
            + (f" with {wrong!r} in it" if wrong is not None else "")
        )
    return stripped


def _is_not_plain(character: str) -> bool:
    return unicodedata.category(character) in _NOT_PLAIN


def written_time(created: datetime) -> str:
    """The time as a message line has it: UTC, to the second."""
    if created.tzinfo is None or created.utcoffset() is None:
        raise InvalidTime(f"a creation time needs a zone; got {created!r}: give e.g. datetime.now(UTC)")
    try:
        moment = created.astimezone(UTC)
    except OverflowError as error:
        raise InvalidTime(f"{created!r} is outside the calendar in UTC") from error
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def normalise_body(body: str) -> str:
    """What a submitted body becomes before it is written; `parse` gives exactly this back.

    Line endings become `\\n`, NUL becomes U+FFFD (both as in CommonMark), blank lines around the body go, and
    a code fence or HTML block left open is closed, because it would swallow the replies that follow in the
    file. Raises `InvalidBody` for a body without any text, or with lone surrogates.
    """
    try:
        body.encode()
    except UnicodeEncodeError as error:
        raise InvalidBody(
            f"a body is Unicode text; got a lone surrogate {body[error.start]!r} at {error.start}"
        ) from error
    text = body.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    lines = text.split("\n")
    filled = [number for number, line in enumerate(lines) if line.strip(" \t")]
    if not filled or not text.strip():
        raise InvalidBody("a body needs some text; got nothing but blanks")
    return _closed("\n".join(lines[filled[0] : filled[-1] + 1]))


def written_body(body: str, text_column: int, ending: str) -> str:
    """The characters that stand after a message's colon for this normalised body.

    A body that opens with a block (a list, a heading, a fence), or that would read as deleted, starts on its
    own line, behind a blank one.
    """
    indent = " " * text_column
    escaped = escape(body)
    first, *rest = escaped.split("\n")
    opens_block = _BLOCK_START.match(escaped) or _UNDERLINE.search(_BLANK_LINE.split(escaped, 1)[0])
    lines = ["", "", indent + first] if opens_block or body == TOMBSTONE else [" " + first]
    lines += [indent + line if line else "" for line in rest]
    return ending.join(lines)


def written_deletion() -> str:
    """The characters that stand after the colon of a deleted message."""
    return f" {TOMBSTONE}"


def swallows_next_line(body: str) -> bool:
    """Whether a Markdown reader would take a message line right under this body for a part of it."""
    return _open_block(body + "\n" + _PROBE) is not None


def _closed(body: str) -> str:
    """The body with the fence or HTML block that it leaves open closed by one more line."""
    block = _open_block(f"{body}\n\n{_PROBE}")
    if block is None:
        return body
    if block.type == "fence":
        return f"{body}\n{block.markup}"
    for start, end in _HTML_ENDS:
        if found := start.match(block.content.lstrip(" ")):
            return f"{body}\n{end or f'</{found[1]}>'}"
    raise InvalidBody(f"a body leaves a {block.type} open that nothing closes: {block.content[:60]!r}")


def _open_block(probed: str) -> "Token | None":
    """The block that swallowed the probe (the last line), None if the probe stands as a heading."""
    if not _CAN_STAY_OPEN.search(probed):
        return None
    from markdown_it import MarkdownIt  # here, so that starting a program does not pay for it

    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(["normalize", "block"])
    last = [token for token in parser.parse(probed) if token.level == 0 and token.map][-1]
    stands = last.type == "heading_open" and last.map is not None and last.map[0] == probed.count("\n")
    return None if stands else last
