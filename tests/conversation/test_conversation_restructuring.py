"""Delete, move, split, rename and merge: what each does to the file, to ids, and what it refuses."""

import re

import pytest
from conversation_cases import NOW, TALK, WRITTEN

from understudy.conversation import (
    AmbiguousThread,
    Conversation,
    DeletedMessage,
    DuplicateThread,
    InvalidTarget,
    InvalidTitle,
    Message,
    StructureChanged,
    Unchanged,
    UnknownMessage,
    UnknownParagraph,
    UnknownThread,
    delete,
    edit,
    merge_threads,
    move,
    paragraphs,
    parse,
    post,
    rename,
    reply,
    split,
)

TWINS = """### T

- @a [2025-01-01T00:00:00Z]: one

- @a [2025-01-01T00:00:00Z]: two

- @a [2025-01-01T00:00:00Z]: three
"""


def outline(doc: Conversation) -> list[tuple[str, int, str, str]]:
    return [(m.thread.title, m.depth, m.author, "-" if m.deleted else m.body) for m in doc.walk()]


def said(doc: Conversation, body: str) -> Message:
    return next(message for message in doc.walk() if message.body == body)


# Delete


def test_a_message_without_answers_leaves_no_trace() -> None:
    doc = parse(TALK)
    assert delete(doc, said(doc, "Grandchild.").id).text == TALK.replace(
        "    - @bob [2025-02-12T01:20:33Z]: Grandchild.\n", ""
    )
    assert delete(doc, said(doc, "First.\n\nSecond.").id).text == TALK.replace(
        "\n- @ann [2025-02-12T01:14:44Z]: First.\n\n  Second.\n", ""
    )
    assert delete(doc, said(doc, "Last").id).text == TALK.removesuffix(
        "\n- @ann [2025-02-14T00:00:00Z]: Last"
    )


def test_where_others_have_answered_the_place_stays() -> None:
    doc = parse(TALK)
    child = said(doc, "Child.\nMore.")
    after = delete(doc, child.id)
    assert after.text == TALK.replace("Child.\n    More.", "*(deleted)*")
    there = after.message(child.id)
    assert (there.deleted, there.body, there.author, there.created) == (True, "", "ann", child.created)
    assert [reply.body for reply in there.replies] == ["Grandchild."]
    assert [m.id for m in after.walk()] == [m.id for m in doc.walk()]
    assert not any(m.deleted for m in doc.walk())


def test_a_place_goes_when_nothing_holds_it_and_until_then_deleting_it_again_is_an_error() -> None:
    doc = parse(TALK)
    child, grandchild = said(doc, "Child.\nMore."), said(doc, "Grandchild.")
    after = delete(doc, child.id)
    with pytest.raises(Unchanged, match="deleted already"):
        delete(after, child.id)
    alone = delete(after, grandchild.id)
    gone = delete(alone, child.id)
    assert [message.body for message in gone.walk()] == ["First.\n\nSecond.", "Other.", "Last"]


def test_what_one_author_said_below_goes_with_it() -> None:
    doc = parse(
        "### T\n\n- @a [2025-01-01T00:00:00Z]: x\n\n  - @a [2025-01-01T00:00:01Z]: y\n\n"
        "- @b [2025-01-01T00:00:00Z]: z\n"
    )
    assert delete(doc, doc.messages[0].id).text == "### T\n\n- @b [2025-01-01T00:00:00Z]: z\n"


def test_a_place_stays_where_another_id_depends_on_it() -> None:
    doc = parse(TWINS)
    first, second, third = (message.id for message in doc.walk())
    after = delete(doc, second)
    assert outline(after) == [("T", 0, "a", "one"), ("T", 0, "a", "-"), ("T", 0, "a", "three")]
    assert after.message(third).body == "three" and after.message(first).body == "one"
    assert third not in {message.id for message in delete(doc, third).walk()}
    headless = parse("- @a [2025-01-01T00:00:00Z]: x\n\n###\n\n- @b [2025-01-01T00:00:00Z]: y\n")
    kept = delete(headless, headless.messages[0].id)
    assert [(m.id, m.deleted) for m in kept.walk()] == [
        (headless.messages[0].id, True),
        (headless.messages[1].id, False),
    ]


