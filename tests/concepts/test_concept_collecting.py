"""Pairs of scored messages and of lessons: each text shows one concept, or none."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_data import SOURCE, lesson, lines, scored, warm

from understudy.concepts import (
    CannotCollect,
    Collected,
    ScoredMessage,
    held_lessons,
    is_lesson_file,
    lessons_in_lines,
    pair_lessons,
    pair_scored,
)
from understudy.lessons import ChatMessage, Ledger, Lesson, LessonFormat, Source, digest

FILE = "conversations/talk.md"


# Pairs of scored messages


def matched(found: Collected) -> set[tuple[str, str, str]]:
    return {(pair.concept, pair.positive, pair.negative) for pair in found.pairs}


def test_thresholds_part_what_shows_a_concept_from_what_does_not() -> None:
    messages = [warm("seven", 7), warm("three", 3), warm("between", 6.9), warm("low", 3.1)]
    assert matched(pair_scored(messages)) == {("warmth", "seven", "three")}
    assert matched(pair_scored(messages, high=6.9, low=3.1)) == {
        ("warmth", "seven", "three"),
        ("warmth", "between", "low"),
    }


@pytest.mark.parametrize(("high", "low"), [(3, 3), (2, 7), (11, 3), (7, -1), (float("nan"), 3)])
def test_thresholds_in_the_wrong_order_are_refused(high: float, low: float) -> None:
    with pytest.raises(CannotCollect, match="low < high"):
        pair_scored([warm("a", 9), warm("b", 1)], high=high, low=low)


def test_a_positive_takes_the_same_question_then_the_same_conversation_then_the_nearest_length() -> None:
    messages = [
        warm("good", 9, "Which tea?", "one"),
        warm("this answers the same and is long", 1, "Which tea?", "two"),
        warm("nice", 9, "", "three"),
        warm("of the same conversation", 1, "", "three"),
        warm("of no conversation", 9, "", "four"),
        warm("nearly as long one", 1, "", "five"),
    ]
    pairs = {pair.positive: pair for pair in pair_scored(messages).pairs}
    assert {one: pair.negative for one, pair in pairs.items()} == {
        "good": "this answers the same and is long",
        "nice": "of the same conversation",
        "of no conversation": "nearly as long one",
    }
    together, apart = pairs["good"], pairs["nice"]
    assert together.context == (ChatMessage("user", "Which tea?"),)
    assert together.paths == (f"paired/{together.scene}/warmth.txt", f"paired/{together.scene}/baseline.txt")
    assert apart.context == () and apart.paths == (
        f"stories/warmth/{apart.scene}.txt",
        f"stories/not_warmth/{apart.scene}.txt",
    )


def test_answers_to_different_messages_are_stories_without_what_they_answer() -> None:
    (pair,) = pair_scored([warm("good", 9, "Which tea?"), warm("bad", 1, "Which cup?")]).pairs
    assert not pair.together and pair.context == () and pair.against == "not_warmth"


def test_each_negative_is_used_once_and_who_has_none_left_is_counted() -> None:
    found = pair_scored([warm("a", 9), warm("bb", 9), warm("ccc", 9), warm("no", 1)])
    assert len(found.pairs) == 1
    assert found.left_out == {"messages that show warmth, with none left that does not": 2}


def test_the_mean_of_several_peoples_scores_counts_and_duplicates_once() -> None:
    messages = [
        warm("torn", 10),
        warm("torn", 1),
        warm("good", 9),
        warm("good", 7),
        warm("bad", 0),
        warm("bad", 2),
    ]
    assert matched(pair_scored(messages)) == {("warmth", "good", "bad")}


def test_the_same_words_to_different_questions_are_one_story() -> None:
    messages = [
        warm("Mint.", 9, "Which tea?"),
        warm("Mint.", 9, "Which leaf?"),
        warm("No.", 1),
        warm("Go.", 1),
    ]
    found = pair_scored(messages)
    assert len(found.pairs) == 1
    assert found.left_out == {"messages that show warmth in words that are there already": 1}
    torn = pair_scored([warm("Mint.", 9, "Which tea?"), warm("Mint.", 1, "Which car?")])
    assert torn.pairs == ()


def test_a_text_shows_one_of_the_concepts_or_none() -> None:
    both = scored("both", ("warmth", 9), ("clarity", 9))
    mixed = scored("mixed", ("warmth", 1), ("clarity", 9))
    messages = [both, mixed, warm("warm one", 9), warm("cold", 1), scored("mud", ("clarity", 1))]
    found = pair_scored(messages)
    assert matched(found) == {("warmth", "warm one", "cold"), ("clarity", "mixed", "mud")}
    assert found.left_out == {"messages that show several of the concepts": 1}
    alone = pair_scored(messages, ("warmth",))
    assert {pair.positive for pair in alone.pairs} == {"both", "warm one"}
    assert {pair.negative for pair in alone.pairs} == {"mixed", "cold"}


def test_concepts_are_those_that_have_scores() -> None:
    with pytest.raises(CannotCollect, match=r"\(warmth\), got 'wit'"):
        pair_scored([warm("a", 9)], ("wit",))
    with pytest.raises(CannotCollect, match=r"\(none is\), got 'wit'"):
        pair_scored([], ("wit",))
    with pytest.raises(CannotCollect, match="'not_warmth' beside 'warmth'"):
        pair_scored([warm("a", 9), scored("b", ("not_warmth", 9))])
    with pytest.raises(CannotCollect, match="not 'baseline'"):
        pair_scored([scored("b", ("baseline", 9))])


NAMED = st.sampled_from(["warmth", "clarity", "wit"])
MESSAGES = st.lists(
    st.builds(
        lambda text, scores, answers, of: scored(text, *scores, answers=answers, of=of),
        st.text("abc ", min_size=1, max_size=6).filter(str.strip).map(str.strip),
        st.lists(st.tuples(NAMED, st.integers(0, 10).map(float)), min_size=1, max_size=3),
        st.sampled_from(["", "Which?", "Why?"]),
        st.sampled_from(["one", "two"]),
    ),
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(MESSAGES, st.randoms())
def test_no_text_is_used_twice_and_the_order_of_the_messages_is_no_matter(
    messages: list[ScoredMessage], random: Any
) -> None:
    found = pair_scored(messages)
    stories = [text for pair in found.pairs if not pair.together for text in (pair.positive, pair.negative)]
    answers = [
        (pair.context, text)
        for pair in found.pairs
        if pair.together
        for text in (pair.positive, pair.negative)
    ]
    assert len(set(stories)) == len(stories) and len(set(answers)) == len(answers)
    for pair in found.pairs:
        own = [one.scores for one in messages if one.text == pair.positive]
        assert any(name == pair.concept and score >= 7 for scores in own for name, score in scores)
    random.shuffle(messages)
    assert matched(pair_scored(messages)) == matched(found)


# Lessons


def test_lessons_are_baselines_or_show_another_concept() -> None:
    (pair,) = pair_lessons([lesson(1)], "listening").pairs
    scene = digest(lesson(1))[:12]
    assert pair.paths == (f"paired/{scene}/listening.txt", f"paired/{scene}/baseline.txt")
    assert (pair.positive, pair.negative) == ("I hear you: 1 is hard, 3 harder.", "Go for a walk.")
    assert pair.context == lesson(1).context
    (told,) = pair_lessons([lesson(1), lesson(1)], "listening", "suggesting").pairs  # the same one once
    assert told.paths[1] == f"paired/{scene}/suggesting.txt"


def test_lessons_that_tell_nothing_apart_are_counted() -> None:
    same = Lesson((), "Well done.\n\nwarmth:9", "Well  done.", SOURCE)
    found = pair_lessons([lesson(1, None), lesson(2, " "), same, lesson(3)], "listening")
    assert len(found.pairs) == 1
    assert found.left_out == {"lessons with one answer alone": 2, "lessons whose answers say the same": 1}


def test_score_lines_and_halves_of_letters_do_not_stay_in_lessons() -> None:
    context = (ChatMessage("user", "Hm?\nwarmth:2"), ChatMessage("user", "warmth:2"))
    (pair,) = pair_lessons(
        [Lesson(context, "Yes \ud800.\nwarmth:9", "No.\nwarmth:1", SOURCE)], "listening"
    ).pairs
    assert (pair.positive, pair.negative) == ("Yes ?.", "No.")
    assert pair.context == (ChatMessage("user", "Hm?"),)


@pytest.mark.parametrize(
    "names",
    [
        ("Listening", None),
        ("../up", None),
        ("a/b", None),
        ("", None),
        ("baseline", None),
        ("a", "b c"),
        ("a", "a"),
    ],
)
def test_names_that_are_none_are_refused(names: tuple[str, str | None]) -> None:
    with pytest.raises(CannotCollect, match="expected"):
        pair_lessons([lesson(1)], *names)


def test_lessons_of_the_ledger_that_someone_stands_by(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ids = [ledger.propose(replaced).entry.id for replaced in (lesson_of(number) for number in range(3))]
    ledger.approve(ids[1], "ann")
    ledger.refuse(ids[2], "ann", "no")
    assert [digest(one) for one in held_lessons(ledger)] == [ids[1]]
    assert [digest(one) for one in held_lessons(ledger, ("refused", "proposed"))] == [ids[0], ids[2]]


def lesson_of(number: int) -> Lesson:
    """A lesson of a message of its own: another of the same message would supersede it."""
    source = Source(FILE, "Tea", f"message {number}", "", "ann", "")
    return Lesson(lesson(number).context, lesson(number).chosen, lesson(number).rejected, source)


def test_lessons_of_a_file_and_what_is_none(tmp_path: Path) -> None:
    good = {"prompt": "Long day.", "chosen": "I hear you.", "rejected": "Walk."}
    file = lines(tmp_path / "lessons.jsonl", good)
    assert is_lesson_file(file) and [one.chosen for one in lessons_in_lines(file)] == ["I hear you."]
    assert not is_lesson_file(lines(tmp_path / "scored.jsonl", {"messages": []}))
    assert not is_lesson_file(lines(tmp_path / "broken.jsonl", "{"))
    with pytest.raises(LessonFormat, match="line 3"):
        lessons_in_lines(lines(tmp_path / "half.jsonl", good, {"prompt": "x", "chosen": "y"}))
