"""The format: what each line means, that no byte is lost, and that reading is linear."""

import pickle
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from understudy.conversation import AmbiguousThread, Conversation, UnknownMessage, UnknownThread, parse

TALK = """### Tea

- @ann [2025-02-12T01:14:44Z]: First.

  Second paragraph.
  A line right under it.


- @bob-2 [2025-02-12T01:16:22]: Reply to none.

  - @ann [2025-02-12T01:18:15Z]: Child.
    More.

    - @bob-2 [2025-02-12T01:20:33Z]: Grandchild.
  - @é.ü_名前 [2025-02-13T15:37:50+02:00]: Sibling, no blank line before.
### Coffee ###
- @ann [2025-02-14T00:00:00.250Z]: No newline at the end"""

FRAGMENTS = [
    "### ",
    "###",
    "#### x",
    "- @a [2025-01-01T00:00:00Z]: x",
    "- @a [2025-01-01T00:00:00Z]:",
    "\\- @a [2025-01-01T00:00:00Z]: x",
    "- @a-b.c_d [2025-01-01T00:00:00]: y",
    "- @a [soon]: x",
    "```",
    "````",
    "~~~ python",
    "<!--",
    "-->",
    "<div>",
    "[x]: http://example.org",
    "  ",
    "    ",
    "\t",
    " ",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\ufeff",
    "\0",
    "\u2028",
    "\udc80",
    "é名",
    "- ",
    "> ",
]
structured = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=40).map("".join)
lines = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(FRAGMENTS)).map(lambda pair: "  " * pair[0] + pair[1]),
    max_size=25,
).map("\n".join)


def shape(conversation: Conversation) -> list[tuple[int, str, str]]:
    return [(message.depth, message.author, message.body) for message in conversation.walk()]


def test_threads_messages_and_nesting() -> None:
    talk = parse(TALK)
    assert talk.text == TALK
    assert [thread.title for thread in talk.threads] == ["Tea", "Coffee ###"]
    assert shape(talk) == [
        (0, "ann", "First.\n\nSecond paragraph.\nA line right under it."),
        (0, "bob-2", "Reply to none."),
        (1, "ann", "Child.\nMore."),
        (2, "bob-2", "Grandchild."),
        (1, "é.ü_名前", "Sibling, no blank line before."),
        (0, "ann", "No newline at the end"),
    ]
    parent = talk.threads[0].messages[1]
    assert [reply.author for reply in parent.replies] == ["ann", "é.ü_名前"]
    assert all(reply.parent is parent and reply.thread is talk.threads[0] for reply in parent.replies)
    assert [message.depth for message in parent.walk()] == [0, 1, 2, 1]
    assert list(talk.threads[0].walk()) + list(talk.threads[1].walk()) == list(talk.messages)


def test_times_as_written_and_as_meant() -> None:
    written = {message.created: message.created_at for message in parse(TALK).walk()}
    assert written["2025-02-12T01:16:22"] == datetime(2025, 2, 12, 1, 16, 22, tzinfo=UTC)
    assert written["2025-02-14T00:00:00.250Z"] == datetime(2025, 2, 14, 0, 0, 0, 250_000, tzinfo=UTC)
    offset = timezone(timedelta(hours=2))
    assert written["2025-02-13T15:37:50+02:00"] == datetime(2025, 2, 13, 15, 37, 50, tzinfo=offset)
    assert parse("- @a [2025-13-41T25:00:00Z]: x").messages[0].created_at is None


def test_path_and_lookups() -> None:
    talk = parse(TALK)
    grandchild = talk.messages[3]
    assert [message.author for message in talk.path(grandchild.id)] == ["bob-2", "ann", "bob-2"]
    assert talk.message(grandchild.id) is grandchild
    with pytest.raises(UnknownMessage, match=f"no message 'nope'.*6 messages.*{talk.messages[0].id}"):
        talk.message("nope")
    with pytest.raises(KeyError):
        talk.path("nope")
    with pytest.raises(UnknownThread, match=r"no thread 'Te'.*'Tea'"):
        talk.thread("Te")
    with pytest.raises(AmbiguousThread, match="2 threads"):
        parse("### A\n### A\n").thread("A")


