"""What two Markdown readers, which know nothing of the format, see of a conversation."""

import re
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt

from understudy.conversation import Conversation

HEAD = re.compile(r"@([^\s\[\]]+) \[([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z?)\]:")


def seen_by_markdown_it(text: str) -> list[tuple[str, str, int]]:
    """The messages (author, time, depth) that markdown-it, which knows nothing of this format, sees."""

    tokens = MarkdownIt("commonmark", {"maxNesting": 1_000}).parse(text)
    found: list[tuple[str, str, int]] = []
    items: list[bool] = []  # of each list item that is open, whether it is a message
    for at, token in enumerate(tokens):
        if token.type == "list_item_close":
            items.pop()
        elif token.type == "list_item_open":
            paragraph, inline = tokens[at + 1], tokens[at + 2] if at + 2 < len(tokens) else token
            head = None
            if paragraph.type == "paragraph_open" and paragraph.map and token.map:
                head = HEAD.match(inline.content) if paragraph.map[0] == token.map[0] else None
            if head:
                found.append((head[1], head[2], sum(items)))
            items.append(head is not None)
    return found


def seen_by_mistletoe(text: str) -> list[tuple[str, str, int]]:
    """The same by mistletoe, which shares no code with markdown-it."""
    from mistletoe import block_token

    def words(token: Any) -> str:
        if getattr(token, "children", None) is not None:
            return "".join(words(child) for child in token.children)
        return str(getattr(token, "content", "\n"))

    def visit(token: Any, depth: int) -> Iterator[tuple[str, str, int]]:
        for child in token.children or ():
            head = None
            if isinstance(child, block_token.ListItem) and child.children:
                paragraph: Any = next(iter(child.children))
                same_line = paragraph.line_number == child.line_number
                if same_line and isinstance(paragraph, block_token.Paragraph):
                    head = HEAD.match(words(paragraph))
            if head:
                yield head[1], head[2], depth
            if isinstance(child, block_token.BlockToken):
                yield from visit(child, depth + bool(head))

    return list(visit(block_token.Document(text), 0))


def ours(doc: Conversation) -> list[tuple[str, str, int]]:
    """The messages that this program sees."""
    return [(message.author, message.created, message.depth) for message in doc.walk()]
