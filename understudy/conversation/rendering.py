"""What a person wrote, as HTML that can do no harm, in bounded time.

A body is rendered on its own. HTML in it is shown as text, images become links, and what was rendered is
sanitised once more. Characters that turn the direction of text stand as their names, so that no body shows
anything in another order than it has, nor turns what is beside it.
"""

import re
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from understudy.conversation.highlighting import classes, highlighted
from understudy.conversation.searching import plain

if TYPE_CHECKING:
    import nh3
    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

MOST_STEPS = 50_000
"""Places in a body at which a Markdown rule is tried, and pieces that a page is put together of: some 300 kB
of prose, 5,000 list items or rows of a table.
"""

MOST_CHARACTERS = 500_000
"""With these two the worst body known (tests/conversation/hostile_bodies.py has their kinds) takes 1.3 s."""

NESTING = 40
"""Levels of quotes and lists (a list has two). Markdown is tried again in each, and what stands deeper would
not be shown.
"""

COLOUR_SECONDS = 0.5
"""For all the code in a body."""

_TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TASK = re.compile(r"\[([ xX])\][ \t]")
_TARGET = re.compile(r"#|(?:https?|mailto):", re.IGNORECASE)
_TAGS = frozenset(
    [
        *("a", "blockquote", "br", "code", "em", "hr", "li", "ol", "p", "pre", "s", "span", "strong", "ul"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "input", "table", "tbody", "td", "th", "thead", "tr"),
    ]
)
_ALIGNMENTS = frozenset(["align-left", "align-center", "align-right"])

BODY_CSS = """\
.align-left { text-align: left; } .align-center { text-align: center; } .align-right { text-align: right; }
.task { list-style: none; } .task input { margin: 0 .4rem 0 -1.4rem; }
.bidi { border: 1px solid; border-radius: .2rem; font-size: .7em; padding: 0 .2rem; }
"""
"""For the classes in what `render_body` gives, beside those of `highlight_css`."""


class _TooMuch(Exception):
    pass


@dataclass
class _Work:
    """One body's rendering: where its links lead, and what it has cost."""

    links: Mapping[str, str]
    steps: int = 0
    colour_until: float | None = field(default=None)

    def step(self, level: int = 0, pieces: int = 0) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS or pieces > MOST_STEPS or level >= NESTING:
            raise _TooMuch

    def late(self) -> bool:
        now = time.monotonic()
        if self.colour_until is None:
            self.colour_until = now + COLOUR_SECONDS
        return now > self.colour_until


def render_body(body: str, links: Mapping[str, str] | None = None) -> str:
    """A body's Markdown as safe HTML. `links` gives a message's id the target on the page.

    What would take too long, or nests too deep, is shown as it was written, in one `<pre>`. There are no
    `style` attributes; the classes are those of `BODY_CSS` and `highlight_css`.
    """
    text = plain(body)
    if len(text) <= MOST_CHARACTERS:
        try:
            return _cleaner().clean(_markdown().render(text, {"work": _Work(links or {})}))
        except (_TooMuch, RecursionError):
            pass
    return f"<pre>{_shown(text)}</pre>\n"


def plain_line(text: str) -> str:
    """A title or a name as one line to show (not escaped): what is unseen, or turns text, by its name."""
    return _UNSEEN.sub(lambda found: f"[{_name(found[0])}]", plain(text))


def _name(character: str) -> str:
    return f"U+{ord(character):04X}"


def _shown(text: str) -> str:
    """Text as HTML."""
    return _named(escape(text))


def _named(page: str) -> str:
    """HTML in which the characters that turn text stand as their names."""
    return _TURNING.sub(lambda found: f'<span class="bidi">{_name(found[0])}</span>', page)


@cache
def _cleaner() -> "nh3.Cleaner":
    import nh3  # here, so that starting a program does not pay for it

    return nh3.Cleaner(
        tags=set(_TAGS),
        attributes={"a": {"href", "title"}, "ol": {"start"}, "code": {"class"}, "input": {"checked"}},
        set_tag_attribute_values={"input": {"type": "checkbox", "disabled": "disabled"}},
        allowed_classes={
            "td": set(_ALIGNMENTS),
            "th": set(_ALIGNMENTS),
            "li": {"task"},
            "span": {"bidi", *classes()},
        },
        url_schemes={"http", "https", "mailto"},
        url_relative=lambda target: target if target.startswith("#") else None,
        link_rel="noopener noreferrer nofollow",
    )


