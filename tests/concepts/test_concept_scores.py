"""Messages that people scored, in conversations and in JSON Lines: the scores never stay in the text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_data import lines

from understudy.concepts import (
    CannotCollect,
    ScoredMessage,
    is_lesson_file,
    lessons_in_lines,
    read_score_line,
    scored_in_conversations,
    scored_in_lines,
    split_scores,
)
from understudy.conversation import ConversationRepository
from understudy.lessons import ChatMessage

FILE = "conversations/talk.md"
MODEL = "parrot"


# Score lines


@pytest.mark.parametrize(
    ("line", "scores"),
    [
        ("warmth:9 clarity:10", (("warmth", 9.0), ("clarity", 10.0))),
        ("  warmth:7.25\tto-the_point2:0 ", (("warmth", 7.25), ("to-the_point2", 0.0))),
        ("warmth:10.0", (("warmth", 10.0),)),
        *(
            (line, ())
            for line in ("", "warmth", "warmth: 9", "warmth:11", "warmth:-1", "warmth:9.", "warmth:9,5")
        ),
        *(
            (line, ())
            for line in ("Warmth:9", "9:warmth", "warmth:9 and more", "port:8080", "../up:9", "warmth:٣")
        ),
        ("a" * 65 + ":9", ()),
    ],
)
def test_a_score_line_is_nothing_but_names_and_numbers(line: str, scores: object) -> None:
    assert read_score_line(line) == scores


NUMBERS = st.floats(0, 10).map(lambda number: f"{number:.3f}")
SCORE_LINES = st.lists(
    st.tuples(st.from_regex(r"\A[a-z][a-z0-9_-]{0,9}\Z"), NUMBERS), min_size=1, max_size=3
).map(lambda pairs: " ".join(":".join(pair) for pair in pairs))


@given(st.text(), st.lists(SCORE_LINES, max_size=3), st.sampled_from(["\n", "\n\n", "\r\n", " \n\t\n"]))
def test_no_score_line_stays_at_the_end_of_a_text(body: str, lines: list[str], between: str) -> None:
    text, scores = split_scores(between.join([body, *lines]))
    pairs = [pair.split(":") for line in lines for pair in line.split()]
    given_ones = tuple((name, float(number)) for name, number in pairs)
    assert scores[len(scores) - len(given_ones) :] == given_ones
    if lines and not split_scores(body)[1]:
        assert text == body.rstrip() and scores == given_ones
    assert split_scores(text)[1] == ()


# Conversations


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


def by_text(found: Sequence[ScoredMessage]) -> dict[str, ScoredMessage]:
    assert len({one.text for one in found}) == len(found)
    return {one.text: one for one in found}


def test_messages_score_themselves_and_what_they_answer(repo: ConversationRepository) -> None:
    asked = repo.start(FILE, "Tea", "ann", f"@{MODEL} Which tea?")
    answer = repo.reply(FILE, asked.message, MODEL, "Mint, I think.\n\nIt calms.")
    repo.reply(FILE, answer.message, "bob", "warmth:8 clarity:4")
    repo.reply(FILE, answer.message, "ann", "warmth:6")
    other = repo.reply(FILE, asked.message, "bob", "Any.\nwarmth:1.5")
    repo.reply(FILE, other.message, "ann", "I like warmth:9 better.")
    found = by_text(scored_in_conversations(repo, MODEL))
    assert set(found) == {"Mint, I think.\n\nIt calms.", "Any."}
    good, bad = found["Mint, I think.\n\nIt calms."], found["Any."]
    assert good.scores == (("warmth", 8.0), ("clarity", 4.0), ("warmth", 6.0))
    assert bad.scores == (("warmth", 1.5),)
    assert good.context == bad.context == (ChatMessage("user", "Which tea?"),)
    assert good.conversation == FILE and good.source == f"{FILE}#{answer.message}"


def test_score_lines_are_not_in_what_a_message_answers_either(repo: ConversationRepository) -> None:
    asked = repo.start(FILE, "Tea", "ann", "Which tea?\nwarmth:5")
    answer = repo.reply(FILE, asked.message, MODEL, "Mint.\n\nwarmth:9")
    score = repo.reply(FILE, answer.message, "ann", "warmth:3")
    again = repo.reply(FILE, score.message, "ann", "And why?")
    repo.reply(FILE, again.message, MODEL, "It calms.\nwarmth:9")
    found = by_text(scored_in_conversations(repo, MODEL))
    assert found["It calms."].context == (
        ChatMessage("user", "Which tea?"),
        ChatMessage("assistant", "Mint."),
        ChatMessage("user", "And why?"),
    )
    assert found["Which tea?"].context == ()
    assert dict(found["Mint."].scores) == {"warmth": 3.0}  # the later of the two
    assert "warmth" not in repr([one.context for one in found.values()])


def test_what_a_person_says_after_the_model_or_themselves_is_no_answer_of_the_models(
    repo: ConversationRepository,
) -> None:
    asked = repo.start(FILE, "Tea", "ann", "Which tea?")
    more = repo.reply(FILE, asked.message, "ann", "For the night.\nwarmth:2")
    answer = repo.reply(FILE, more.message, MODEL, "Mint.")
    repo.reply(FILE, answer.message, "bob", "Thank you!\nwarmth:9")
    assert [one.context for one in scored_in_conversations(repo, MODEL)] == [(), ()]


def test_scores_of_nothing_and_deleted_messages_are_passed_over(repo: ConversationRepository) -> None:
    lonely = repo.start(FILE, "Tea", "ann", "warmth:9")
    repo.reply(FILE, lonely.message, "bob", "clarity:9")
    gone = repo.post(FILE, "Tea", "ann", "Rude.\nwarmth:1")
    repo.reply(FILE, gone.message, "bob", "warmth:0")
    repo.delete(FILE, gone.message, "ann")
    assert scored_in_conversations(repo, MODEL) == []


# JSON Lines


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_messages_of_lines_have_scores_in_four_ways(tmp_path: Path) -> None:
    row = {
        "messages": [
            said("system", "Be kind."),
            said("user", "Which tea?\nwarmth:4"),
            said("assistant", "Mint.", scores={"warmth": 9}, id=7),
            said("user", "And?"),
            said("assistant", "Rest.\nwarmth:8", scores="clarity:7 warmth:6"),
            said("user", "warmth:2"),
            said("assistant", "Ask me.\nwarmth:1"),
        ],
        "made": "elsewhere",
    }
    found = by_text(scored_in_lines(lines(tmp_path / "a.jsonl", row)))
    assert {text: one.scores for text, one in found.items()} == {
        "Which tea?": (("warmth", 4.0),),
        "Mint.": (("warmth", 9.0),),
        "Rest.": (("warmth", 8.0), ("clarity", 7.0), ("warmth", 6.0), ("warmth", 2.0)),
        "Ask me.": (("warmth", 1.0),),
    }
    assert found["Which tea?"].context == found["Ask me."].context == ()
    assert found["Mint."].context == (ChatMessage("system", "Be kind."), ChatMessage("user", "Which tea?"))
    assert found["Rest."].context[2:] == (ChatMessage("assistant", "Mint."), ChatMessage("user", "And?"))
    assert found["Rest."].source == "a.jsonl line 1"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{", "truncated"),
        ("[]", "object"),
        ({"text": "x"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [said("user", "warmth:9")]}, "no message before it"),
        ({"messages": [said("user", "x", scores="warmth:11")]}, "'warmth:11'"),
        ({"messages": [said("user", "x", scores={"warmth": 11})]}, "<= 10"),
        ({"messages": [said("user", "x", scores={"warmth": "9"})]}, "float"),
        ({"messages": [said("user", "x", scores={"../up": 9})]}, "regex"),
        ({"messages": [said("user", "x", scores={"warmth\n": 9})]}, "regex"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "line 3"),
    ],
)
def test_a_line_that_is_something_else_is_named(tmp_path: Path, row: object, expected: str) -> None:
    file = lines(tmp_path / "a.jsonl", {"messages": [said("user", "x\nwarmth:9")]}, row)
    with pytest.raises(CannotCollect, match=r"a\.jsonl, line 3: expected") as caught:
        scored_in_lines(file)
    assert expected in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (scored_in_lines, is_lesson_file, lessons_in_lines):
        with pytest.raises(CannotCollect, match=r"nothing\.jsonl"):
            read(tmp_path / "nothing.jsonl")
