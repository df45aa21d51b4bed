"""Merging by message: what each side did to each message is there, and a conflict marker never is."""

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from understudy.conversation import (
    Conversation,
    ConversationError,
    MergeNote,
    Message,
    delete,
    edit,
    merge,
    merge_threads,
    move,
    parse,
    post,
    rename,
    reply,
    start,
)

NOW = datetime(2026, 11, 20, 12, 30, 45, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)
OTHER = "Edited in two places at once; the other text was:"
TALK = """### Tea

- @ann [2025-02-12T01:14:44Z]: First.

  Second.


- @bob [2025-02-12T01:16:22]: Other.

  - @ann [2025-02-12T01:18:15Z]: Child.
    More.
    - @bob [2025-02-12T01:20:33Z]: Grandchild.

### Coffee

- @ann [2025-02-14T00:00:00Z]: Last"""
BASE = parse(TALK)
FIRST, OTHERS, CHILD, GRANDCHILD, LAST = (message.id for message in BASE.messages)

Said = tuple[str, str, str]


def said(doc: Conversation) -> "Counter[Said]":
    return Counter((m.author, m.created, m.body) for m in doc.messages if not m.deleted)


def outline(doc: Conversation) -> list[str]:
    lines = []
    for thread in doc.threads:
        lines.append(f"### {thread.title}")
        for m in thread.walk():
            text = "(deleted)" if m.deleted else m.body.replace("\n", "|")
            lines.append(f"{'  ' * m.depth}{m.author}: {text}")
    return lines


def both(
    base: Conversation, ours: Conversation, theirs: Conversation
) -> tuple[Conversation, list[MergeNote]]:
    """The merge, having checked that the other direction says the same."""
    merged, notes = merge(base, ours, theirs)
    turned, _ = merge(base, theirs, ours)
    assert said(merged) == said(turned)
    assert outline(merged) == outline(turned)
    assert "<<<<" not in merged.text and ">>>>" not in merged.text
    assert merge(merged, merged, merged) == (merged, ())
    return merged, list(notes)


def test_both_replied_to_one_message() -> None:
    ours, mine = reply(BASE, OTHERS, "eve", "Ours.", LATER)
    theirs, yours = reply(BASE, OTHERS, "zoe", "Theirs.\n\n- a\n- b", NOW)
    merged, notes = both(BASE, ours, theirs)
    assert notes == []
    assert [m.body for m in merged.message(OTHERS).replies] == [
        "Child.\nMore.",
        "Theirs.\n\n- a\n- b",
        "Ours.",
    ]
    assert {mine.id, yours.id, *(m.id for m in BASE.messages)} == {m.id for m in merged.messages}
    assert merged.text == ours.text.replace(
        "\n  - @eve", "\n  - @zoe [2026-11-20T12:30:45Z]: Theirs.\n\n    - a\n    - b\n\n  - @eve"
    ), "nothing else moved"


def test_both_opened_a_thread_and_both_posted() -> None:
    ours, theirs = start(BASE, "Milk", "eve", "Cow.", NOW)[0], start(BASE, "Water", "zoe", "Tap.", LATER)[0]
    ours, theirs = post(ours, "Tea", "eve", "Green.", LATER)[0], post(theirs, "Tea", "zoe", "Black.", NOW)[0]
    merged, notes = both(BASE, ours, theirs)
    assert notes == []
    assert outline(merged) == [
        "### Tea",
        "ann: First.||Second.",
        "bob: Other.",
        "  ann: Child.|More.",
        "    bob: Grandchild.",
        "zoe: Black.",
        "eve: Green.",
        "### Coffee",
        "ann: Last",
        "### Milk",
        "eve: Cow.",
        "### Water",
        "zoe: Tap.",
    ]


def test_a_thread_of_one_title_opened_on_both_sides_is_one_thread() -> None:
    ours, theirs = start(BASE, "Milk", "eve", "Cow.", NOW)[0], start(BASE, "Milk", "zoe", "Oat.", NOW)[0]
    merged, notes = both(BASE, ours, theirs)
    assert notes == []
    assert outline(merged)[-3:] == ["### Milk", "eve: Cow.", "zoe: Oat."]


