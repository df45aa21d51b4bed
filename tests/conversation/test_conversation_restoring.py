"""Undoing a deletion: what comes back, where, what never changes, and what is refused."""

import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from conversation_cases import NOW, TALK, tidy_texts, wild_texts
from conversation_laws import Step, filled, seen, steps, take
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from understudy.conversation import (
    Conversation,
    ConversationError,
    ConversationRepository,
    DeletedMessage,
    Index,
    InvalidTarget,
    Message,
    NotAllowed,
    Posted,
    StructureChanged,
    Unchanged,
    UnknownMessage,
    UnknownRevision,
    delete,
    edit,
    merge_threads,
    move,
    parse,
    post,
    rename,
    restore,
)

FILE = "conversations/talk.md"
law = settings(deadline=None)

NESTED = """### Tea

- @ann [2025-02-12T01:14:44Z]: First.

- @bob [2025-02-12T01:16:22Z]: Second.

  - @bob [2025-02-12T01:18:15Z]: Below.

    More of it.

- @cid [2025-02-12T01:20:33Z]: Third.
"""


def said(doc: Conversation, body: str) -> Message:
    return next(message for message in doc.walk() if message.body == body)


def outline(doc: Conversation) -> list[tuple[str, int, str, str]]:
    return [(m.thread.title, m.depth, m.author, "-" if m.deleted else m.body) for m in doc.walk()]


# The pure function


@law
@given(st.one_of(tidy_texts(), wild_texts), st.integers(0, 100))
def test_deleting_and_restoring_gives_the_same_bytes(text: str, choice: int) -> None:
    doc = parse(text)
    living = [message for message in doc.walk() if not message.deleted]
    assume(living)
    target = living[choice % len(living)].id
    try:
        gone = delete(doc, target)
    except StructureChanged:
        return
    assert restore(gone, doc, target).text == text


@law
@given(st.one_of(tidy_texts(), wild_texts), st.integers(0, 100), st.lists(steps, min_size=1, max_size=3))
def test_whatever_was_done_since_no_other_message_changes(text: str, choice: int, plan: list[Step]) -> None:
    """What comes back is what the deletion took, with the same words; all others keep id, place and bytes."""
    doc = parse(text)
    living = [message for message in doc.walk() if not message.deleted]
    assume(living)
    lost = living[choice % len(living)]
    try:
        gone = delete(doc, lost.id)
    except StructureChanged:
        return
    now = gone
    for step in plan:
        try:
            done = take(now, step)
        except ConversationError:
            continue
        now = done.after if done else now
    try:
        back = restore(now, doc, lost.id)
    except (StructureChanged, InvalidTarget, Unchanged):
        return
    filled_place = {m.id for m in now.walk() if m.deleted} & {m.id for m in back.walk() if not m.deleted}
    assert len(filled_place) <= 1
    before = {message.id: message for message in now.walk() if message.id not in filled_place}
    kept = [message for message in back.walk() if message.id in before]
    assert [seen(message) for message in kept] == [seen(message) for message in before.values()]
    assert [filled(message) for message in kept] == [filled(message) for message in before.values()]
    left = {message.id for message in gone.walk()}
    below = [message for message in lost.walk() if message.id not in left]
    taken = [lost] if filled_place else below or [lost]
    new = [message for message in back.walk() if message.id not in before]
    made = new[-len(taken) :]
    assert [seen(message)[:3] for message in made] == [seen(message)[:3] for message in taken]
    assert all(place.deleted for place in new[: -len(taken)])


def test_a_place_gets_its_body_back_and_nothing_else_is_touched() -> None:
    doc = parse(TALK)
    child = said(doc, "Child.\nMore.")
    gone, _ = post(delete(doc, child.id), "Coffee", "eve", "Meanwhile.", NOW)
    back = restore(gone, doc, child.id)
    assert back.text == gone.text.replace("*(deleted)*", "Child.\n    More.")
    assert back.message(child.id).body == child.body


