"""Operations touch only their own bytes; nothing a person submits forges, hides or changes a message."""

import unicodedata
from datetime import datetime, timedelta, timezone

import pytest
from conversation_cases import FORGED, TALK, WRITTEN, bodies, names, titles
from conversation_cases import NOW as WHEN
from conversation_readers import ours, seen_by_markdown_it
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from understudy.conversation import (
    Conversation,
    ConversationError,
    DuplicateThread,
    InvalidBody,
    InvalidName,
    InvalidTime,
    InvalidTitle,
    Message,
    StructureChanged,
    Unchanged,
    UnknownMessage,
    UnknownThread,
    edit,
    normalise_body,
    parse,
    post,
    reply,
    start,
    valid_name,
    valid_title,
)

NOW = WHEN.replace(microsecond=999_999)  # a fraction of a second is not written
operations = st.lists(
    st.tuples(
        st.sampled_from(["start", "post", "reply", "edit"]), st.integers(0, 1_000), names, titles, bodies
    ),
    max_size=6,
)


def others(doc: Conversation, message: Message) -> list[tuple[str, str, str, int]]:
    return [(m.id, m.author, m.body, m.depth) for m in doc.walk() if m.id != message.id]


def everything(doc: Conversation) -> list[tuple[str, str, str, int]]:
    return [(m.id, m.author, m.body, m.depth) for m in doc.walk()]


def inserted(before: str, after: str) -> str:
    """What was put in, if the rest is untouched."""
    extra = len(after) - len(before)
    for place in [i for i in range(len(before) + 1) if i == 0 or before[i - 1] == "\n"] + [len(before)]:
        if after[:place] == before[:place] and after[place + extra :] == before[place:]:
            return after[place : place + extra]
    raise AssertionError(f"more than an insertion:\n{before!r}\n{after!r}")


def test_reply_stands_behind_earlier_replies() -> None:
    doc = parse(TALK)
    to = doc.messages[1]
    after, made = reply(doc, to.id, "eve", "Hello.\n\nAgain.", NOW)
    assert inserted(TALK, after.text) == f"\n  - @eve [{WRITTEN}]: Hello.\n\n    Again.\n"
    assert [child.id for child in after.message(to.id).replies] == [doc.messages[2].id, made.id]
    assert (made.author, made.created, made.body, made.depth) == ("eve", WRITTEN, "Hello.\n\nAgain.", 1)
    again, second = reply(after, to.id, "eve", "Twice in a second.", NOW)
    assert [child.id for child in again.message(to.id).replies] == [doc.messages[2].id, made.id, second.id]


def test_a_reply_before_a_line_without_a_blank_is_set_off() -> None:
    doc = parse(TALK)
    after, _ = reply(doc, doc.messages[2].id, "eve", "x", NOW)
    assert inserted(TALK, after.text) == f"\n    - @eve [{WRITTEN}]: x\n"
    tight = "- @a [2025-01-01T00:00:00Z]: x\n- @b [2025-01-01T00:00:00Z]: y\n"
    doc = parse(tight)
    after, _ = reply(doc, doc.messages[0].id, "eve", "z", NOW)
    assert inserted(tight, after.text) == f"\n  - @eve [{WRITTEN}]: z\n\n"


def test_post_goes_to_the_end_of_its_thread_and_start_to_the_end_of_the_file() -> None:
    doc = parse(TALK)
    after, made = post(doc, "Tea", "eve", "x", NOW)
    assert inserted(TALK, after.text) == f"\n- @eve [{WRITTEN}]: x\n"
    assert after.threads[0].messages[-1] is made
    by_thread, _ = post(doc, doc.threads[1], "eve", "x", NOW)
    assert by_thread.text == f"{TALK}\n\n- @eve [{WRITTEN}]: x\n"
    begun, first = start(doc, " Milk ", "eve", "x", NOW)
    assert begun.text == f"{TALK}\n\n### Milk\n\n- @eve [{WRITTEN}]: x\n"
    assert first.thread.title == "Milk"
    assert start(parse(""), "T", "eve", "x", NOW)[0].text == f"### T\n\n- @eve [{WRITTEN}]: x\n"