def test_what_both_sides_brought_from_a_third_is_there_once() -> None:
    third, made = reply(BASE, FIRST, "eve", "From elsewhere.", NOW)
    ours, theirs = reply(third, made.id, "ann", "A", NOW)[0], reply(third, made.id, "bob", "B", NOW)[0]
    merged, notes = both(BASE, ours, theirs)
    assert notes == []
    assert [m.body for m in merged.message(made.id).walk()] == ["From elsewhere.", "A", "B"]


def test_two_things_of_one_second_are_told_apart_by_their_order_as_ids_do() -> None:
    base, first = reply(BASE, FIRST, "eve", "A", NOW)
    base, second = reply(base, FIRST, "eve", "B", NOW)
    ours, _ = edit(base, first.id, "B")
    ours, _ = edit(ours, second.id, "C")
    theirs, _ = reply(base, second.id, "zoe", "To B.", NOW)
    merged, notes = both(base, ours, theirs)
    assert notes == []
    assert (merged.message(first.id).body, merged.message(second.id).body) == ("B", "C")
    assert [m.body for m in merged.message(second.id).replies] == ["To B."]


def test_of_two_things_of_one_second_one_was_taken_out_by_hand() -> None:
    base = reply(reply(BASE, LAST, "eve", "A", NOW)[0], LAST, "eve", "B", NOW)[0]
    ours = parse(base.text.replace("\n  - @eve [2026-11-20T12:30:45Z]: A\n", ""))
    theirs, _ = edit(base, base.messages[-1].id, "B, edited.")
    merged, _ = both(base, ours, theirs)
    assert [m.body for m in merged.messages[-2:]] == ["Last", "B, edited."]


def test_one_author_said_two_things_in_one_second() -> None:
    ours, mine = reply(BASE, FIRST, "eve", "A", NOW)
    theirs, yours = reply(BASE, FIRST, "eve", "B", NOW)
    assert mine.id == yours.id
    merged, notes = both(BASE, ours, theirs)
    assert [m.body for m in merged.message(FIRST).replies] == ["A", "B"]
    moved = merged.message(FIRST).replies[1]
    assert notes == [MergeNote("id-taken", moved.id, "", yours.id)]


def test_an_edit_on_one_side_stands() -> None:
    ours, theirs = edit(BASE, CHILD, "Edited.")[0], reply(BASE, CHILD, "zoe", "Theirs.", NOW)[0]
    merged, notes = both(BASE, ours, theirs)
    assert notes == []
    assert merged.message(CHILD).body == "Edited."
    assert [m.body for m in merged.message(CHILD).replies] == ["Grandchild.", "Theirs."]


def test_of_two_edits_one_stands_and_the_other_is_kept_as_a_reply() -> None:
    ours, theirs = (
        edit(BASE, CHILD, "Aaa\n\n```\n- @x [2025-01-01T00:00:00Z]: y\n```")[0],
        edit(BASE, CHILD, "Bbb")[0],
    )
    merged, notes = both(BASE, ours, theirs)
    message = merged.message(CHILD)
    assert message.body == "Bbb", "nobody knows the times: the text that sorts last"
    assert [m.body for m in message.replies] == [
        "Grandchild.",
        f"{OTHER}\n\n> Aaa\n>\n> ```\n> - @x [2025-01-01T00:00:00Z]: y\n> ```",
    ]
    kept = message.replies[1]
    assert (kept.author, kept.created) == (message.author, message.created)
    assert notes == [MergeNote("both-edited", CHILD, "Aaa\n\n```\n- @x [2025-01-01T00:00:00Z]: y\n```")]


@pytest.mark.parametrize(("ours_at", "theirs_at", "stands"), [(LATER, NOW, "Aaa"), (NOW, LATER, "Bbb")])
def test_the_later_edit_stands_where_the_times_are_known(
    ours_at: datetime, theirs_at: datetime, stands: str
) -> None:
    ours, theirs = edit(BASE, CHILD, "Aaa")[0], edit(BASE, CHILD, "Bbb")[0]
    merged, notes = merge(
        BASE, ours, theirs, ours_edited=lambda _: ours_at, theirs_edited=lambda _: theirs_at
    )
    assert merged.message(CHILD).body == stands
    assert {"Aaa", "Bbb"} == {stands, notes[0].text}