def test_it_stands_where_it_stood_with_what_its_author_said_below() -> None:
    doc = parse(NESTED)
    second = said(doc, "Second.")
    gone = delete(doc, second.id)
    assert len(gone.messages) == 2
    gone, _ = post(gone, "Tea", "eve", "Fourth.", NOW)
    back = restore(gone, doc, second.id)
    assert back.text == post(doc, "Tea", "eve", "Fourth.", NOW)[0].text
    assert [message.id for message in back.walk()][:4] == [message.id for message in doc.walk()]


def test_without_its_neighbours_it_stands_behind_those_that_are_left() -> None:
    doc = parse(NESTED)
    first, second, third = (said(doc, body).id for body in ("First.", "Second.", "Third."))
    alone = delete(delete(doc, second), first)
    assert [m.body for m in restore(alone, doc, second).walk()] == [
        "Second.",
        "Below.\n\nMore of it.",
        "Third.",
    ]
    none = delete(alone, third)
    assert [m.id for m in restore(none, doc, second).walk()] == [m.id for m in doc.message(second).walk()]


def test_what_others_said_below_is_not_brought_back_with_it() -> None:
    doc = parse(TALK)
    child, grandchild = said(doc, "Child.\nMore."), said(doc, "Grandchild.")
    gone = delete(delete(delete(doc, child.id), grandchild.id), child.id)
    assert child.id not in {message.id for message in gone.walk()}
    back = restore(gone, doc, child.id)
    assert back.message(child.id).body == "Child.\nMore." and not back.message(child.id).replies
    assert restore(back, doc, grandchild.id).message(grandchild.id).parent is not None


def test_what_it_answered_may_have_moved_or_got_another_title() -> None:
    doc = parse(NESTED)
    below = said(doc, "Below.\n\nMore of it.")
    gone = delete(doc, below.id)
    renamed, _ = rename(gone, "Tea", "Green tea")
    assert outline(restore(renamed, doc, below.id))[2] == ("Green tea", 1, "bob", below.body)
    moved, ids = move(gone, said(gone, "Second.").id, title="Elsewhere")
    back = restore(moved, doc, below.id)
    assert back.message(ids[said(gone, "Second.").id]).replies[0].body == below.body
    other, _ = post(parse(gone.text + "\n### Milk\n"), "Milk", "eve", "x", NOW)
    merged, _ = merge_threads(other, "Tea", "Milk")
    assert ("Milk", 1, "bob", below.body) in outline(restore(merged, doc, below.id))


def test_where_what_it_answered_is_gone_its_place_comes_back_too() -> None:
    doc = parse(TALK)
    child, grandchild = said(doc, "Child.\nMore."), said(doc, "Grandchild.")
    gone = delete(delete(doc, grandchild.id), child.id)
    back = restore(gone, doc, grandchild.id)
    assert back.message(grandchild.id).body == "Grandchild." and back.message(child.id).deleted
    assert restore(back, doc, child.id).message(child.id).body == child.body


def test_a_place_in_a_thread_with_another_title_is_found() -> None:
    doc = parse(TALK)
    child = said(doc, "Child.\nMore.")
    renamed, ids = rename(delete(doc, child.id), "Tea", "Green tea")
    back = restore(renamed, doc, child.id)
    assert back.text == renamed.text.replace("*(deleted)*", "Child.\n    More.")
    assert back.message(ids[child.id]).body == child.body


def test_at_another_column_and_with_other_line_endings() -> None:
    doc = parse(NESTED)
    below = said(doc, "Below.\n\nMore of it.")
    tabbed = parse(NESTED.replace("- @bob [2025-02-12T01:16:22Z]", " - @bob [2025-02-12T01:16:22Z]"))
    gone = delete(parse(tabbed.text.replace("Second.", "2nd.")), said(tabbed, below.body).id)
    assert (
        "\n   - @bob [2025-02-12T01:18:15Z]: Below.\n\n     More of it.\n"
        in restore(gone, doc, below.id).text
    )
    windows = delete(parse(NESTED.replace("\n", "\r\n")), below.id)
    assert restore(windows, doc, below.id).text == NESTED.replace("\n", "\r\n")