@cache
def _markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt  # here, so that starting a program does not pay for it

    markdown = MarkdownIt("commonmark", {"html": False, "maxNesting": NESTING + 4})
    markdown.enable(["table", "strikethrough"])
    interrupting = ["paragraph", "reference", "blockquote", "list", "table"]
    markdown.block.ruler.before("table", "bounded", _count_block, {"alt": interrupting})
    markdown.inline.ruler.before("text", "bounded", _count_inline)
    markdown.core.ruler.after("inline", "tasks", _mark_tasks)
    for name, rule in _RULES.items():
        markdown.add_render_rule(name, rule)
    markdown.render("", {"work": _Work({})})  # its rules are compiled before several threads use them
    return markdown


def _count_block(state: "StateBlock", _line: int, _end: int, _silent: bool) -> bool:
    """No rule: where Markdown looks for a block."""
    state.env["work"].step(state.level, len(state.tokens))
    return False


def _count_inline(state: "StateInline", _silent: bool) -> bool:
    """No rule: where Markdown looks for markup in a line. What nests too deep there shows as text."""
    state.env["work"].step()
    return False


def _mark_tasks(state: "StateCore") -> None:
    """Give list items that begin with `[ ]` or `[x]` a checkbox."""
    for item, paragraph, line in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if (item.type, paragraph.type, line.type) != ("list_item_open", "paragraph_open", "inline"):
            continue
        text = next(iter(line.children or ()), None)
        task = _TASK.match(text.content) if text and text.type == "text" else None
        if task and text and line.children:
            item.attrSet("class", "task")
            text.content = text.content[task.end() :]
            line.children.insert(0, _checkbox(checked=task[1] != " "))


def _checkbox(checked: bool) -> "Token":
    from markdown_it.token import Token

    box = Token("checkbox", "input", 0)
    if checked:
        box.attrSet("checked", "checked")
    return box


_Tokens = Sequence["Token"]
_Environment = MutableMapping[str, Any]


def _text(_: "RendererHTML", tokens: _Tokens, place: int, _options: Any, _env: _Environment) -> str:
    return _shown(tokens[place].content)


def _code(_: "RendererHTML", tokens: _Tokens, place: int, _options: Any, _env: _Environment) -> str:
    return f"<code>{_shown(tokens[place].content)}</code>"


def _code_block(_: "RendererHTML", tokens: _Tokens, place: int, _options: Any, _env: _Environment) -> str:
    return f"<pre><code>{_shown(tokens[place].content)}</code></pre>\n"


def _fence(_: "RendererHTML", tokens: _Tokens, place: int, _options: Any, env: _Environment) -> str:
    token = tokens[place]
    language = next(iter(token.info.split()), "")
    coloured = highlighted(token.content, language, env["work"].late)
    shown = _shown(token.content) if coloured is None else _named(coloured)
    named = f' class="language-{escape(language)}"' if language else ""
    return f"<pre><code{named}>{shown}</code></pre>\n"


def _image(_: "RendererHTML", tokens: _Tokens, place: int, _options: Any, _env: _Environment) -> str:
    source, text = str(tokens[place].attrGet("src") or ""), tokens[place].content
    if not _TARGET.match(source):
        return _shown(text or source)
    return f'<a href="{escape(source)}">{_shown(text or source)}</a>'


def _link(self: "RendererHTML", tokens: _Tokens, place: int, options: Any, env: _Environment) -> str:
    token, links = tokens[place], env["work"].links
    target = str(token.attrGet("href") or "")
    if target.startswith("#") and target[1:] in links:
        token.attrSet("href", "#" + links[target[1:]])
    elif not _TARGET.match(target):
        token.attrs.pop("href", None)
    if "title" in token.attrs:
        token.attrSet("title", plain_line(str(token.attrs["title"])))
    return str(self.renderToken(tokens, place, options, env))


def _cell(self: "RendererHTML", tokens: _Tokens, place: int, options: Any, env: _Environment) -> str:
    """A table's cell: its alignment comes as a style."""
    style = str(tokens[place].attrs.pop("style", ""))
    if style:
        tokens[place].attrSet("class", f"align-{style.removeprefix('text-align:')}")
    return str(self.renderToken(tokens, place, options, env))


_RULES = {
    "text": _text,
    "code_inline": _code,
    "code_block": _code_block,
    "fence": _fence,
    "image": _image,
    "link_open": _link,
    "td_open": _cell,
    "th_open": _cell,
}
