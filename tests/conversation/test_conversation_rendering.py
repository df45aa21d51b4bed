"""Bodies as HTML: what they may hold, what they look like, and that no body takes long."""

import re
import subprocess
import sys
import threading
import time
from html import unescape

import pytest
from hostile_bodies import KINDS, hostile
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conversation_exporting import Page

from understudy.conversation import BODY_CSS, highlight_css, plain_line, render_body
from understudy.conversation.highlighting import LANGUAGES, classes, highlighted
from understudy.conversation.rendering import MOST_CHARACTERS

TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def shown(page: str) -> str:
    """The text that a reader sees."""
    return "".join(Page(page).words)


# Time


@pytest.mark.parametrize("kind", KINDS)
def test_no_body_takes_long(kind: str) -> None:
    for characters in (10_000, 120_000):
        body = hostile(kind, characters)
        begin = time.perf_counter()
        page = render_body(body)
        assert time.perf_counter() - begin < 10  # 1 s and less where nothing else runs
        assert len(page) < 20 * len(body) + 1_000


@pytest.mark.parametrize("line", ["word " * 200_000, "x" * 1_000_000, "[" * 1_000_000, "> " * 500_000])
def test_a_line_of_a_megabyte(line: str) -> None:
    begin = time.perf_counter()
    assert shown(render_body(line)).split() == line.split()
    assert time.perf_counter() - begin < 10


@pytest.mark.parametrize(
    "body",
    [
        "> " * 300 + "the *end*",
        "- " * 300 + "the *end*",
        "*x* " * 30_000 + "the *end*",
        "y" * MOST_CHARACTERS + "the *end*",
    ],
)
def test_what_is_beyond_markdown_is_shown_as_it_was_written(body: str) -> None:
    page = render_body(body + " <b>\u202e")
    assert page.startswith("<pre>") and page.endswith("</pre>\n")
    assert shown(page) == body + " <b>U+202E\n"


def test_a_list_ten_deep_is_a_list() -> None:
    page = render_body("\n".join("  " * depth + f"- {depth}" for depth in range(15)))
    assert page.count("<ul>") == 15 and "<pre>" not in page
    assert render_body("> " * 30 + "deep").count("<blockquote>") == 30


