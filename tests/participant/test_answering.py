"""When the model answers, with what context, and under whose name."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.conversation import ConversationRepository, UnknownMessage, parse
from understudy.lessons import ChatMessage, Note, moves
from understudy.participant import Answer, EmptyAnswer, NothingToAnswer, answer, due

FILE = "conversations/talk.md"
NAME = "understudy"


@pytest.fixture
def repository(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


def echo(chat: tuple[ChatMessage, ...]) -> Answer:
    return Answer("|".join(f"{turn.role}:{turn.content}" for turn in chat), "abc123")


def test_the_reply_has_the_ancestor_path_as_context_and_names_its_weights(
    repository: ConversationRepository,
) -> None:
    root = repository.start(FILE, "Tea", "maya", "@understudy Which tea?").message
    repository.reply(FILE, root, "tom", "None of this is on the path.")
    first = answer(repository, FILE, root, NAME, echo)
    second = repository.reply(FILE, first.message, "maya", "And to eat?").message
    posted = answer(repository, FILE, second, NAME, echo)
    said = repository.read(FILE).message(posted.message)
    assert said.author == NAME
    assert said.parent is not None and said.parent.id == second
    assert said.body == "user:Which tea?|assistant:user:Which tea?|user:And to eat?"
    trailers = repository.trailers(posted.commit)
    assert trailers["Understudy-Weights"] == "abc123"
    assert trailers["Understudy-Parent"] == second


def test_before_the_first_weight_commit_the_reply_says_initial(repository: ConversationRepository) -> None:
    root = repository.start(FILE, "Tea", "maya", "Which tea?").message
    posted = answer(repository, FILE, root, NAME, lambda chat: Answer("Mint.", None))
    assert repository.trailers(posted.commit)["Understudy-Weights"] == "initial"


def test_nothing_is_posted_when_there_is_nothing_to_post(repository: ConversationRepository) -> None:
    root = repository.start(FILE, "Tea", "maya", "Which tea?").message
    own = answer(repository, FILE, root, NAME, echo).message
    head = repository.head()
    with pytest.raises(NothingToAnswer, match="is its own"):
        answer(repository, FILE, own, NAME, echo)
    with pytest.raises(EmptyAnswer, match="no reply was posted"):
        answer(repository, FILE, root, NAME, lambda chat: Answer("  \n", None))
    with pytest.raises(UnknownMessage, match="nowhere"):
        answer(repository, FILE, "nowhere", NAME, echo)
    assert repository.head() == head


def test_a_deleted_message_is_neither_answered_nor_read(repository: ConversationRepository) -> None:
    root = repository.start(FILE, "Tea", "maya", "@understudy Which tea?").message
    gone = repository.reply(FILE, root, "maya", "@understudy A secret.").message
    last = repository.reply(FILE, gone, "tom", "@understudy And now?").message
    repository.delete(FILE, gone, "maya")
    now = repository.read(FILE)
    assert now.message(gone).deleted
    assert gone not in [m.id for m in due(None, now, now, NAME)]
    with pytest.raises(NothingToAnswer, match="was deleted"):
        answer(repository, FILE, gone, NAME, echo)
    posted = answer(repository, FILE, last, NAME, echo).message
    said = repository.read(FILE).message(posted)
    assert "secret" not in said.body and "And now?" in said.body


def test_a_moved_message_is_not_new(repository: ConversationRepository) -> None:
    root = repository.start(FILE, "Tea", "maya", "@understudy Which tea?").message
    repository.start(FILE, "Drinks", "tom", "All drinks.")
    before = repository.read(FILE)
    repository.move(FILE, root, "Drinks", "maya")
    [change] = list(repository.changes())[-1:]
    now = repository.read(FILE)
    assert due(before, now, now, NAME, moves(change).values()) == []
    assert due(before, now, now, NAME) != []


THREAD = """### Tea

- @maya [2026-01-01T10:00:00Z]: {}
"""


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("@understudy which tea?", True),
        ("Which tea, @understudy?", True),
        ("Which tea, @understudy", True),
        ("(@understudy) which tea?", True),
        ("@understudy. Which tea?", True),
        ("Which tea?", False),
        ("mail maya@understudy about tea", False),
        ("@understudy.org sells tea", False),
        ("@understudy-two which tea?", False),
        ("@understudies which tea?", False),
    ],
)
def test_a_message_waits_when_it_mentions_the_model(text: str, waits: bool) -> None:
    after = parse(THREAD.format(text))
    assert bool(due(None, after, after, NAME)) is waits


def test_a_reply_to_the_model_waits_until_it_is_answered(repository: ConversationRepository) -> None:
    root = repository.start(FILE, "Tea", "maya", "@understudy Which tea?").message
    empty = repository.read(FILE)
    own = answer(repository, FILE, root, NAME, echo).message
    before = repository.read(FILE)
    asked = repository.reply(FILE, own, "tom", "Why?").message
    after = repository.read(FILE)
    assert [m.id for m in due(before, after, after, NAME)] == [asked]
    assert [m.id for m in due(None, empty, after, NAME)] == [], "answered since"
    answer(repository, FILE, asked, NAME, echo)
    now = repository.read(FILE)
    assert due(before, after, now, NAME) == []
    assert due(after, now, now, NAME) == [], "the model does not answer itself"


@given(st.text(alphabet="@understdy -._x\n", max_size=40))
def test_asking_whether_to_answer_never_fails(text: str) -> None:
    after = parse(f"### T\n\n- @a [2026-01-01T00:00:00Z]: {text}")
    assert isinstance(due(None, after, after, NAME), list)


def test_notes_are_put_before_the_context_and_named_in_the_commit(repository: ConversationRepository) -> None:
    notes = (Note("house", "The cat is called Mo."), Note("tea", "Mint only."))
    root = repository.start(FILE, "Tea", "maya", "@understudy Which tea?").message
    posted = answer(repository, FILE, root, NAME, echo, notes)
    said = repository.read(FILE).message(posted.message).body
    assert said.startswith("system:# house") and said.endswith("Mint only.|user:Which tea?")
    trailers = repository.trailers(posted.commit)
    assert trailers["Understudy-Weights"] == "abc123"
    assert trailers["Understudy-Notes"] == ", ".join(f"{note.name} {note.digest}" for note in notes)
    plain = answer(repository, FILE, root, NAME, echo)
    assert "Understudy-Notes" not in repository.trailers(plain.commit)
    assert repository.read(FILE).message(plain.message).body == "user:Which tea?"
