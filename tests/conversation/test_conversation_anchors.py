"""A permanent link finds its message after any edit, move, rename and merge, whoever made it."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.conversation import (
    AmbiguousAnchor,
    Conversation,
    ConversationError,
    ConversationRepository,
    Index,
    InvalidAnchor,
    InvalidPath,
    Place,
    UnknownMessage,
    add_remote,
    clone,
    delete,
    edit,
    merge_threads,
    move,
    parse,
    post,
    pull,
    rename,
    reply,
    split,
    start,
)
from understudy.conversation.anchors import candidates, matched, may_move, read_anchor, written_anchor

FILE = "conversations/talk.md"
OTHER = "conversations/other.md"
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def by_hand(repo: ConversationRepository, *files: tuple[str, str | None]) -> None:
    for file, text in files:
        path = repo.root / file
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    assert repo.commit_hand_edits("eve")


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    made = ConversationRepository.create(tmp_path / "workspace")
    tea = made.start(FILE, "Tea", "ann", "Who brings the cup?", created=at(0)).message
    cup = made.reply(FILE, tea, "parrot", "I do.", created=at(1)).message
    made.reply(FILE, cup, "ann", "Thank you.", created=at(2))
    made.start(FILE, "Cake", "bob", "And cake?", created=at(3))
    return made


@pytest.fixture
def index(repo: ConversationRepository) -> Index:
    return Index(repo)


def links(repo: ConversationRepository, index: Index, file: str = FILE) -> dict[str, str]:
    """The link of each message, by what it says."""
    return {message.body: index.anchor(file, message.id) for message in repo.read(file).messages}


def said(repo: ConversationRepository, index: Index, link: str) -> str:
    place = index.resolve(link)
    return repo.read(place.file).message(place.id).body


def holds(repo: ConversationRepository, index: Index, known: dict[str, str]) -> None:
    """Every link leads to the message it was given for, also in an index built anew."""
    for built in (index, Index(repo, repo.root / ".understudy" / "anew.sqlite")):
        for words, link in known.items():
            assert said(repo, built, link) == words
        for file in repo.files():
            for message in repo.read(file).messages:
                if message.body in known:
                    assert built.anchor(file, message.id) == known[message.body]
    (repo.root / ".understudy" / "anew.sqlite").unlink()


def test_a_link_is_the_file_and_id_at_birth(repo: ConversationRepository, index: Index) -> None:
    first = repo.read(FILE).messages[0]
    assert index.anchor(FILE, first.id) == f"{FILE}#{first.id}"
    assert index.resolve(f"{FILE}#{first.id}") == Place(FILE, first.id)
    assert index.resolve(first.id) == Place(FILE, first.id)


def test_links_survive_edits_moves_renames_and_merges_of_the_program(
    repo: ConversationRepository, index: Index
) -> None:
    known = links(repo, index)
    cup = repo.read(FILE).messages[1].id
    repo.edit(FILE, cup, "ann", "I do not.")
    known["I do not."] = known.pop("I do.")
    holds(repo, index, known)
    repo.move(FILE, cup, "Cake", "ann")
    holds(repo, index, known)
    repo.rename(FILE, "Cake", "Cake and cups", "ann")
    holds(repo, index, known)
    cup = index.resolve(known["I do not."]).id
    repo.move(FILE, cup, None, "ann", title="Cups")
    holds(repo, index, known)
    repo.merge_threads(FILE, "Tea", "Cups", "ann")
    holds(repo, index, known)
    repo.split(FILE, index.resolve(known["I do not."]).id, 0, "Aside", "bob")
    holds(repo, index, known)
    assert len({place.id for place in map(index.resolve, known.values())}) == 4


def test_links_survive_what_a_hand_does(repo: ConversationRepository, index: Index) -> None:
    known = links(repo, index)
    by_hand(repo, (FILE, move(repo.read(FILE), repo.read(FILE).messages[1].id, "Cake")[0].text))
    holds(repo, index, known)
    by_hand(repo, (FILE, rename(repo.read(FILE), "Tea", "Tea time")[0].text))
    holds(repo, index, known)
    (repo.root / FILE).rename(repo.root / OTHER)
    assert repo.commit_hand_edits("eve")
    holds(repo, index, known)
    text = repo.read(OTHER).text
    place = text.index("### Cake")
    by_hand(repo, (OTHER, text[:place]), (FILE, text[place:]))  # half of it into another file
    holds(repo, index, known)
    by_hand(repo, (FILE, repo.read(FILE).text.replace("@parrot", "@polly")))  # who said it was wrong
    holds(repo, index, known)


def test_an_id_from_between_leads_there_too(repo: ConversationRepository, index: Index) -> None:
    cup = repo.read(FILE).messages[1].id
    between = repo.move(FILE, cup, "Cake", "ann").message
    last = repo.rename(FILE, "Cake", "Pie", "ann")
    now = last.moved[between]
    assert index.resolve(cup) == index.resolve(between) == index.resolve(now) == Place(FILE, now)
    assert index.anchor(FILE, now) == f"{FILE}#{cup}"


def test_a_move_that_was_undone(repo: ConversationRepository, index: Index) -> None:
    known, before = links(repo, index), repo.read(FILE).text
    repo.move(FILE, repo.read(FILE).messages[1].id, "Cake", "ann")
    holds(repo, index, known)
    by_hand(repo, (FILE, before))
    holds(repo, index, known)
    assert [index.resolve(link).id for link in known.values()] == [m.id for m in repo.read(FILE).messages]


def test_twins_of_one_second_are_told_apart(repo: ConversationRepository, index: Index) -> None:
    """One author, one second, side by side: when one of them leaves, the other does not take its link."""
    tea = repo.read(FILE).messages[0].id
    repo.reply(FILE, tea, "bot", "Twin one.", created=at(9))
    repo.reply(FILE, tea, "bot", "Twin two.", created=at(9))
    known = links(repo, index)
    one = index.resolve(known["Twin one."]).id
    repo.move(FILE, one, "Cake", "ann")
    known = {words: link for words, link in known.items() if words.startswith("Twin")}
    holds(repo, index, known)
    text = repo.read(FILE).text
    tombstone = next(line for line in text.splitlines() if "(deleted)" in line)
    by_hand(repo, (FILE, text.replace(tombstone + "\n", "")))  # now the second has the first one's old id
    assert repo.read(FILE).message(one).body == "Twin two."
    holds(repo, index, known)


def test_what_was_deleted_or_never_was(repo: ConversationRepository, index: Index) -> None:
    cake = repo.read(FILE).thread("Cake").messages[0].id
    repo.delete(FILE, cake, "bob")
    for gone in (cake, f"{FILE}#{cake}", "0123456789ab", f"{OTHER}#{cake}"):
        with pytest.raises(UnknownMessage, match="deleted, or never was"):
            index.resolve(gone)
    with pytest.raises(UnknownMessage, match="no message"):
        index.anchor(FILE, cake)


def test_a_deleted_message_that_was_answered_keeps_its_link(
    repo: ConversationRepository, index: Index
) -> None:
    tea = repo.read(FILE).messages[0].id
    link = index.anchor(FILE, tea)
    repo.delete(FILE, tea, "ann")
    assert index.resolve(link) == Place(FILE, tea) and repo.read(FILE).message(tea).deleted
    repo.rename(FILE, "Tea", "Coffee", "ann")
    assert repo.read(FILE).message(index.resolve(link).id).deleted


def test_a_copy_makes_an_id_ambiguous_but_no_link(repo: ConversationRepository, index: Index) -> None:
    first = repo.read(FILE).messages[0].id
    repo.add(OTHER, repo.read(FILE).text, "ann")
    with pytest.raises(AmbiguousAnchor, match="2 messages") as caught:
        index.resolve(first)
    assert f"{FILE}#{first}" in str(caught.value) and f"{OTHER}#{first}" in str(caught.value)
    assert index.resolve(f"{OTHER}#{first}") == Place(OTHER, first)
    assert index.resolve(f"{FILE}#{first}") == Place(FILE, first)


def test_a_forged_trailer_leads_no_link_elsewhere(repo: ConversationRepository, index: Index) -> None:
    known = links(repo, index)
    tea, cake = repo.read(FILE).messages[0].id, repo.read(FILE).thread("Cake").messages[0].id
    (repo.root / FILE).write_text(repo.read(FILE).text.replace("### Cake", "### Pie"))
    pie = parse((repo.root / FILE).read_text()).thread("Pie").messages[0].id
    message = (
        f"x\n\nUnderstudy-Operation: move\nUnderstudy-Moved: {tea} {pie}\nUnderstudy-Moved: {cake} {tea}\n"
    )
    git = ["git", "-C", str(repo.root), "-c", "user.name=eve", "-c", "user.email=e@e.org"]
    subprocess.run([*git, "commit", "-qam", message], check=True)
    holds(repo, index, known)


def test_links_of_two_clones_hold_after_a_merge(repo: ConversationRepository, tmp_path: Path) -> None:
    """One renamed the thread, the other answered in it: the answer's id changes, by the merge alone."""
    other = clone(str(repo.root), tmp_path / "copy")
    tea = repo.read(FILE).messages[0].id
    repo.rename(FILE, "Tea", "Tea time", "ann")
    late = other.reply(FILE, tea, "bob", "Late.", created=at(30)).message
    other.move(FILE, other.read(FILE).messages[1].id, "Cake", "bob")
    known = links(repo, Index(repo)) | links(other, Index(other))
    index = Index(repo)
    add_remote(repo, str(other.root))
    pull(repo, "ann")
    assert "Late." in [message.body for message in repo.read(FILE).messages]
    assert index.resolve(late).id != late
    holds(repo, index, known)