def test_a_deleted_message_can_be_answered_and_not_edited() -> None:
    doc = parse(TALK)
    child = said(doc, "Child.\nMore.")
    after = delete(doc, child.id)
    with pytest.raises(DeletedMessage, match="no text to edit"):
        edit(after, child.id, "back")
    with pytest.raises(DeletedMessage):
        split(after, child.id, 0, "T", "eve", NOW)
    answered, made = reply(after, child.id, "eve", "What was it?", NOW)
    assert made.parent is answered.message(child.id)


@pytest.mark.parametrize(
    ("line", "deleted"),
    [
        (" *(deleted)*", True),
        (" *(deleted)*\r", True),
        (" *(deleted)*\n\n\n", True),
        ("*(deleted)*", False),
        ("  *(deleted)*", False),
        (" *(deleted)* ", False),
        (" *(deleted)*\n  more", False),
        ("\n\n  *(deleted)*", False),
        (" *(Deleted)*", False),
    ],
)
def test_only_the_exact_mark_on_the_message_line_means_deleted(line: str, deleted: bool) -> None:
    (message,) = parse(f"- @a [2025-01-01T00:00:00Z]:{line}").messages
    assert message.deleted is deleted
    assert (message.body == "") is deleted


# Move


def test_a_subtree_moves_to_another_thread_and_its_ids_are_told() -> None:
    doc = parse(TALK)
    child, grandchild = said(doc, "Child.\nMore."), said(doc, "Grandchild.")
    after, moved = move(doc, child.id, "Coffee")
    assert after.text == (
        TALK.replace(
            "\n  - @ann [2025-02-12T01:18:15Z]: Child.\n    More.\n"
            "    - @bob [2025-02-12T01:20:33Z]: Grandchild.\n",
            "",
        )
        + "\n\n- @ann [2025-02-12T01:18:15Z]: Child.\n  More.\n  - @bob [2025-02-12T01:20:33Z]: Grandchild.\n"
    )
    assert set(moved) == {child.id, grandchild.id}
    assert after.message(moved[child.id]).body == "Child.\nMore."
    assert after.message(moved[grandchild.id]).parent is after.message(moved[child.id])
    assert [m.id for m in after.walk()][:3] == [doc.messages[0].id, doc.messages[1].id, doc.messages[4].id]


def test_a_subtree_moves_into_a_new_thread_and_out_of_its_parent() -> None:
    doc = parse(TALK)
    child = said(doc, "Child.\nMore.")
    opened, moved = move(doc, child.id, title=" Milk ")
    assert opened.threads[-1].title == "Milk"
    assert [m.body for m in opened.threads[-1].walk()] == ["Child.\nMore.", "Grandchild."]
    assert opened.threads[-1].messages[0].id == moved[child.id]
    lifted, _ = move(doc, child.id, "Tea")
    assert outline(lifted)[:4] == [
        ("Tea", 0, "ann", "First.\n\nSecond."),
        ("Tea", 0, "bob", "Other."),
        ("Tea", 0, "ann", "Child.\nMore."),
        ("Tea", 1, "bob", "Grandchild."),
    ]


def test_moving_there_and_back_gives_the_ids_back() -> None:
    doc = parse(TALK)
    root = doc.messages[1]
    there, moved = move(doc, root.id, "Coffee")
    back, returned = move(there, moved[root.id], "Tea")
    assert {returned[moved[m.id]] for m in root.walk()} == {m.id for m in root.walk()}
    assert re.sub("\n{3,}", "\n\n", back.text) == TALK.replace("\n\n\n", "\n\n") + "\n"