def test_immutable_equal_by_text_and_picklable() -> None:
    talk = parse(TALK)
    with pytest.raises(AttributeError):
        talk.messages[0].author = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        talk.text = "x"  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(talk))
    assert again == talk and [m.id for m in again.walk()] == [m.id for m in talk.walk()]
    assert repr(talk.messages[0]) == f"<Message {talk.messages[0].id} @ann [2025-02-12T01:14:44Z]>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("just words\n", []),
        ("\ufeff- @a [2025-01-01T00:00Z]: x", [(0, "a", "x")]),
        ("\ufeff### T\r\n\r\n- @a [2025-01-01T00:00:00Z]: x\r\n\r\n  y\r\n", [(0, "a", "x\n\ny")]),
        ("- @a [2025-01-01T00:00:00Z]:\n\n  # Heading\n", [(0, "a", "# Heading")]),
        ("- @a [2025-01-01T00:00:00Z]:x\n", [(0, "a", "x")]),
        ("- @a [2025-01-01T00:00:00Z]:\n", [(0, "a", "")]),
        # four columns or a tab of indentation nest as well as two
        (
            "- @a [2025-01-01T00:00:00Z]: x\n    - @b [2025-01-01T00:00:00Z]: y\n"
            "        - @c [2025-01-01T00:00:00Z]: z",
            [(0, "a", "x"), (1, "b", "y"), (2, "c", "z")],
        ),
        ("- @a [2025-01-01T00:00:00Z]: x\n\t- @b [2025-01-01T00:00:00Z]: y", [(0, "a", "x"), (1, "b", "y")]),
        # an orphan is a root; one column more than its neighbour is no reply to it
        ("      - @a [2025-01-01T00:00:00Z]: x\n", [(0, "a", "x")]),
        (
            "- @a [2025-01-01T00:00:00Z]: x\n - @b [2025-01-01T00:00:00Z]: y",
            [(0, "a", "x"), (0, "b", "y")],
        ),
        # a tab in a body: what it covers beyond the text column stays
        ("- @a [2025-01-01T00:00:00Z]: x\n\ty\n  \tz", [(0, "a", "x\n  y\n\tz")]),
        # unindented lines belong to the message before them, other headings too
        ("- @a [2025-01-01T00:00:00Z]: x\nlazy\n\n# H\n", [(0, "a", "x\nlazy\n\n# H")]),
        # not messages: no time, a time of another shape, another marker, spaces missing
        ("- @a: x\n- @a [now]: x\n* @a [2025-01-01T00:00:00Z]: x\n-@a [2025-01-01T00:00:00Z]: x\n", []),
        ("- @a [2025-01-01T00:00:00Z] x\n- @a b [2025-01-01T00:00:00Z]: x\n", []),
        # escaped lines, with and without backslashes of their own
        (
            "- @a [2025-01-01T00:00:00Z]: x\n  \\- @b [2025-01-01T00:00:00Z]: y\n"
            "  \\\\- @b [2025-01-01T00:00:00Z]: z",
            [(0, "a", "x\n- @b [2025-01-01T00:00:00Z]: y\n\\- @b [2025-01-01T00:00:00Z]: z")],
        ),
        # a fence that is closed in its body protects what stands inside
        (
            "- @a [2025-01-01T00:00:00Z]: x\n  ```\n  - @b [2025-01-01T00:00:00Z]: y\n  ~~~\n  ```\n  z",
            [(0, "a", "x\n```\n- @b [2025-01-01T00:00:00Z]: y\n~~~\n```\nz")],
        ),
        # a fence left open protects nothing, nor does one that is not at the body's column
        (
            "- @a [2025-01-01T00:00:00Z]: x\n  ```\n\n  - @b [2025-01-01T00:00:00Z]: y\n    ```\n",
            [(0, "a", "x\n```"), (1, "b", "y\n```")],
        ),
        (
            "- @a [2025-01-01T00:00:00Z]: x\n```\n- @b [2025-01-01T00:00:00Z]: y\n```\n",
            [(0, "a", "x\n```"), (0, "b", "y\n```")],
        ),
        # shorter fences do not close, info strings with backticks do not open
        (
            "- @a [2025-01-01T00:00:00Z]: x\n  ````\n  ```\n  - @b [2025-01-01T00:00:00Z]: y\n  ````\n",
            [(0, "a", "x\n````\n```\n- @b [2025-01-01T00:00:00Z]: y\n````")],
        ),
        (
            "- @a [2025-01-01T00:00:00Z]: x\n  ``` `\n  - @b [2025-01-01T00:00:00Z]: y\n  ```\n",
            [(0, "a", "x\n``` `"), (1, "b", "y\n```")],
        ),
    ],
)
def test_awkward_files(text: str, expected: list[tuple[int, str, str]]) -> None:
    talk = parse(text)
    assert talk.text == text
    assert shape(talk) == expected


def test_bodies_hold_comments_headings_links_and_bytes_that_are_not_text() -> None:
    body = "<!-- - @x\n### no thread\n[l]: http://example.org\n\udc80\x0b\u2028end"
    text = "### T\n\n- @a [2025-01-01T00:00:00Z]: " + body.replace("\n", "\n  ") + "\n"
    talk = parse(text)
    assert talk.text == text
    assert [thread.title for thread in talk.threads] == ["T"]
    assert talk.messages[0].body == body


def test_blank_lines_between_messages_belong_to_no_body() -> None:
    talk = parse("- @a [2025-01-01T00:00:00Z]: x  \n\n   \n\t\n- @b [2025-01-01T00:00:00Z]: y\n\n\n")
    assert [message.body for message in talk.walk()] == ["x  ", "y"]


