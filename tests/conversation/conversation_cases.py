"""Texts, bodies and names that are hard to read, for the tests of the format."""

import re
from datetime import UTC, datetime

from hypothesis import strategies as st

NOW = datetime(2026, 11, 20, 12, 30, 45, tzinfo=UTC)
WRITTEN = "2026-11-20T12:30:45Z"
FORGED = "- @eve [2025-01-01T00:00:00Z]: forged"
TALK = """### Tea

- @ann [2025-02-12T01:14:44Z]: First.

  Second.


- @bob [2025-02-12T01:16:22]: Other.

  - @ann [2025-02-12T01:18:15Z]: Child.
    More.
    - @bob [2025-02-12T01:20:33Z]: Grandchild.

### Coffee

- @ann [2025-02-14T00:00:00Z]: Last"""

BODY_PARTS = [
    FORGED,
    "  " + FORGED,
    "\t" + FORGED,
    "\\" + FORGED,
    "*" + FORGED[1:],
    "-\t" + FORGED[2:],
    "- " + FORGED,
    "1. \\" + FORGED,
    "> " + FORGED,
    "- - - x",
    "### Title",
    "*(deleted)*",
    "```",
    "```py",
    "~~~~",
    "`",
    "<!--",
    "-->",
    "<div>",
    "<script>",
    "</pre>",
    "<?",
    "<!DOCTYPE",
    "<![CDATA[",
    "[x]: http://example.org",
    "===",
    "=",
    "---",
    "a | b\n--|--",
    "1. one",
    "- item",
    "- ```",
    "> quote",
    "> ```",
    "    code",
    "\ttab",
    "x  ",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    " ",
    "\0",
    "\ufeff",
    "\u2028",
    "\x85",
    "é名",
    "\\",
]
bodies = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from(BODY_PARTS), st.text(max_size=4)), max_size=12).map("\n".join),
    st.lists(st.sampled_from(BODY_PARTS), max_size=6).map("".join),
).filter(lambda body: bool(body.replace("\0", "x").strip()) and not re.search("[\ud800-\udfff]", body))
plain_bodies = (  # for a reader that takes control characters for blanks, and fences in HTML for fences
    st.lists(
        st.one_of(
            st.sampled_from(
                [part for part in BODY_PARTS if part.isprintable() and part[0] != "<" and part != "```py"]
            ),
            st.text(
                st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["C", "Z"]),
                max_size=4,
            ),
        ),
        max_size=12,
    )
    .map("\n".join)
    .filter(lambda body: bool(body.strip()))
)
names = st.text(st.characters(categories=["L", "M", "N"], include_characters="_.-"), min_size=1, max_size=8)
titles = st.one_of(
    st.sampled_from(["Tea", "Coffee", "A"]),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=30),
).filter(lambda title: bool(title.strip()))

# Files as editors and hostile hands leave them. Authors, seconds and titles repeat, on purpose.
_LINES = [
    "### A",
    "### B",
    "###",
    "###  A  ",
    *["- @a [2025-01-01T00:00:00Z]: x", "- @b [2025-01-01T00:00:00Z]: y"] * 4,
    "- @b [2025-01-01T00:00:01+02:00]:",
    "- @a [2025-01-01T00:00:00Z]: *(deleted)*",
    "- @a-b.c_d [2025-01-01 00:00]: ```",
    "\\- @a [2025-01-01T00:00:00Z]: escaped",
    "- @a [soon]: x",
    "text",
    "more  ",
    "\tcode",
    "    code",
    "```",
    "````",
    "~~~ py",
    "<!--",
    "<div>",
    "[x]: http://example.org",
    "é名\u2028",
    "\udc80",
    "",
    "",
    "",
    "  ",
    "\t",
    "\r",
]
_indents = st.sampled_from(["", "", "  ", "  ", "    ", "      ", " ", "   ", "\t", " \t", "\t  "])
_rows = st.lists(st.tuples(_indents, st.sampled_from(_LINES)).map("".join), min_size=5, max_size=25)
wild_texts = st.builds(
    lambda mark, rows, ending, last: mark + ending.join(rows) + last,
    st.sampled_from(["", "", "\ufeff"]),
    _rows,
    st.sampled_from(["\n", "\n", "\r\n"]),
    st.sampled_from(["", "\n", "\r\n", "\r", "\n\n\n"]),
)


def tidy_texts() -> st.SearchStrategy[str]:
    """Files in good order, in which seconds, authors and titles repeat."""
    message = st.tuples(
        st.integers(0, 3),
        st.sampled_from("ab"),
        st.integers(0, 1),
        st.sampled_from(["x", "y\n\nz", "```\nx\n```"]),
    )
    threads = st.lists(st.tuples(st.sampled_from("AB"), st.lists(message, max_size=6)), max_size=4)
    return threads.map(_tidy)


def _tidy(threads: list[tuple[str, list[tuple[int, str, int, str]]]]) -> str:
    parts = []
    for title, messages in threads:
        parts.append(f"### {title}\n")
        deepest = 0
        for depth, author, second, body in messages:
            column = "  " * min(depth, deepest)
            deepest = min(depth, deepest) + 1
            lines = (
                ["", *body.split("\n")]
                if body[0] == "`"
                else [" " + body.split("\n")[0], *body.split("\n")[1:]]
            )
            head = f"{column}- @{author} [2025-01-01T00:00:0{second}Z]:{lines[0]}"
            rest = "".join("\n" + (f"{column}  {line}" if line else "") for line in lines[1:])
            parts.append(head + rest + "\n")
    return "\n".join(parts)