def test_the_same_edit_on_both_sides_is_no_conflict() -> None:
    ours, theirs = edit(BASE, CHILD, "Same.")[0], edit(BASE, CHILD, "Same.")[0]
    ours = reply(ours, FIRST, "eve", "x", NOW)[0]
    merged, notes = both(BASE, ours, theirs)
    assert merged == ours and notes == []


def test_deleted_on_one_side_is_gone() -> None:
    ours, theirs = delete(BASE, GRANDCHILD), reply(BASE, FIRST, "zoe", "Theirs.", NOW)[0]
    merged, notes = both(BASE, ours, theirs)
    assert notes == []
    assert said(merged) == said(theirs) - said(BASE) + said(ours)
    assert GRANDCHILD not in {m.id for m in merged.messages}


def test_edited_on_one_side_and_deleted_on_the_other_stays() -> None:
    for message_id in (GRANDCHILD, CHILD):
        ours, theirs = delete(BASE, message_id), edit(BASE, message_id, "Edited.")[0]
        merged, notes = both(BASE, ours, theirs)
        assert merged == theirs or outline(merged) == outline(theirs)
        assert notes == [MergeNote("edited-and-deleted", message_id)]


def test_deleted_on_one_side_and_answered_on_the_other_keeps_its_place() -> None:
    ours, theirs = delete(BASE, GRANDCHILD), reply(BASE, GRANDCHILD, "zoe", "Answer.", NOW)[0]
    merged, notes = both(BASE, ours, theirs)
    message = merged.message(GRANDCHILD)
    assert message.deleted and message.body == "" and [m.body for m in message.replies] == ["Answer."]
    assert notes == [MergeNote("kept-as-deleted", GRANDCHILD)]


def test_a_deleted_branch_with_something_edited_in_it() -> None:
    ours = parse(TALK[: TALK.index("- @bob [2025-02-12T01:16:22]")] + TALK[TALK.index("### Coffee") :])
    theirs = edit(BASE, GRANDCHILD, "Edited.")[0]
    merged, notes = both(BASE, ours, theirs)
    assert outline(merged)[2:5] == ["bob: (deleted)", "  ann: (deleted)", "    bob: Edited."]
    assert {note.kind for note in notes} == {"edited-and-deleted", "kept-as-deleted"}
    assert {m.id for m in merged.messages} == {m.id for m in BASE.messages}


def test_lines_merged_by_union_double_edits_and_raise_the_deleted_which_this_does_not(tmp_path: Path) -> None:
    ours, theirs = edit(BASE, CHILD, "Edited.")[0], edit(BASE, CHILD, "Edited otherwise.")[0]
    by_lines = union(tmp_path, BASE, ours, theirs)
    assert "Edited.\n  - @ann [2025-02-12T01:18:15Z]: Edited otherwise." in by_lines, "one message became two"
    merged, _ = both(BASE, ours, theirs)
    assert [m.body for m in merged.messages if m.id == CHILD] == ["Edited."]
    ours, theirs = delete(BASE, GRANDCHILD), edit(BASE, CHILD, "Edited.")[0]
    assert "Grandchild." in union(tmp_path, BASE, ours, theirs), "the deleted is back"
    assert "Grandchild." not in both(BASE, ours, theirs)[0].text