def test_ids_come_from_place_author_time_and_ordinal() -> None:
    first, twin, other, elsewhere = parse(
        "### T\n- @a [2025-01-01T00:00:00Z]: x\n- @a [2025-01-01T00:00:00Z]: y\n"
        "- @b [2025-01-01T00:00:00Z]: x\n"
        "### T\n- @a [2025-01-01T00:00:00Z]: x\n"
    ).messages
    ids = [message.id for message in (first, twin, other, elsewhere)]
    assert len(set(ids)) == 4
    assert all(re.fullmatch("[0-9a-f]{12}", one) for one in ids)
    assert parse("### T\n\n\n- @a [2025-01-01T00:00:00Z]: edited\n").messages[0].id == first.id
    assert parse("### U\n- @a [2025-01-01T00:00:00Z]: x\n").messages[0].id != first.id


def test_an_id_is_the_same_in_every_version_of_the_program() -> None:
    assert parse("### T\n- @a [2025-01-01T00:00:00Z]: x\n").messages[0].id == "b0f92417e31f"


@settings(deadline=None)
@given(st.one_of(st.text(), structured, lines))
@example("### \n- @a [2025-01-01T00:00:00Z]:")
@example("\ufeff\r\n### T\r")
def test_any_text_is_read_without_losing_a_character(text: str) -> None:
    talk = parse(text)
    assert talk.text == text
    assert len({message.id for message in talk.walk()}) == len(talk.messages)
    assert [message.span.start for message in talk.walk()] == sorted(m.span.start for m in talk.messages)
    for message in talk.walk():
        assert message.source == text[message.span.start : message.span.end]
        assert message.span.start < message.span.body <= message.body_end <= message.span.end
        assert message.depth == len(talk.path(message.id)) - 1
        assert message.body == "" or message.body.strip(" \t\r\n")


def test_two_hundred_levels_and_five_megabytes_and_no_recursion() -> None:
    def line(depth: int, second: int) -> str:
        return (
            "  " * depth + f"- @a [2025-01-01T00:{second // 60 % 60:02}:{second % 60:02}Z]: text {second}\n"
        )

    deep = parse("### Deep\n" + "".join(line(depth, depth) for depth in range(5_000)))
    last = deep.messages[-1]
    assert last.depth == 4_999
    assert len(deep.path(last.id)) == 5_000
    assert sum(1 for _ in deep.messages[0].walk()) == 5_000
    wide = "### Wide\n" + "".join(
        line(number % 200, number) + "  " * (number % 200 + 1) + "x" * 200 + "\n" for number in range(8_500)
    )
    assert len(wide) > 5_000_000
    assert len(parse(wide).messages) == 8_500


@pytest.mark.parametrize(
    "text",
    [
        "".join(
            " " * 2 * depth + "- @a [2025-01-01T00:00:00Z]:\n" + " " * 2 * (depth + 1) + "```\n"
            for depth in range(1_000)
        ),
        "- @a [2025-01-01T00:00:00Z]:\n"
        + "".join("  " + "`" * (1_500 - n) + "\n" for n in range(1_490))
        + "  ```x\n" * 300_000,
        "- @a [2025-01-01T00:00:00Z]:\n" + "  ```\n" * 400_000,
        "- @" + "a" * 2_000_000,
        "- @a [2025-01-01T00:00:00." + "1" * 2_000_000,
        (" " * 1_000 + "\n") * 3_000,
        "### " + "t" * 1_000_000 + "\n" + "- @a [2025-01-01T00:00:00Z]: x\n" * 50_000,
        " " * 200_000 + "- @a [2025-01-01T00:00:00Z]:\n" + "x\n" * 200_000,
    ],
    ids=[
        "open fences, nested",
        "falling fences",
        "fences",
        "name",
        "fraction",
        "blanks",
        "long title",
        "far right",
    ],
)
@pytest.mark.timeout(60)
def test_hostile_files_are_read_in_linear_time(text: str) -> None:
    """A quadratic reader takes minutes here; the time limit is what fails."""
    talk = parse(text)
    assert talk.text is text
    assert sum(len(message.body) for message in talk.walk()) <= len(text)


def test_the_sample_conversation_where_it_is_at_hand() -> None:
    seeds = sorted((Path(__file__).parents[3] / "shared" / "seeds").glob("001*"))
    if not seeds:
        pytest.skip("the sample conversation is not here")
    text = seeds[0].read_bytes().decode()
    talk = parse(text)
    assert talk.text.encode() == seeds[0].read_bytes()
    assert [thread.title for thread in talk.threads] == [
        "The Future of AI Development",
        "Sustainable Software Architecture",
        "Deep Dive",
    ]
    assert [message.depth for message in talk.walk()] == [0, 0, 1, 2, 2, 2, 0, 1, 2, 3, 4, 4, 2, 0]
    assert talk.messages[10].body.endswith("technical discussion.\nBOOM")
