"""Exports: a page that is whole and safe, and JSON that any program reads."""

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.conversation import export_html, export_json, parse, render_body, reply, split, start
from understudy.conversation.participants import read_participants

FILE = "conversations/talk.md"
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
TALK = """### Tea & <cake>

- @ann [2026-11-20T12:00:00Z]: Who *brings* the cup?

  | a | b |
  |---|---|
  | 1 | 2 |

  - @parrot [2026-11-20T12:01:00Z]: I do. ![a cup](https://example.org/cup.png)

    - @ann [2026-11-20T12:02:00Z]: *(deleted)*

      - @bob [2026-13-40T12:03:00Z]: See <script>alert(1)</script> and [this](javascript:alert(1)).

### Cake
"""


class Page(HTMLParser):
    """What a browser would see of a page."""

    VOID = frozenset({"meta", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_shows_every_message_once_in_order() -> None:
    page = Page(export_html({FILE: parse(TALK)}, "My talk"))
    ids = [message.id for message in parse(TALK).messages]
    assert [article["id"] for article in page.all("article")] == ids
    assert [article["style"] for article in page.all("article")] == [f"--depth: {n}" for n in range(4)]
    words = "".join(page.words)
    assert "My talk" in words and "Tea & <cake>" in words and "deleted" in words
    assert (
        words.index("Who brings the cup?") < words.index("I do.") < words.index("<script>alert(1)</script>")
    )
    assert [one["datetime"] for one in page.all("time") if "datetime" in one] == [
        f"2026-11-20T12:0{n}:00+00:00" for n in range(3)
    ]
    assert len(page.all("table")) == 1 and len(page.all("em")) == 2


def test_the_page_is_self_contained() -> None:
    text = export_html({FILE: parse(TALK)}, "My talk")
    page = Page(text)
    loads = {"script", "img", "link", "iframe", "object", "embed", "video", "audio", "source", "base", "form"}
    assert loads.isdisjoint(tag for tag, _ in page.tags)
    assert all("src" not in attributes for _, attributes in page.tags)
    assert "url(" not in text and "@import" not in text
    policy = next(meta["content"] for meta in page.all("meta") if "content" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    links = [link.get("href") or "" for link in page.all("a")]
    assert all(link.startswith(("#", "https://example.org/")) or not link for link in links)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link[1:] for link in links if link.startswith("#")} <= ids


def test_who_takes_part_is_named() -> None:
    people = read_participants(
        '[participants.ann]\ndisplay = "Ann <Lee>"\nrights = ["admin"]\n'
        '[participants.parrot]\nkind = "model"\nrights = ["post"]\n'
    )
    page = Page(export_html({FILE: parse(TALK)}, "My talk", people))
    assert "Ann <Lee>" in page.words and "@bob" in page.words
    assert [article.get("class") for article in page.all("article")] == [None, "model", None, None]


def test_links_between_messages_lead_to_them() -> None:
    doc, first = start(parse(""), "Tea", "ann", "One.\n\nTwo.", NOON)
    doc, quote = split(doc, first.id, 1, "Two", "bob", NOON)
    doc, _ = reply(doc, quote.id, "ann", "[elsewhere](#000000000000) [other](other.md)", NOON)
    page = Page(export_html({FILE: doc}, "x"))
    links = [link.get("href") for link in page.all("a")]
    assert f"#{first.id}" in links and "#000000000000" in links and "other.md" not in links


def test_files_that_share_ids_do_not_share_targets() -> None:
    doc, first = start(parse(""), "Tea", "ann", "One.", NOON)
    doc, _ = reply(doc, first.id, "bob", f"[up](#{first.id})", NOON)
    page = Page(export_html({FILE: doc, "conversations/copy.md": doc}, "both"))
    ids = [article["id"] for article in page.all("article")]
    assert len(set(ids)) == 4 and ids[0] == first.id
    for one, other in ((0, 1), (2, 3)):
        up = [link["href"] for link in page.all("a")].index(f"#{ids[one]}")
        assert up >= 0 and ids[other] is not None
    assert (
        sum(link["href"] == f"#{ids[2]}" for link in page.all("a")) == 3
    )  # itself, its reply's parent, [up]


@pytest.mark.parametrize(
    "body",
    [
        "<b>bold</b> <img src=x onerror=alert(1)>",
        "[x](javascript:alert(1)) [y](data:text/html,x) [z](vbscript:x)",
        "<!-- open",
        "</article></section></body>",
        '[x](https://e.org/"onmouseover="alert(1))',
        '![" onerror="alert(1)](x"y)',
        "```html\n<script>\n```",
        "> " * 300 + "deep",
        "- " * 300 + "deep",
        "[a]: https://e.org 'x'\n\n[a]",
        "&lt;script&gt; &#60;script&#62;",
    ],
)
def test_a_body_can_do_no_harm(body: str) -> None:
    page = Page(render_body(body))
    allowed = {"a", "p", "blockquote", "pre", "code", "ul", "li", "em", "strong", "span"}
    assert {tag for tag, _ in page.tags} <= allowed
    for tag, attributes in page.tags:
        assert set(attributes) <= {"href", "rel", "title", "class"}, tag
        assert not re.match(r"(?i)\s*(javascript|data|vbscript):", attributes.get("href") or "")


@given(st.text(alphabet="<>\"'&[]()!`~*_#->|\\\n \tabc:/=;", max_size=60))
@settings(max_examples=400, deadline=None)
def test_no_body_breaks_out_of_its_place(body: str) -> None:
    page = Page(f"<article>{render_body(body)}</article>")
    assert page.tags[0][0] == "article" and len(page.all("article")) == 1
    assert {"script", "img", "style", "html"}.isdisjoint(tag for tag, _ in page.tags)


def test_each_body_is_rendered_on_its_own() -> None:
    """A link defined, or a fence left open, in one body means nothing in the next."""
    text = (
        "### T\n\n- @ann [2026-11-20T12:00:00Z]: [a]: https://e.org\n\n- @bob [2026-11-20T12:01:00Z]: [a]\n\n"
        "- @eve [2026-11-20T12:02:00Z]: ```\n\n- @bob [2026-11-20T12:03:00Z]: *here*\n"
    )
    page = Page(export_html({FILE: parse(text)}, "x"))
    assert all(link["href"] != "https://e.org" for link in page.all("a"))
    assert len(page.all("em")) == 1 and len(page.all("article")) == 4


def test_json_holds_everything_flat() -> None:
    doc = parse(TALK)
    data = json.loads(json.dumps(export_json({FILE: doc})))
    assert (data["format"], data["version"]) == ("understudy-conversations", 1)
    [talk] = data["conversations"]
    assert talk["file"] == FILE and [thread["title"] for thread in talk["threads"]] == [
        "Tea & <cake>",
        "Cake",
    ]
    assert talk["threads"][1]["messages"] == []
    for row, message in zip(talk["threads"][0]["messages"], doc.messages, strict=True):
        assert row == {
            "id": message.id,
            "parent": message.parent.id if message.parent else None,
            "depth": message.depth,
            "author": message.author,
            "created": message.created,
            "deleted": message.deleted,
            "body": message.body,
        }


def test_any_depth_and_any_bytes() -> None:
    lines = [f"{'  ' * depth}- @ann [2026-11-20T12:00:00Z]: {depth}" for depth in range(2000)]
    doc = parse("### T\udcff\n\n" + "\n".join(lines) + "\n\n  \udcfe \0")
    text = json.dumps(export_json({FILE: doc}), ensure_ascii=False)
    text.encode()
    assert json.loads(text)["conversations"][0]["threads"][0]["messages"][1999]["depth"] == 1999
    page = export_html({FILE: doc}, "deep")
    page.encode()
    assert page.count("<article") == 2000