def test_one_of_two_threads_of_a_title_is_named_by_itself() -> None:
    doc = parse("### A\n\n### A\n")
    with pytest.raises(ConversationError, match="2 threads"):
        post(doc, "A", "eve", "x", NOW)
    after, made = post(doc, doc.threads[0], "eve", "x", NOW)
    assert after.threads[0].messages == (made,)
    with pytest.raises(UnknownThread):
        post(parse(""), doc.threads[0], "eve", "x", NOW)


def test_edit_keeps_everything_but_the_body() -> None:
    doc = parse(TALK)
    target = doc.messages[2]
    after, made = edit(doc, target.id, "New.\n\n  Indented.\n")
    assert after.text == TALK.replace("Child.\n    More.", "New.\n\n      Indented.")
    assert (made.id, made.author, made.created) == (target.id, "ann", "2025-02-12T01:18:15Z")
    assert made.body == "New.\n\n  Indented."
    assert others(after, made) == others(doc, target)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_files_line_ending_is_kept(ending: str) -> None:
    doc = parse(TALK.replace("\n", ending))
    for after, made in (
        start(doc, "N", "eve", "x\ny", NOW),
        post(doc, "Tea", "eve", "x\ny", NOW),
        reply(doc, doc.messages[2].id, "eve", "x\ny", NOW),
        edit(doc, doc.messages[2].id, "x\ny"),
    ):
        assert made.body == "x\ny"
        assert after.text.count("\n") == after.text.count(ending)


@pytest.mark.parametrize(
    ("body", "rendered"),
    [
        (FORGED, " \\" + FORGED),
        ("x\n> 1. +" + FORGED[1:], " x\n  > 1. \\+" + FORGED[1:]),
        ("x\n" + FORGED, " x\n  \\" + FORGED),
        ("\\" + FORGED, " \\\\" + FORGED),
        ("# Heading", "\n\n  # Heading"),
        ("```\nx\n```", "\n\n  ```\n  x\n  ```"),
        ("1. one\n2. two", "\n\n  1. one\n  2. two"),
        ("Two\nlines\n=", "\n\n  Two\n  lines\n  ="),
        ("Title\n===", "\n\n  Title\n  ==="),
        ("a | b\n--|--", "\n\n  a | b\n  --|--"),
        ("    code", "\n\n      code"),
        ("**bold** and #5 and `code`", " **bold** and #5 and `code`"),
    ],
)
def test_how_bodies_are_written(body: str, rendered: str) -> None:
    after, made = start(parse(""), "T", "eve", body, NOW)
    assert after.text == f"### T\n\n- @eve [{WRITTEN}]:{rendered}\n"
    assert made.body == body


@pytest.mark.parametrize(
    ("body", "becomes"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("\n \n a \n\t\n", " a "),
        ("a\0b", "a\ufffdb"),
        ("```py\nx", "```py\nx\n```"),
        ("~~~~\n~~~", "~~~~\n~~~\n~~~~"),
        ("- ```\n  x", "- ```\n  x"),
        ("> ```\n> x", "> ```\n> x"),
        ("<!-- x", "<!-- x\n-->"),
        ("<script>\nx", "<script>\nx\n</script>"),
        ("<?php", "<?php\n?>"),
        ("<![CDATA[", "<![CDATA[\n]]>"),
        ("<!DOCTYPE", "<!DOCTYPE\n>"),
        ("<div>\nx", "<div>\nx"),
        ("a < b ``` c", "a < b ``` c"),
    ],
)
def test_what_a_body_becomes(body: str, becomes: str) -> None:
    assert normalise_body(body) == becomes


def test_unknown_targets_and_bad_input_are_errors() -> None:
    doc = parse(TALK)
    first = doc.messages[0]
    with pytest.raises(UnknownMessage):
        reply(doc, "nope", "eve", "x", NOW)
    with pytest.raises(UnknownMessage):
        edit(doc, "nope", "x")
    with pytest.raises(UnknownThread):
        post(doc, "Te", "eve", "x", NOW)
    with pytest.raises(DuplicateThread):
        start(doc, "Tea", "eve", "x", NOW)
    with pytest.raises(Unchanged):
        edit(doc, first.id, first.body + "\r\n")
    for body in ("", " \n\t", "\ud800"):
        with pytest.raises(InvalidBody):
            edit(doc, first.id, body)
    for name in ("", "a b", "a@b", "a]", "a\nb", "a:b", "\u202ea"):
        with pytest.raises(InvalidName, match="letters, digits"):
            reply(doc, first.id, name, "x", NOW)
    for title in ("", "  ", "a\nb", "a\rb", "a\u2028b", "a\x85b", "a\tb"):
        with pytest.raises(InvalidTitle, match="one line"):
            start(doc, title, "eve", "x", NOW)
    with pytest.raises(InvalidTime, match="zone"):
        reply(doc, first.id, "eve", "x", datetime(2026, 1, 1))
    with pytest.raises(InvalidTime, match="calendar"):
        reply(doc, first.id, "eve", "x", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))))