def test_bodies_keep_their_lines_when_they_move() -> None:
    text = (
        "### T\n\n- @a [2025-01-01T00:00:00Z]: x\n\n"
        "     - @b [2025-01-01T00:00:00Z]: # first\n\n"
        "       ```\n       def f():\n           return 1\n\n       ```\n"
        "\tby a tab\n  too far left\n       hard break  \n ```\n"
        "         \\- @c [2025-01-01T00:00:00Z]: escaped\n"
        "          - @d [2025-01-01T00:00:00Z]: deeper\n  ~~~\n"
    )
    doc = parse(text)
    root = doc.messages[1]
    after, moved = move(doc, root.id, title="N")
    there = after.message(moved[root.id])
    assert there.body == root.body
    assert [m.body for m in there.walk()] == [m.body for m in root.walk()]
    assert [m.depth for m in there.walk()] == [0, 1]


def test_a_line_that_was_no_fence_is_none_after_a_move() -> None:
    doc = parse(
        "### T\n- @a [2025-01-01T00:00:00Z]: x\n  - @b [2025-01-01T00:00:00Z]: y\n   ```\n"
        "    ```\n    - @c [2025-01-01T00:00:00Z]: code\n    ```\n"
    )
    assert len(doc.messages) == 2
    after, moved = move(doc, doc.messages[1].id, title="N")
    assert len(after.messages) == 2
    assert after.message(moved[doc.messages[1].id]).body == doc.messages[1].body


def test_a_twin_that_moves_leaves_its_place_so_that_the_other_keeps_its_id() -> None:
    doc = parse(TWINS + "\n### U\n")
    first, second, third = (message.id for message in doc.walk())
    after, moved = move(doc, first, "U")
    assert outline(after) == [
        ("T", 0, "a", "-"),
        ("T", 0, "a", "two"),
        ("T", 0, "a", "three"),
        ("U", 0, "a", "one"),
    ]
    assert set(moved) == {first} and after.message(moved[first]).body == "one"
    assert after.message(second).body == "two" and after.message(third).body == "three"
    last, _ = move(doc, third, "U")
    assert outline(last) == [("T", 0, "a", "one"), ("T", 0, "a", "two"), ("U", 0, "a", "three")]


def test_a_move_needs_one_target_that_is_there_and_elsewhere() -> None:
    doc = parse(TALK + "\n\n### Tea\n")
    root, child = doc.messages[0], doc.messages[2]
    with pytest.raises(InvalidTarget, match="one of the two"):
        move(doc, root.id)
    with pytest.raises(InvalidTarget, match="one of the two"):
        move(doc, root.id, "Coffee", title="N")
    with pytest.raises(UnknownThread):
        move(doc, root.id, "Coff")
    with pytest.raises(AmbiguousThread):
        move(doc, root.id, "Tea")
    with pytest.raises(DuplicateThread):
        move(doc, root.id, title="Coffee")
    with pytest.raises(InvalidTitle):
        move(doc, root.id, title=" ")
    with pytest.raises(UnknownMessage):
        move(doc, "nope", "Coffee")
    with pytest.raises(Unchanged, match="already"):
        move(doc, root.id, doc.threads[0])
    assert move(doc, child.id, doc.threads[0])[0].text != doc.text


# Split


def test_a_paragraph_becomes_a_thread_that_quotes_and_links_it() -> None:
    doc = parse(TALK)
    source = doc.messages[0]
    after, made = split(doc, source.id, 1, "Second things", "eve", NOW)
    assert after.text == (
        f"{TALK}\n\n### Second things\n\n- @eve [{WRITTEN}]:\n\n  > Second.\n\n"
        f"  [@ann, 2025-02-12T01:14:44Z](#{source.id})\n"
    )
    assert made.thread.title == "Second things" and after.threads[-1].messages == (made,)
    assert [m.id for m in after.walk()][:-1] == [m.id for m in doc.walk()]