def union(folder: Path, *versions: Conversation) -> str:
    """What Git makes of base, ours and theirs with `merge=union`."""
    names = [folder / name for name in ("base", "ours", "theirs")]
    for path, doc in zip(names, versions, strict=True):
        path.write_text(doc.text)
    command = ["git", "merge-file", "--union", "-p", *map(str, (names[1], names[0], names[2]))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_deleted_on_both_sides_is_gone() -> None:
    ours, theirs = delete(BASE, GRANDCHILD), delete(BASE, GRANDCHILD)
    merged, notes = both(BASE, ours, reply(theirs, FIRST, "zoe", "x", NOW)[0])
    assert notes == [] and GRANDCHILD not in {m.id for m in merged.messages}


def test_renamed_on_one_side_with_what_the_other_said_there() -> None:
    ours, moved = rename(BASE, "Tea", "Green tea")
    theirs, made = reply(BASE, CHILD, "zoe", "Theirs.", NOW)
    merged, notes = both(BASE, ours, theirs)
    assert [thread.title for thread in merged.threads] == ["Green tea", "Coffee"]
    answer = merged.message(moved[CHILD]).replies[-1]
    assert answer.body == "Theirs."
    assert notes == [MergeNote("id-changed", answer.id, "", made.id)]


def test_renamed_on_both_sides() -> None:
    ours, theirs = rename(BASE, "Tea", "Green tea")[0], rename(BASE, "Tea", "Black tea")[0]
    merged, notes = both(BASE, ours, theirs)
    assert [thread.title for thread in merged.threads] == ["Black tea", "Coffee"]
    assert said(merged) == said(BASE)
    assert notes[0] == MergeNote("both-renamed", merged.messages[0].id, "Green tea")
    assert {(note.before, note.message) for note in notes[1:]} == {
        (old.id, new.id) for old, new in zip(ours.messages[:4], merged.messages[:4], strict=True)
    }, "links to the title that does not stand still lead somewhere"


def test_two_threads_that_became_equal_in_title_stay_two() -> None:
    ours, theirs = rename(BASE, "Tea", "Drinks")[0], rename(BASE, "Coffee", "Drinks")[0]
    merged, notes = both(BASE, ours, theirs)
    assert [thread.title for thread in merged.threads] == ["Drinks", "Drinks"]
    assert said(merged) == said(BASE)
    assert "same-title" in {note.kind for note in notes}


def test_moved_on_one_side_with_what_the_other_said_and_edited_there() -> None:
    ours, moved = move(BASE, OTHERS, "Coffee")
    theirs = edit(reply(BASE, GRANDCHILD, "zoe", "Theirs.", NOW)[0], CHILD, "Edited.")[0]
    merged, _ = both(BASE, ours, theirs)
    assert outline(merged) == [
        "### Tea",
        "ann: First.||Second.",
        "### Coffee",
        "ann: Last",
        "bob: Other.",
        "  ann: Edited.",
        "    bob: Grandchild.",
        "      zoe: Theirs.",
    ]
    assert merged.message(moved[CHILD]).body == "Edited."


def test_a_move_that_left_its_place_behind_with_an_edit_on_the_other_side() -> None:
    base, first = reply(BASE, FIRST, "eve", "One.", NOW)
    base, twin = reply(base, FIRST, "eve", "Two.", NOW)
    ours, moved = move(base, first.id, "Coffee")
    assert ours.message(first.id).deleted, "so that the twin keeps its id"
    theirs, _ = edit(base, first.id, "Edited.")
    merged, notes = both(base, ours, theirs)
    assert merged.message(moved[first.id]).body == "Edited."
    assert merged.message(first.id).deleted and merged.message(twin.id).body == "Two."
    assert len(merged.messages) == len(ours.messages) and notes == []


def test_moved_on_both_sides() -> None:
    ours, theirs = move(BASE, CHILD, "Coffee")[0], move(BASE, CHILD, title="Milk")[0]
    merged, notes = both(BASE, ours, theirs)
    assert said(merged) == said(BASE)
    assert outline(merged) == [*outline(ours), "### Milk"], "the thread that was opened for it stays, empty"
    assert ("both-moved", "Milk") in {(note.kind, note.text) for note in notes}


def test_moved_on_one_side_and_deleted_on_the_other() -> None:
    ours, theirs = move(BASE, GRANDCHILD, "Coffee")[0], delete(BASE, GRANDCHILD)
    merged, notes = both(BASE, ours, theirs)
    assert said(merged) == said(theirs) and notes == []


def test_threads_merged_on_one_side_with_what_the_other_posted_there() -> None:
    ours, theirs = merge_threads(BASE, "Coffee", "Tea")[0], post(BASE, "Coffee", "zoe", "Theirs.", NOW)[0]
    merged, _ = both(BASE, ours, theirs)
    assert outline(merged) == [*outline(ours), "zoe: Theirs."]


def test_messages_hung_below_each_other_by_hand() -> None:
    flat = "### T\n\n- @a [2025-01-01T00:00:00Z]: A\n\n- @b [2025-01-02T00:00:00Z]: B\n"
    ours = "### T\n\n- @b [2025-01-02T00:00:00Z]: B\n\n  - @a [2025-01-01T00:00:00Z]: A\n"
    theirs = "### T\n\n- @a [2025-01-01T00:00:00Z]: A\n\n  - @b [2025-01-02T00:00:00Z]: B\n"
    merged, _ = merge(parse(flat), parse(ours), parse(theirs))
    assert outline(merged) == ["### T", "a: A", "b: B"]


def test_what_stands_outside_messages() -> None:
    base = parse("Intro.\n\n### T\n\nAbout T.\n\n- @a [2025-01-01T00:00:00Z]: x\n")
    ours, theirs = (
        parse(base.text.replace("About T", "Ours")),
        parse(base.text.replace("Intro.", "New intro.")),
    )
    assert both(base, ours, theirs)[0].text == ours.text.replace("Intro.", "New intro.")
    ours, theirs = parse(base.text.replace("Intro", "A")), parse(base.text.replace("Intro", "B"))
    assert merge(base, ours, theirs)[0].text == base.text.replace("Intro.", "A.\n\nB.")
    ours, theirs = parse(base.text.replace("About T", "A")), parse(base.text.replace("About T", "B"))
    assert merge(base, ours, theirs)[0].text == base.text.replace("About T.", "A.\n\nB.")


def test_line_endings_are_those_that_a_side_changed_to() -> None:
    ours = reply(parse(TALK.replace("\n", "\r\n")), FIRST, "eve", "x\ny", NOW)[0]
    theirs = reply(BASE, LAST, "zoe", "a\nb", NOW)[0]
    merged, _ = both(BASE, ours, theirs)
    assert merged.text.count("\n") == merged.text.count("\r\n") > 20
    assert len(merged.messages) == 7


def test_bytes_that_no_one_touched_stay() -> None:
    odd = (
        "\ufeff### Odd\n- @ann [2025-02-12T01:14:44]:Text\n\n\n\tTab.\n   - @bob [2025-02-12T01:16]: Child\n"
        "### Two\n\n- @ann [2025-02-14T00:00:00Z]: x\n\n\n\n- @bob [2025-02-14T00:00:01Z]:   y\n\n\n"
    )
    base = parse(odd)
    ours, _ = reply(base, base.messages[2].id, "eve", "Ours.", NOW)
    theirs, _ = reply(base, base.messages[3].id, "zoe", "Theirs.", NOW)
    merged, notes = both(base, ours, theirs)
    assert notes == []
    again, _ = reply(ours, base.messages[3].id, "zoe", "Theirs.", NOW)
    assert merged == again


@pytest.mark.parametrize(("odd", "becomes"), [("", ""), ("\r\r\n  q", "\nq")])
def test_a_fence_left_open_on_one_side_hides_nothing_of_the_other(odd: str, becomes: str) -> None:
    base = parse(f"### T\n\n- @a [2025-01-01T00:00:00Z]: x{odd}\n")
    ours = parse(base.text + "  ```\n")
    theirs = parse(base.text + "  - @b [2025-01-02T00:00:00Z]: y\n  ```\n  z\n")
    assert len(parse(ours.text + theirs.text[len(base.text) :]).messages) == 1, "side by side, b is hidden"
    merged, _ = merge(base, ours, theirs)
    assert [m.body for m in merged.messages] == [
        f"x{becomes}\n```" + "\n```" * bool(odd),
        "y\n```\nz" + "\n```" * bool(odd),
    ]


def test_replies_at_odd_columns_stay_where_they_belong() -> None:
    base = parse("### T\n\n- @a [2025-01-01T00:00:00Z]: x\n")
    ours = parse(base.text + "     - @b [2025-01-03T00:00:00Z]: five columns\n")
    theirs = parse(base.text + "  - @c [2025-01-02T00:00:00Z]: two columns\n")
    merged, _ = both(base, ours, theirs)
    assert outline(merged) == ["### T", "a: x", "  c: two columns", "  b: five columns"]


def test_a_file_with_no_common_version() -> None:
    ours, theirs = start(parse(""), "T", "ann", "A", NOW)[0], start(parse(""), "T", "bob", "B", NOW)[0]
    merged, _ = both(parse(""), ours, theirs)
    assert outline(merged) == ["### T", "ann: A", "bob: B"]


AWKWARD = [
    "### T",
    "###",
    "- @a [2025-01-01T00:00:00Z]: x",
    "- @a [2025-01-01T00:00:00Z]:",
    "- @b [2025-01-02T00:00Z]: y",
    "  - @a [2025-01-03T00:00:00Z]: z",
    "   - @c [2025-01-03T00:00:00+02:00]: odd",
    "\t- @c [2025-01-04T00:00:00Z]: tab",
    "      - @d [2025-01-05T00:00:00Z]: deep",
    "- @a [2025-01-01T00:00:00Z]: *(deleted)*",
    "  text",
    "text",
    "  ```",
    "    ~~~",
    "```",
    "  \\- @a [2025-01-01T00:00:00Z]: escaped",
    "<!--",
    "",
    "",
    "\ufeff",
    "x\r",
    "  \r\r",
    "  \ud8ff",
    "\u2028x",
]
files = st.lists(st.sampled_from(AWKWARD), max_size=14).map("\n".join)
"""Files that no program would write."""


@given(files, files, files)
@example("- @a [2025-01-01T00:00:00Z]: x", "### T\n- @b [2025-01-02T00:00Z]: y", "")
@example("", "", "")
@example("### T\n\n- @a [2025-01-01T00:00:00Z]:", "", "\n- @a [2025-01-01T00:00:00Z]:")
def test_any_three_texts_merge_without_losing_what_a_side_added(base: str, ours: str, theirs: str) -> None:
    b, o, t = parse(base), parse(ours), parse(theirs)
    merged, notes = merge(b, o, t)
    assert parse(merged.text) == merged
    there, known = Counter(map(words, merged.messages)), Counter(map(words, b.messages))
    quoted = {plain(note.text) for note in notes if note.kind == "both-edited"}
    kept = [plain(m.body) for m in merged.messages if m.body.startswith(OTHER)]
    assert all(any(text in body for body in kept) for text in quoted)
    for side in (o, t):
        for author, text in Counter(map(words, side.messages)) - known:
            assert not text or text in quoted or any(who == author and text in now for who, now in there)
    turned, _ = merge(b, t, o)
    assert Counter(map(words, turned.messages)) == there


def words(message: Message) -> tuple[str, str]:
    return message.author, plain(message.body)


def plain(text: str) -> str:
    """The words alone: a body that has to be written anew may get a fence closed."""
    return " ".join(word for word in text.split() if word.strip("`~>"))


@given(files, files)
def test_a_side_that_did_nothing_leaves_the_other_as_it_is(base: str, side: str) -> None:
    b, x = parse(base), parse(side)
    assert merge(b, x, b) == (x, ())
    assert merge(b, b, x) == (x, ())
    assert merge(b, x, x) == (x, ())


Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "post", "reply", "reply", "edit", "delete", "move", "rename", "merge"]),
        st.integers(0, 1_000),
        st.integers(0, 3),
    ),
    max_size=6,
)
BODIES = [
    "one",
    "two\n\n- a\n- b",
    "```\n- @x [2025-01-01T00:00:00Z]: y\n```",
    "<div>\nx",
    "> q",
    "### Title",
    "*(deleted)*",
]


