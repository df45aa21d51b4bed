"""Conversations for other programs and for people without this one: JSON, and one self-contained page.

Each body is rendered on its own, so nothing that stands in one (a link definition, an open fence) reaches
another; HTML in bodies is shown as text, and what is rendered is sanitised once more.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from understudy.conversation.document import Conversation, Message
from understudy.conversation.participants import UNRESTRICTED, Participants
from understudy.conversation.searching import plain

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

FORMAT = "understudy-conversations"
VERSION = 1

_NESTING = 100
"""Blocks inside one body that are rendered as blocks; deeper ones show as text."""

_TAGS = frozenset(
    [
        *("a", "blockquote", "br", "code", "del", "em", "hr", "li", "ol", "p", "pre", "s", "strong", "ul"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "table", "tbody", "td", "th", "thead", "tr"),
    ]
)
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "code": {"class"}}
_SCHEMES = {"http", "https", "mailto"}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
article { padding: .1rem .8rem; border-left: 3px solid #8888; }
article { margin: .8rem 0 .8rem calc(min(var(--depth), 12) * 1.4rem); }
article:target { border-color: #c60; }
article.model { border-left-style: double; }
article > header { font-size: .9rem; opacity: .8; }
article > header a { color: inherit; }
pre { overflow-x: auto; padding: .5rem; background: #8882; }
table { border-collapse: collapse; } td, th { border: 1px solid #8888; padding: .1rem .5rem; }
blockquote { margin-left: 0; padding-left: .8rem; border-left: 3px solid #8884; }
"""


def export_json(conversations: Mapping[str, Conversation]) -> dict[str, Any]:
    """The conversations (by file) as data for `json.dumps`.

    Messages stand in file order in one flat list for each thread, and name their `parent`: so any depth of
    replies can be read by any reader. Bodies, authors and times are as in the file.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "conversations": [
            {
                "file": file,
                "threads": [
                    {"title": plain(thread.title), "messages": [_data(message) for message in thread.walk()]}
                    for thread in conversation.threads
                ],
            }
            for file, conversation in conversations.items()
        ],
    }


def _data(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "parent": message.parent.id if message.parent else None,
        "depth": message.depth,
        "author": plain(message.author),
        "created": message.created,
        "deleted": message.deleted,
        "body": plain(message.body),
    }


def export_html(
    conversations: Mapping[str, Conversation], title: str, participants: Participants = UNRESTRICTED
) -> str:
    """One page that holds everything it shows: no script, nothing loaded from anywhere.

    Images become links, since a page that fetched them would neither be whole nor private. Messages keep
    their ids as the targets of links; where two files share one, its later bearers get another.
    """
    targets = _targets(conversations)
    parts = [_head(title)]
    if sum(len(conversation.threads) for conversation in conversations.values()) > 1:
        parts.append(_contents(conversations))
    for file, conversation in conversations.items():
        parts.append(f"<section>\n<h1>{_text(file)}</h1>\n")
        renderer = _renderer({message.id: targets[file, message.id] for message in conversation.messages})
        for number, thread in enumerate(conversation.threads):
            parts.append(f'<h2 id="{_thread_target(file, number)}">{_text(thread.title)}</h2>\n')
            parts += (_article(file, message, targets, renderer, participants) for message in thread.walk())
        parts.append("</section>\n")
    parts.append("</body>\n</html>\n")
    return "".join(parts)


def render_body(body: str, links: Mapping[str, str] | None = None) -> str:
    """A body's Markdown as safe HTML. `links` gives a message's id the target on the page."""
    return _rendered(body, _renderer(links or {}))


def _head(title: str) -> str:
    return (
        '<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )


def _contents(conversations: Mapping[str, Conversation]) -> str:
    lines = "".join(
        f'<li><a href="#{_thread_target(file, number)}">{_text(thread.title or file)}</a></li>\n'
        for file, conversation in conversations.items()
        for number, thread in enumerate(conversation.threads)
    )
    return f"<nav>\n<ul>\n{lines}</ul>\n</nav>\n"


def _thread_target(file: str, number: int) -> str:
    return escape(f"{plain(file).replace(' ', '-')}-{number + 1}")


def _targets(conversations: Mapping[str, Conversation]) -> dict[tuple[str, str], str]:
    """For each file and id the id of its element on the page."""
    found: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for number, (file, conversation) in enumerate(conversations.items(), start=1):
        for message in conversation.messages:
            target = message.id if message.id not in taken else f"{number}-{message.id}"
            found[file, message.id] = target
            taken.add(target)
    return found


def _article(
    file: str,
    message: Message,
    targets: Mapping[tuple[str, str], str],
    renderer: "MarkdownIt",
    participants: Participants,
) -> str:
    target = targets[file, message.id]
    person = participants.get(message.author)
    name = f"<strong>{_text(person.display if person else '@' + message.author)}</strong>"
    moment = message.created_at
    when = f'datetime="{moment.isoformat()}"' if moment else ""
    answers = ""
    if message.parent is not None:
        answers = f', to <a href="#{targets[file, message.parent.id]}">@{_text(message.parent.author)}</a>'
    body = "<p><em>deleted</em></p>\n" if message.deleted else _rendered(message.body, renderer)
    kind = ' class="model"' if person and person.kind == "model" else ""
    return (
        f'<article id="{target}"{kind} style="--depth: {message.depth}">\n<header>{name} '
        f'<a href="#{target}"><time {when}>{_text(message.created)}</time></a>{answers}</header>\n'
        f"{body}</article>\n"
    )


def _text(text: str) -> str:
    return escape(plain(text))


def _rendered(body: str, renderer: "MarkdownIt") -> str:
    import nh3  # here, so that starting a program does not pay for it

    return nh3.clean(
        renderer.render(plain(body)),
        tags=set(_TAGS),
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        url_schemes=_SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )


def _renderer(links: Mapping[str, str]) -> "MarkdownIt":
    from markdown_it import MarkdownIt  # here, so that starting a program does not pay for it

    def image(_self: Any, tokens: Sequence["Token"], position: int, _options: Any, _env: Any) -> str:
        source, shown = str(tokens[position].attrGet("src") or ""), tokens[position].content
        return f'<a href="{escape(source)}">{escape(shown or source)}</a>'

    def link(self: Any, tokens: Sequence["Token"], position: int, options: Any, env: Any) -> str:
        target = str(tokens[position].attrGet("href") or "")
        if target.startswith("#") and target[1:] in links:
            tokens[position].attrSet("href", "#" + links[target[1:]])
        return str(self.renderToken(tokens, position, options, env))

    markdown = MarkdownIt("commonmark", {"html": False, "maxNesting": _NESTING})
    markdown.enable(["table", "strikethrough"])
    markdown.add_render_rule("image", image)
    markdown.add_render_rule("link_open", link)
    return markdown