def test_paragraphs_are_the_blocks_that_a_markdown_reader_sees() -> None:
    body = (
        "One\nline.\n\n- a\n\n  b\n- c\n\n```py\nx\n\n\ty\n```\n[l]: http://example.org\n\n\tcode\n\n"
        "> q\n\nTitle\n==="
    )
    assert paragraphs(body) == (
        "One\nline.",
        "- a\n\n  b\n- c",
        "```py\nx\n\n\ty\n```",
        "\tcode",
        "> q",
        "Title\n===",
    )
    doc, made = post(parse("### T\n"), "T", "a_b", body, NOW)
    _, code = split(doc, made.id, 2, "N", "eve", NOW)
    assert code.body == f"> ```py\n> x\n>\n>     y\n> ```\n\n[@a\\_b, {WRITTEN}](#{made.id})"
    _, indented = split(doc, made.id, 3, "N", "eve", NOW)
    assert indented.body.startswith(">     code\n\n[")


def test_a_paragraph_that_is_not_there_is_an_error() -> None:
    doc = parse(TALK)
    for number in (2, -1):
        with pytest.raises(UnknownParagraph, match="has 2 paragraphs, counted from 0"):
            split(doc, doc.messages[0].id, number, "N", "eve", NOW)
    with pytest.raises(IndexError):
        split(doc, doc.messages[0].id, 9, "N", "eve", NOW)
    with pytest.raises(DuplicateThread):
        split(doc, doc.messages[0].id, 0, "Tea", "eve", NOW)
    with pytest.raises(UnknownMessage):
        split(doc, "nope", 0, "N", "eve", NOW)


# Rename


def test_a_rename_changes_the_title_and_tells_the_ids() -> None:
    doc = parse(TALK)
    after, moved = rename(doc, "Tea", " Green tea ")
    assert after.text == TALK.replace("### Tea\n", "### Green tea\n")
    assert list(moved) == [message.id for message in doc.threads[0].walk()]
    assert [moved.get(m.id, m.id) for m in doc.walk()] == [m.id for m in after.walk()]
    assert rename(after, "Green tea", "Tea")[0].text == TALK


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("###  Old title \t\r\nx", "###  New \t\r\nx"),
        ("###\r\nx", "### New\r\nx"),
        ("###", "### New"),
        ("###   \n", "### New\n"),
        ("\ufeff### #\n", "\ufeff### New\n"),
        ("- @a [2025-01-01T00:00:00Z]: x\n", "### New\n\n- @a [2025-01-01T00:00:00Z]: x\n"),
        ("words\r\n- @a [2025-01-01T00:00:00Z]: x", "words\r\n### New\r\n\r\n- @a [2025-01-01T00:00:00Z]: x"),
    ],
)
def test_every_kind_of_heading_can_be_renamed(text: str, becomes: str) -> None:
    doc = parse(text)
    assert rename(doc, doc.threads[0], "New")[0].text == becomes


def test_later_threads_of_the_old_title_are_counted_anew_and_told() -> None:
    doc = parse("### A\n\n- @a [2025-01-01T00:00:00Z]: x\n\n### A\n\n- @a [2025-01-01T00:00:00Z]: y\n")
    one, two = (message.id for message in doc.walk())
    after, moved = rename(doc, doc.threads[0], "B")
    assert moved == {one: after.messages[0].id, two: one}
    assert after.message(moved[two]).body == "y"
    assert rename(doc, doc.threads[1], "B")[1].keys() == {two}


def test_a_rename_needs_a_thread_and_another_free_title() -> None:
    doc = parse(TALK)
    with pytest.raises(Unchanged, match="already"):
        rename(doc, "Tea", "Tea ")
    with pytest.raises(DuplicateThread):
        rename(doc, "Tea", "Coffee")
    with pytest.raises(UnknownThread):
        rename(doc, "Te", "X")
    with pytest.raises(InvalidTitle):
        rename(doc, "Tea", "a\nb")


# Merge