def perform(doc: Conversation, plan: Sequence[Step], who: str, names: str = "") -> Conversation:
    """Do what can be done; the authors of two sides share no names if each has its own ending."""
    for number, (verb, choice, second) in enumerate(plan):
        body, when = BODIES[choice % len(BODIES)], NOW + timedelta(seconds=second)
        doc = _perform(doc, verb, choice, f"{body} {who} {number}" if body == "one" else body, when, names)
    return doc


def _perform(
    doc: Conversation, verb: str, choice: int, body: str, when: datetime, names: str
) -> Conversation:
    name = "abc"[choice % 3] + names
    thread = doc.threads[choice % len(doc.threads)]
    message = doc.messages[choice % len(doc.messages)].id if doc.messages else ""
    title = f"Title {choice % 5}"
    acts: dict[str, Callable[[], Conversation]] = {
        "start": lambda: start(doc, title, name, body, when)[0],
        "post": lambda: post(doc, thread, name, body, when)[0],
        "reply": lambda: reply(doc, message, name, body, when)[0],
        "edit": lambda: edit(doc, message, body)[0],
        "delete": lambda: delete(doc, message),
        "move": lambda: move(doc, message, thread)[0],
        "rename": lambda: rename(doc, thread, title)[0],
        "merge": lambda: merge_threads(doc, thread, doc.threads[0])[0],
    }
    try:
        return acts[verb]()
    except ConversationError:
        return doc