def test_what_stands_or_never_stood_is_refused() -> None:
    doc = parse(TALK)
    child = said(doc, "Child.\nMore.")
    with pytest.raises(Unchanged, match="stands as it was"):
        restore(doc, doc, child.id)
    edited, _ = edit(doc, child.id, "Other words.")
    with pytest.raises(InvalidTarget, match="says something else"):
        restore(edited, doc, child.id)
    with pytest.raises(Unchanged, match="stands as it was"):
        restore(move(doc, child.id, "Coffee")[0], doc, child.id)
    with pytest.raises(UnknownMessage):
        restore(doc, doc, "nope")
    with pytest.raises(DeletedMessage, match="deleted already"):
        restore(doc, delete(doc, child.id), child.id)


def test_an_id_that_another_message_has_by_now_is_not_taken_away() -> None:
    doc, first = post(parse(NESTED), "Tea", "eve", "One.", NOW)
    gone = delete(doc, first.id)
    taken, second = post(gone, "Tea", "eve", "Two.", NOW)
    assert second.id == first.id
    with pytest.raises(InvalidTarget):
        restore(taken, doc, first.id)


# In Git


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


@pytest.fixture
def talk(repo: ConversationRepository) -> Posted:
    """ann's question, answered by bob, who added something."""
    first = repo.start(FILE, "Tea", "ann", "Which tea?", created=NOW)
    answer = repo.reply(FILE, first.message, "bob", "Mint.", created=NOW + timedelta(seconds=1))
    repo.reply(FILE, answer.message, "bob", "Or none.", created=NOW + timedelta(seconds=2))
    return answer


def rewrite(repo: ConversationRepository, change: Callable[[str], str]) -> str:
    """A commit made with an editor and Git alone."""
    path = repo.root / FILE
    path.write_text(change(path.read_text()))
    identity = ("-c", "user.name=Gil", "-c", "user.email=gil@example.org")
    subprocess.run(["git", "-C", str(repo.root), *identity, "commit", "-qam", "by hand"], check=True)
    return repo.head()


