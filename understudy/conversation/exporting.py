"""Conversations for other programs and for people without this one: JSON, and one self-contained page."""

from collections.abc import Mapping
from html import escape
from typing import Any

from understudy.conversation.document import Conversation, Message
from understudy.conversation.highlighting import highlight_css
from understudy.conversation.participants import UNRESTRICTED, Participants
from understudy.conversation.rendering import BODY_CSS, plain_line, render_body
from understudy.conversation.searching import plain

FORMAT = "understudy-conversations"
VERSION = 1

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
        links = {message.id: targets[file, message.id] for message in conversation.messages}
        for number, thread in enumerate(conversation.threads):
            parts.append(f'<h2 id="{_thread_target(file, number)}">{_text(thread.title)}</h2>\n')
            parts += (_article(message, links, participants) for message in thread.walk())
        parts.append("</section>\n")
    parts.append("</body>\n</html>\n")
    return "".join(parts)


def _head(title: str) -> str:
    return (
        '<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{_text(title)}</title>\n"
        f"<style>{_STYLE}{BODY_CSS}{highlight_css()}</style>\n</head>\n<body>\n"
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


def _article(message: Message, links: Mapping[str, str], participants: Participants) -> str:
    target = links[message.id]
    person = participants.get(message.author)
    name = f"<strong>{_text(person.display if person else '@' + message.author)}</strong>"
    moment = message.created_at
    when = f'datetime="{moment.isoformat()}"' if moment else ""
    answers = ""
    if message.parent is not None:
        answers = f', to <a href="#{links[message.parent.id]}">@{_text(message.parent.author)}</a>'
    body = "<p><em>deleted</em></p>\n" if message.deleted else render_body(message.body, links)
    kind = ' class="model"' if person and person.kind == "model" else ""
    return (
        f'<article id="{target}"{kind} style="--depth: {message.depth}">\n<header>{name} '
        f'<a href="#{target}"><time {when}>{_text(message.created)}</time></a>{answers}</header>\n'
        f"{body}</article>\n"
    )


def _text(text: str) -> str:
    return escape(plain_line(text))
