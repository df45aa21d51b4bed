"""Quoting: the paragraphs that a body has, and how one is quoted with a link to where it stands."""

import re

from understudy.conversation.document import Message
from understudy.conversation.grammar import columns

_MARKUP = re.compile(r"[\\`*_<>&!~|$:]")


def paragraphs(body: str) -> tuple[str, ...]:
    """The blocks of a body as a Markdown reader sees them, each with its own lines: a paragraph, a whole
    list, a fence with what it holds.

    Definitions of links show nothing, so they are none.
    """
    from markdown_it import MarkdownIt  # here, so that starting a program does not pay for it

    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(["normalize", "block"])
    lines = body.split("\n")
    blocks = (token.map for token in parser.parse(body) if token.level == 0 and token.map)
    return tuple("\n".join(lines[first:end]).rstrip("\n") for first, end in blocks)


def quoted(message: Message, text: str) -> str:
    """A body that quotes a text of the message's, and links to it: `[@name, time](#id)`."""
    lines = [f"> {_untabbed(line)}".rstrip(" ") for line in text.split("\n")]
    author = _MARKUP.sub(r"\\\g<0>", message.author)
    return "\n".join([*lines, "", f"[@{author}, {message.created}](#{message.id})"])


def _untabbed(line: str) -> str:
    """The line indented by spaces: behind a quote's mark a tab would reach less far."""
    text = line.lstrip(" \t")
    return " " * columns(line[: len(line) - len(text)]) + text