@given(steps, steps, steps)
def test_what_any_two_people_did_is_all_there(
    before: list[Step], ours: list[Step], theirs: list[Step]
) -> None:
    base = perform(BASE, before, "base")
    o, t = perform(base, ours, "ours"), perform(base, theirs, "theirs")
    merged, notes = merge(base, o, t)
    there = said(merged)
    quoted = "\n".join(m.body for m in merged.messages if m.body.startswith(OTHER))
    for side in (o, t):
        for author, created, body in said(side) - said(base):
            assert (author, created, body) in there or f"> {body.splitlines()[0]}" in quoted, (author, body)
    for message in said(base) - (said(base) - said(o)) - (said(base) - said(t)):
        assert message in there or said(base)[message] > 1, "what no side touched, and has no equal"
    turned, _ = merge(base, t, o)
    assert said(turned) == there
    assert Counter(m.deleted for m in turned.messages) == Counter(m.deleted for m in merged.messages)
    ids = {m.id for m in merged.messages}
    assert all(note.message in ids or not note.message for note in notes)
    assert merge(o, o, merged)[0] == merged, "the merge is a version like any other"


@given(steps, steps, steps)
def test_merging_what_was_said_and_edited_changes_no_id(
    before: list[Step], ours: list[Step], theirs: list[Step]
) -> None:
    base = perform(BASE, before, "base")
    talking = [
        [step for step in plan if step[0] in ("start", "post", "reply", "edit")] for plan in (ours, theirs)
    ]
    o, t = perform(base, talking[0], "ours", "x"), perform(base, talking[1], "theirs", "y")
    merged, notes = merge(base, o, t)
    for side in (o, t):
        for message in side.messages:
            there = merged.message(message.id)
            assert (there.author, there.created) == (message.author, message.created)
            assert (there.parent and there.parent.id) == (message.parent and message.parent.id)
            assert there.thread.title == message.thread.title
    assert {note.kind for note in notes} <= {"both-edited"}
    assert len(merged.messages) == len({m.id for m in (*o.messages, *t.messages)}) + sum(
        m.body.startswith(OTHER) for m in merged.messages
    )


def test_many_writers_and_many_merges_lose_nothing() -> None:
    chance = random.Random(7)
    clones = [BASE] * 4
    bases = {(one, two): BASE for one in range(4) for two in range(4)}
    count = 0
    for _ in range(200):
        one, two = chance.sample(range(4), 2)
        target = chance.choice(clones[one].messages).id
        clones[one], _ = reply(
            clones[one], target, f"w{one}", f"said {count}", NOW + timedelta(seconds=count)
        )
        count += 1
        if chance.random() < 0.3:
            merged, _ = merge(bases[one, two], clones[one], clones[two])
            clones[one] = clones[two] = bases[one, two] = bases[two, one] = merged
    final = clones[0]
    for other in range(1, 4):
        final, _ = merge(bases[0, other], final, clones[other])
    assert said(final) - said(BASE) == Counter(
        {
            (f"w{m.author[1:]}", m.created, m.body): 1
            for clone in clones
            for m in clone.messages
            if m.body.startswith("said")
        }
    )
    assert sum(m.body.startswith("said") for m in final.messages) == count