@pytest.mark.parametrize("wrong", ["", "#", "#abc", "talk.md#", "../x.md#abc", "talk#abc"])
def test_what_is_no_anchor(index: Index, wrong: str) -> None:
    with pytest.raises((InvalidAnchor, InvalidPath)):
        index.resolve(wrong)


def test_anchors_read_back() -> None:
    assert read_anchor(written_anchor(Place(FILE, "abc"))) == (FILE, "abc")
    assert read_anchor("abc") == (None, "abc")


AUTHORS = st.sampled_from(["ann", "bob"])
LINES = st.sampled_from(
    [
        "### A", "### B", "- @ann [2026-01-01T00:00:00Z]: x", "- @bob [2026-01-01T00:00:00Z]: x",
        "  - @ann [2026-01-01T00:00:00Z]: y", "  - @bob [2026-01-02T00:00:00Z]: z",
        "    - @ann [2026-01-01T00:00:00Z]: x", "text", "  text", "  ```", "```", "", "\ufeff### A", "###",
        "   - @ann [2026-01-03T00:00:00Z]: y", "- @ann [2026-01-04T00:00:00Z]:",
        "\t- @bob [2026-01-01T00:00:00Z]: x",
    ]
)  # fmt: skip
TEXTS = st.lists(LINES, max_size=14).map("\n".join)