@pytest.mark.parametrize(
    "language", ["python", "bash", "json", "yaml", "html", "c", "java", "markdown", "ini", "diff"]
)
@pytest.mark.parametrize("part", ["\n", "\n ", "a", "'\\", "(", "a = '\n", "/*", "&"])
def test_no_code_takes_long(language: str, part: str) -> None:
    line = part if "\n" in part else part * (900 // len(part)) + "\n"
    body = f"```{language}\n{line * (90_000 // len(line))}\n```"
    begin = time.perf_counter()
    page = render_body(body)
    assert time.perf_counter() - begin < 10  # half a second of colouring, and then plain
    assert f'<code class="language-{language}">' in page


def test_colouring_stops_when_its_time_is_spent() -> None:
    asked = iter(range(1_000))
    assert highlighted("x = 1\n" * 50, "python", lambda: next(asked) > 20) is None
    assert next(asked) == 22
    assert highlighted("x = 1\n", "python", lambda: False) is not None


# Harm


@given(
    st.text(alphabet="<>\"'&[]()!`~*_#->|\\\n \tabx:/=;\u202e\u2066", max_size=60),
    st.sampled_from(["", "```py\n", "- [x] ", "a|b\n:-|-:\n"]),
)
@settings(max_examples=400, deadline=None)
def test_no_body_breaks_out_or_turns_what_is_beside_it(body: str, before: str) -> None:
    text = render_body(before + body)
    page = Page(f"<article>{text}</article>")
    assert page.tags[0][0] == "article" and len(page.all("article")) == 1
    assert not any(character in text for character in TURNING)
    for tag, attributes in page.tags[1:]:
        assert "style" not in attributes and "id" not in attributes
        assert tag not in {"script", "img", "style", "iframe", "form"}
        assert not {name for name in attributes if name.startswith("on")}
        assert re.match(r"(?i)#|https?:|mailto:|$", attributes.get("href") or "")


@pytest.mark.parametrize(
    "body",
    [
        "a\u202eb",
        "`a\u202eb`",
        "    a\u202eb",
        "```\na\u202eb\n```",
        "```python\na = '\u202e'\n```",
        "**a\u202eb**",
        "[a\u202eb](https://e.org)",
        "![a\u202eb](https://e.org)",
        '[a](https://e.org "a\u202eb")',
        "a&#x202E;b",
        "# a\u202eb",
        "a\u202eb|c\n-|-\n",
        "- [x] a\u202eb",
        "<https://e.org/\u202e>",
    ],
)
def test_what_turns_text_is_named(body: str) -> None:
    page = render_body(body)
    assert "\u202e" not in unescape(page)
    assert "U+202E" in page or "%E2%80%AE" in page


def test_links_lead_out_or_to_a_place_on_the_page() -> None:
    page = Page(
        render_body(
            "[a](https://e.org) [b](HTTP://e.org) [c](mailto:a@e.org) [d](#x) [e](#y) [f](other.md) "
            "[g](//e.org) [h](ftp://e.org) [i](/a) [j](?q) <https://e.org/b> ![k](https://e.org/c.png) "
            "![l](data:x) ![m](d.png)",
            {"y": "z"},
        )
    )
    assert [link.get("href") for link in page.all("a")] == [
        *("https://e.org", "HTTP://e.org", "mailto:a@e.org", "#x", "#z", None, None, None, None, None),
        *("https://e.org/b", "https://e.org/c.png"),
    ]
    assert all(link["rel"] == "noopener noreferrer nofollow" for link in page.all("a"))
    assert "".join(page.words).endswith("j https://e.org/b k ![l](data:x) m\n")


# Looks


def test_task_lists() -> None:
    page = Page(render_body("- [ ] to do\n- [x] done\n- [X]\tdone\n- [y] no\n- [ ]\n- `[ ]` no\n\n[ ] no\n"))
    assert [box.items() for box in page.all("input")] == [
        {"type": "checkbox", "disabled": "disabled"}.items(),
        *[{"type": "checkbox", "disabled": "disabled", "checked": "checked"}.items()] * 2,
    ]
    assert [item.get("class") for item in page.all("li")] == ["task", "task", "task", None, None, None]
    assert " ".join("".join(page.words).split()) == "to do done done [y] no [ ] [ ] no [ ] no"


def test_a_checkbox_that_is_also_a_link_is_a_link() -> None:
    page = Page(render_body("- [x] see\n\n[x]: https://e.org\n"))
    assert page.all("input") == [] and [link["href"] for link in page.all("a")] == ["https://e.org"]


def test_columns_of_a_table_are_aligned_by_class() -> None:
    page = Page(render_body("a|b|c|d\n:-|:-:|-:|-\n1|2|3|4\n"))
    wanted = ["align-left", "align-center", "align-right", None]
    assert [cell.get("class") for cell in page.all("th")] == wanted
    assert [cell.get("class") for cell in page.all("td")] == wanted
    assert all(f".{name} " in BODY_CSS for name in wanted[:3])


def test_code_is_coloured_by_classes() -> None:
    code = 'def f(x):\n    return "<b>"  # \\n\n'
    page = Page(render_body(f"```py title=x\n{code}```"))
    [attributes] = page.all("code")
    assert attributes == {"class": "language-py"}
    assert {"k", "nf", "s2", "c1"} <= {str(span["class"]) for span in page.all("span")} <= classes()
    assert "".join(page.words) == code + "\n"


@pytest.mark.parametrize("code", ["", "\n", "\n\n  x\n\n", "x\ty\n", "é\n", "\u2028x\n"])
def test_colouring_changes_no_character(code: str) -> None:
    coloured = highlighted(code, "python", lambda: False)
    assert coloured is not None
    assert unescape(re.sub("<[^>]*>", "", coloured)).rstrip("\n") == code.rstrip("\n")


@pytest.mark.parametrize(
    "body",
    [
        "```\nx = 1\n```",
        "```nosuch\nx = 1\n```",
        f"```python\n{'x = 1 ' * 200}\n```",
        "```python\n" + "x = 1\n" * 20_000 + "```",
    ],
)
def test_what_is_not_coloured_is_plain(body: str) -> None:
    assert Page(render_body(body)).all("span") == []


def test_every_language_is_one_that_pygments_has() -> None:
    from pygments.lexers import find_lexer_class

    assert all(find_lexer_class(name) for name in LANGUAGES)


def test_the_rules_are_for_light_and_dark() -> None:
    css = highlight_css()
    assert css.count("{") == css.count("}") and "url(" not in css and "<" not in css
    assert "@media (prefers-color-scheme: dark)" in css
    for where in (
        "\npre code ",
        "\n[data-theme=dark] pre code ",
        "\n:root:not([data-theme=light]) pre code ",
    ):
        rules = re.findall(re.escape(where) + r":is\((.*?)\)", "\n" + css)
        assert {name for rule in rules for name in rule.split(", ")} == {f".{name}" for name in classes()}


def test_a_title_is_one_line_of_what_can_be_seen() -> None:
    assert plain_line("Tea & <cake> for ann, 茶, naïve 🍵") == "Tea & <cake> for ann, 茶, naïve 🍵"
    assert plain_line("a\u202eb\nc\x1b[1m\x85\u2028") == "a[U+202E]b[U+000A]c[U+001B][1m[U+0085][U+2028]"
    assert plain_line("\udcff\0") == "\ufffd\ufffd"


@given(st.text())
def test_no_title_holds_what_cannot_be_seen(text: str) -> None:
    line = plain_line(text)
    assert not re.search(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{TURNING}\ud800-\udfff]", line)
    assert plain_line(line) == line


# Around it


def test_many_threads_render_at_once() -> None:
    bodies = [f"# {number}\n\n- [x] **a**\n\n```py\nx = {number}\n```\n" for number in range(40)]
    wanted = [render_body(body) for body in bodies]
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append([render_body(body) for body in bodies]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


def test_a_program_that_renders_nothing_does_not_pay_for_it() -> None:
    program = (
        "import sys, understudy.conversation; "
        "print([name for name in ('pygments', 'markdown_it', 'nh3', 'tomli_w') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