def test_names_are_composed_and_times_are_utc_to_the_second() -> None:
    assert valid_name("e\u0301") == "é"
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    assert start(parse(""), "T", "eve", "x", east)[1].created == WRITTEN


def test_a_malformed_file_is_left_alone_rather_than_broken() -> None:
    doc = parse("- @a [2025-01-01T00:00:00Z]: x\n  - @b [2025-01-01T00:00:00Z]: y\n  ```\n")
    with pytest.raises(StructureChanged, match="nothing was done"):
        edit(doc, doc.messages[0].id, "<!--\n```\n-->")
    assert len(doc.messages) == 2


@settings(deadline=None)
@given(operations)
@example(
    [("start", 0, "a", "T", "<div>"), ("reply", 0, "b", "x", "<div>"), ("edit", 0, "b", "x", "```\n<div>")]
)
def test_operations_touch_only_their_own_bytes_and_forge_nothing(
    steps: list[tuple[str, int, str, str, str]],
) -> None:
    doc = parse(TALK)
    for verb, choice, name, title, body in steps:
        target = doc.messages[choice % len(doc.messages)]
        try:
            if verb == "start":
                after, made = start(doc, title, name, body, NOW)
            elif verb == "post":
                after, made = post(doc, doc.threads[choice % len(doc.threads)], name, body, NOW)
            elif verb == "reply":
                after, made = reply(doc, target.id, name, body, NOW)
            else:
                after, made = edit(doc, target.id, body)
        except (Unchanged, DuplicateThread):
            assert verb in ("edit", "start")
            continue
        assert made.body == normalise_body(body)
        assert after.text.encode().decode() == after.text
        if verb == "edit":
            assert others(after, made) == others(doc, target)
            assert (made.id, made.author, made.created) == (target.id, target.author, target.created)
            assert after.text.startswith(doc.text[: target.span.body])
            assert after.text.endswith(doc.text[target.body_end :])
        else:
            assert others(after, made) == everything(doc)
            assert (made.author, made.created) == (valid_name(name), WRITTEN)
            inserted(doc.text, after.text)
        assert len(after.threads) == len(doc.threads) + (verb == "start")
        assert verb != "start" or made.thread.title == valid_title(title)
        doc = after
    assert seen_by_markdown_it(doc.text) == ours(doc)


def test_a_commonmark_reader_sees_the_same_messages() -> None:
    assert seen_by_markdown_it(TALK) == ours(parse(TALK))


@settings(deadline=None)
@given(bodies, bodies)
def test_editing_back_gives_the_same_bytes(first: str, second: str) -> None:
    assume(normalise_body(first) != normalise_body(second))
    doc, made = start(parse(TALK), "T", "eve", first, NOW)
    there, _ = edit(doc, made.id, second)
    back, _ = edit(there, made.id, made.body)
    assert back.text == doc.text


@settings(deadline=None)
@given(bodies)
def test_normalising_twice_is_normalising_once(body: str) -> None:
    once = normalise_body(body)
    assert normalise_body(once) == once
    assert unicodedata.is_normalized("NFC", body) or once  # bodies, unlike names, keep their own form


def test_replies_to_a_message_at_an_odd_column_stay_its_replies() -> None:
    doc = parse("- @a [2025-01-01T00:00:00Z]: x\n     - @b [2025-01-01T00:00:00Z]: y\n")
    after, made = reply(doc, doc.messages[1].id, "eve", "z", NOW)
    assert made.parent is after.messages[1]
    assert after.text.endswith(f"y\n\n       - @eve [{WRITTEN}]: z\n")
    sibling, other = reply(doc, doc.messages[0].id, "eve", "z", NOW)
    assert other.parent is sibling.messages[0]