def ids(text: str) -> set[str]:
    return {message.id for message in parse(text).messages}


def moved_between(before: str, after: str) -> dict[Place, Place]:
    return matched(candidates(FILE, parse(before).messages), candidates(FILE, parse(after).messages), {})


@given(TEXTS, TEXTS)
@settings(max_examples=1500, deadline=None)
def test_nothing_that_moved_is_passed_over(before: str, after: str) -> None:
    if not may_move(before, after):
        assert ids(before) <= ids(after) and not moved_between(before, after)


@given(st.lists(LINES, max_size=12), st.lists(LINES, max_size=3), st.integers(0, 12), st.integers(0, 2))
@settings(max_examples=3000, deadline=None)
def test_nothing_that_a_small_change_moved_is_passed_over(
    lines: list[str], put: list[str], place: int, taken: int
) -> None:
    changed = [*lines[:place], *put, *lines[place + taken :]]
    for before, after in (("\n".join(lines), "\n".join(changed)), ("\r\n".join(lines), "\r\n".join(changed))):
        if not may_move(before, after):
            assert ids(before) <= ids(after) and not moved_between(before, after)


def test_what_is_only_said_is_told_cheaply(repo: ConversationRepository) -> None:
    """Saying something does not make the index read the whole file."""
    before = repo.read(FILE)
    first = before.messages[0].id
    for after in (
        reply(before, first, "bob", "More.", at(20))[0],
        reply(before, before.messages[2].id, "bob", "More.\n\nAnd more.", at(20))[0],
        post(before, "Tea", "bob", "- a list\n- of things", at(20))[0],
        edit(before, first, "Other words")[0],
        start(before, "New", "bob", "Hello", at(20))[0],
    ):
        assert not may_move(before.text, after.text)
    for after in (delete(before, before.messages[3].id), rename(before, "Tea", "T")[0]):
        assert may_move(before.text, after.text)


STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20), AUTHORS), max_size=12)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_any_operations_are_followed_from_the_texts_alone(steps: list[tuple[int, int, str]]) -> None:
    """What the operations say of ids is what comparing the texts finds."""
    doc = start(parse(""), "Zero", "ann", "Body zero", NOON)[0]
    for number, (verb, which, author) in enumerate(steps, start=1):
        before = doc
        doc, told = acted(doc, verb, which, author, number)
        moves = moved_between(before.text, doc.text)
        assert {old.id: new.id for old, new in moves.items()} == told
        if told:
            assert may_move(before.text, doc.text)


def acted(
    doc: Conversation, verb: int, which: int, author: str, number: int
) -> tuple[Conversation, dict[str, str]]:
    """One operation with words of its own, at a time that others share."""
    if not doc.messages:
        return start(doc, f"Start {number}", author, f"Body {number}", NOON)[0], {}
    message = doc.messages[which % len(doc.messages)]
    if message.deleted and verb in (2, 3):
        return doc, {}  # a place that was kept can be moved, and leaves just the same behind
    titles = [thread.title for thread in doc.threads]
    try:
        if verb in (0, 1):
            return reply(doc, message.id, author, f"Body {number}", at(number % 2))[0], {}
        if verb == 2:
            after, told = move(doc, message.id, title=f"Moved {number}")
        elif verb == 3:
            after, told = move(doc, message.id, titles[which % len(titles)])
        elif verb == 4:
            after, told = rename(doc, titles[which % len(titles)], f"Renamed {number}")
        elif verb == 5:
            after, told = merge_threads(doc, titles[0], titles[-1])
        else:
            return split(doc, message.id, 0, f"Split {number}", author, at(number % 2))[0], {}
    except ConversationError:
        return doc, {}
    return after, {old: new for old, new in told.items() if old != new}