class TestInTheRepository:
    """One commit, that says what it did; the deletion is proved by the trees."""

    def test_one_commit_with_its_trailers(self, repo: ConversationRepository, talk: Posted) -> None:
        text = repo.read(FILE).text
        gone = repo.delete(FILE, talk.message, "bob")
        assert len(repo.read(FILE).messages) == 1
        back = repo.restore(
            FILE, talk.message, gone.commit, "bob", trailers={"Understudy-Lesson": "4"}, key="k"
        )
        assert repo.read(FILE).text == text
        assert (back.message, dict(back.moved)) == (talk.message, {})
        [change] = repo.changes(gone.commit)
        assert (change.commit, change.author) == (back.commit, "bob")
        assert (change.operation, change.message) == ("restore", talk.message)
        assert change.trailers["Understudy-Parent"] == repo.read(FILE).messages[0].id
        assert change.trailers["Understudy-Lesson"] == "4"
        assert repo.restore(FILE, talk.message, gone.commit, "bob", key="k") == back
        with pytest.raises(Unchanged):
            repo.restore(FILE, talk.message, gone.commit, "bob")

    def test_the_newest_deletion_is_found(self, repo: ConversationRepository, talk: Posted) -> None:
        below = repo.read(FILE).message(talk.message).replies[0].id
        with pytest.raises(UnknownMessage, match="no commit deleted"):
            repo.deleted_in(FILE, talk.message)
        first = repo.delete(FILE, talk.message, "bob")
        assert repo.deleted_in(FILE, talk.message) == repo.deleted_in(FILE, below) == first.commit
        repo.restore(FILE, below, first.commit, "bob")
        assert [m.deleted for m in repo.read(FILE).messages] == [False, True, False]
        repo.restore(FILE, talk.message, first.commit, "bob")
        second = repo.delete(FILE, talk.message, "bob")
        assert repo.deleted_in(FILE, talk.message) == second.commit

    def test_a_deletion_by_hand_can_be_undone(self, repo: ConversationRepository, talk: Posted) -> None:
        text = repo.read(FILE).text
        commit = rewrite(repo, lambda before: before[: before.index("  - @bob")])
        assert repo.deleted_in(FILE, talk.message) == commit
        repo.restore(FILE, talk.message, commit, "bob")
        assert outline(repo.read(FILE)) == outline(parse(text))

    def test_a_commit_that_did_not_delete_it_is_refused(
        self, repo: ConversationRepository, talk: Posted
    ) -> None:
        moved = repo.move(FILE, talk.message, None, "ann", title="Mint")
        forged = rewrite(repo, lambda text: text.replace("Which tea?", "Which?"))
        repo.delete(FILE, moved.message, "bob")
        for commit in (moved.commit, forged, talk.commit):
            with pytest.raises(InvalidTarget, match="did not delete"):
                repo.restore(FILE, talk.message, commit, "bob")
        with pytest.raises(UnknownRevision):
            repo.restore(FILE, talk.message, "0" * 40, "bob")
        assert len(repo.read(FILE).messages) == 1

    def test_who_may(self, repo: ConversationRepository, talk: Posted) -> None:
        repo.set_participants(
            '[participants.ann]\nrights = ["admin"]\n[participants.bob]\nrights = ["post"]\n'
            '[participants.eve]\nrights = ["post"]\n[participants.mo]\nrights = ["moderate"]\n',
            "ann",
        )
        gone = repo.delete(FILE, talk.message, "mo").commit
        for name, said in (("eve", "'moderate'"), ("stranger", "knows no")):
            with pytest.raises(NotAllowed, match=said):
                repo.restore(FILE, talk.message, gone, name)
        with pytest.raises(NotAllowed, match="may not read"):
            repo.deleted_in(FILE, talk.message, reader="stranger")
        repo.restore(FILE, talk.message, gone, "bob")
        repo.delete(FILE, talk.message, "bob")
        repo.restore(FILE, talk.message, repo.head(), "mo")

    def test_its_history_goes_on_across_the_gap(self, repo: ConversationRepository, talk: Posted) -> None:
        repo.edit(FILE, talk.message, "bob", "Green.")
        gone = repo.delete(FILE, talk.message, "bob")
        renamed = repo.rename(FILE, "Tea", "Teas", "ann")
        back = repo.restore(FILE, talk.message, gone.commit, "ann")
        assert back.moved[talk.message] == back.message != talk.message
        for number, wordings in enumerate((["Mint.", "Green.", "", "Green."], ["Or none.", "", "Or none."])):
            found = repo.history(FILE, list(back.moved.values())[number])
            assert [one.body for one in found] == wordings
            assert [one.deleted for one in found] == [one == "" for one in wordings]
            assert found[-2].commit == gone.commit and found[-1].commit == back.commit
            assert (found[-2].author, found[-1].author) == ("bob", "ann")
        assert renamed.commit not in {one.commit for one in repo.history(FILE, back.message)}

    def test_a_place_that_was_taken_away_too(self, repo: ConversationRepository, talk: Posted) -> None:
        first = repo.read(FILE).messages[0].id
        begun = repo.delete(FILE, first, "ann")
        repo.delete(FILE, talk.message, "bob")
        repo.delete(FILE, first, "ann")
        assert not repo.read(FILE).messages
        repo.restore(FILE, first, begun.commit, "ann")
        assert [(one.body, one.deleted) for one in repo.history(FILE, first)] == [
            ("Which tea?", False),
            ("", True),
            ("Which tea?", False),
        ]

    def test_permanent_links_lead_there_again(self, repo: ConversationRepository, talk: Posted) -> None:
        index = Index(repo)
        link = index.anchor(FILE, talk.message)
        gone = repo.delete(FILE, talk.message, "bob")
        with pytest.raises(UnknownMessage, match="deleted"):
            index.resolve(link)
        repo.restore(FILE, talk.message, gone.commit, "bob")
        assert index.resolve(link).id == talk.message