def test_a_merge_puts_one_thread_behind_another() -> None:
    doc = parse(TALK)
    after, moved = merge_threads(doc, "Tea", "Coffee")
    assert after.text == (
        "### Coffee\n\n- @ann [2025-02-14T00:00:00Z]: Last\n\n"
        + TALK.partition("### Tea\n\n")[2].partition("\n### Coffee")[0]
    )
    assert list(moved) == [message.id for message in doc.threads[0].walk()]
    assert [after.message(moved[m.id]).body for m in doc.threads[0].walk()] == [
        m.body for m in doc.threads[0].walk()
    ]
    other, _ = merge_threads(doc, "Coffee", "Tea")
    assert other.text == TALK.replace("\n### Coffee\n", "") + "\n"


def test_threads_of_one_title_can_be_made_one() -> None:
    text = (
        "### A\n\n- @a [2025-01-01T00:00:00Z]: x\n\n### A\n\n- @a [2025-01-01T00:00:00Z]: y\n\n"
        "### A\n\n- @a [2025-01-01T00:00:00Z]: z\n"
    )
    doc = parse(text)
    x, y, z = (message.id for message in doc.walk())
    after, moved = merge_threads(doc, doc.threads[1], doc.threads[0])
    assert [(m.body, m.thread.ordinal) for m in after.walk()] == [("x", 0), ("y", 0), ("z", 1)]
    assert [after.message(moved.get(one, one)).body for one in (x, y, z)] == ["x", "y", "z"]
    assert moved[z] == y
    both, moved = merge_threads(doc, doc.threads[0], doc.threads[1])
    assert [m.body for m in both.walk()] == ["y", "x", "z"]
    assert [both.message(moved.get(one, one)).body for one in (x, y, z)] == ["x", "y", "z"]


def test_roots_at_odd_columns_stay_roots_when_merged() -> None:
    doc = parse(
        "### A\n- @a [2025-01-01T00:00:00Z]: x\n### B\n      - @b [2025-01-01T00:00:00Z]: y\n        more\n"
        "        - @c [2025-01-01T00:00:00Z]: z\n - @d [2025-01-01T00:00:00Z]: w\n"
    )
    after, _ = merge_threads(doc, "B", "A")
    assert outline(after) == [
        ("A", 0, "a", "x"),
        ("A", 0, "b", "y\nmore"),
        ("A", 1, "c", "z"),
        ("A", 0, "d", "w"),
    ]


def test_an_empty_thread_can_be_merged_away() -> None:
    doc = parse(TALK + "\n\n### Empty\n\n")
    after, moved = merge_threads(doc, "Empty", "Tea")
    assert (after.text.rstrip(), moved) == (TALK, {})


def test_a_merge_loses_no_line_and_needs_two_threads() -> None:
    doc = parse(
        "### A\n\n- @a [2025-01-01T00:00:00Z]: x\n\n### B\n\nA word.\n\n- @a [2025-01-01T00:00:00Z]: y\n"
    )
    with pytest.raises(StructureChanged, match="belong to no message"):
        merge_threads(doc, "B", "A")
    assert merge_threads(doc, "A", "B")[0].messages[-1].body == "x"
    with pytest.raises(InvalidTarget, match="into itself"):
        merge_threads(doc, "A", doc.threads[0])
    with pytest.raises(UnknownThread):
        merge_threads(doc, "A", "C")
    with pytest.raises(UnknownThread):
        merge_threads(doc, "C", "A")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_are_kept_by_all(ending: str) -> None:
    doc = parse(TALK.replace("\n", ending))
    child = doc.messages[2].id
    for after in (
        delete(doc, child),
        delete(doc, doc.messages[0].id),
        move(doc, child, "Coffee")[0],
        move(doc, child, title="N")[0],
        split(doc, child, 0, "N", "eve", NOW)[0],
        rename(doc, "Tea", "N")[0],
        merge_threads(doc, "Tea", "Coffee")[0],
    ):
        assert after.text != doc.text
        assert after.text.count("\n") == after.text.count(ending)
