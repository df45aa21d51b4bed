"""A corpus of people's own data: scores in conversations and in lines, lessons, the split, the folder."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.concepts import (
    CannotCollect,
    Collected,
    ScoredMessage,
    TextPair,
    held_lessons,
    is_lesson_file,
    lessons_in_lines,
    load_corpus,
    near_duplicates,
    pair_lessons,
    pair_scored,
    preflight,
    publishing,
    read_score_line,
    scored_in_conversations,
    scored_in_lines,
    split_scores,
    write_corpus,
)
from understudy.conversation import ConversationRepository
from understudy.lessons import ChatMessage, Ledger, Lesson, LessonFormat, Source, digest

FILE = "conversations/talk.md"
MODEL = "parrot"
SOURCE = Source("", "", "m", "", "ann", "")
PLACE = re.compile(
    r"(paired/[0-9a-f]{12}/([a-z][a-z0-9_-]*\.txt|context\.json)|stories/[a-z][a-z0-9_-]*/[0-9a-f]{12}\.txt)"
)


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


def lines(file: Path, *rows: object) -> Path:
    file.write_text("\n\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


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


# Pairs of scored messages


def scored(text: str, *scores: tuple[str, float], answers: str = "", of: str = "talk") -> ScoredMessage:
    context = (ChatMessage("user", answers),) if answers else ()
    return ScoredMessage(text, context, of, f"{of}#{len(text)}", scores)


def warm(text: str, score: float, answers: str = "", of: str = "talk") -> ScoredMessage:
    return scored(text, ("warmth", score), answers=answers, of=of)


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


def lesson(number: int, rejected: str | None = "Go for a walk.", chosen: str = "I hear you") -> Lesson:
    context = (ChatMessage("user", f"Day {number} was long, and number {number * 7} was late again."),)
    return Lesson(context, f"{chosen}: {number} is hard, {number * 3} harder.", rejected, SOURCE)


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


# The corpus


def pairs_of(count: int) -> tuple[TextPair, ...]:
    rejected = [f"Try {' '.join(f'r{n}x{k}' for k in range(9))}." for n in range(count)]
    return pair_lessons([lesson(n, rejected[n]) for n in range(count)], "listening").pairs


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_corpus_reads_as_it_was_collected(tmp_path: Path) -> None:
    pairs = pairs_of(10)
    corpus = write_corpus(tmp_path / "new" / "corpus", pairs, hold_out=0.3)
    assert corpus == load_corpus(tmp_path / "new" / "corpus") and corpus.concepts == ("listening",)
    found = {
        (one.text, other.text, one.context)
        for split in ("train", "held_out")
        for one, other in corpus.pairs("listening", split)
    }
    assert found == {(pair.positive, pair.negative, pair.context) for pair in pairs}
    assert len(corpus.pairs("listening", "held_out")) == 3
    assert corpus.manifest.sources[pairs[0].paths[0]] == f"lesson {pairs[0].scene}"
    assert preflight(corpus) == ()
    everything = {file.relative_to(corpus.folder).as_posix() for file in corpus.folder.rglob("*.*")}
    assert all(PLACE.fullmatch(path) for path in everything - {"manifest.json"})
    assert names(tmp_path / "new") == ["corpus"]  # nothing was left beside it


@pytest.mark.parametrize(
    ("count", "share", "held_out"),
    [(1, 0.3, 0), (2, 0.3, 1), (2, 0.9, 1), (10, 0.5, 5), (10, 0.0, 0), (10, 0.01, 1)],
)
def test_the_share_that_is_held_out(tmp_path: Path, count: int, share: float, held_out: int) -> None:
    corpus = write_corpus(tmp_path / "corpus", pairs_of(count), hold_out=share)
    assert len(corpus.pairs("listening", "held_out")) == held_out


def test_whole_scenes_are_held_out_whichever_order_the_pairs_come_in(tmp_path: Path) -> None:
    pairs = pairs_of(12)
    one = write_corpus(tmp_path / "one", pairs)
    other = write_corpus(tmp_path / "other", reversed(pairs))
    assert one.digest == other.digest
    held_out = {text.scene for text in one.of("held_out")}
    assert held_out and not held_out & {text.scene for text in one.of("train")}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 9)), min_size=2, max_size=14
    ),
    st.floats(0.01, 0.99),
)
def test_nothing_of_one_split_is_almost_the_same_as_of_the_other(
    rows: list[tuple[str, int, int]], share: float
) -> None:
    messages = []
    for answers, body, score in rows:
        text = " ".join(f"w{body}x{k}" for k in range(8)) + f" {score}"
        messages.append(warm(text, float(score), answers, answers))
    found = pair_scored(messages, high=6, low=5)
    if not found.pairs:
        return
    with TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus", found.pairs, hold_out=share)
    assert all(pair.first.split == pair.second.split for pair in near_duplicates(corpus.texts))
    splits = {(text.context, text.split) for text in corpus.texts if text.context}
    assert len(splits) == len({context for context, _ in splits})
    assert corpus.of("train")


def test_only_a_new_or_empty_folder_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert write_corpus(tmp_path / "empty", pairs_of(2)).concepts == ("listening",)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for taken in ("empty", "mine", "file"):
        with pytest.raises(CannotCollect, match="nothing was changed"):
            write_corpus(tmp_path / taken, pairs_of(2))
    assert names(tmp_path) == ["empty", "file", "mine"] and names(tmp_path / "mine") == ["letter.txt"]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(CannotCollect, match="hold out"):
        write_corpus(tmp_path / "corpus", pairs_of(2), hold_out=share)
    with pytest.raises(CannotCollect, match="nothing was written"):
        write_corpus(tmp_path / "corpus", ())
    assert names(tmp_path) == []


@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("verb", ["_write_pair", "_sync", "write_manifest"])
def test_what_ends_early_leaves_no_half_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, verb: str
) -> None:
    real, calls = getattr(publishing, verb), []

    def failing(*words: object) -> None:
        calls.append(words)
        if len(calls) == (1 if verb == "write_manifest" else 3):
            raise fault
        real(*words)

    monkeypatch.setattr(publishing, verb, failing)
    with pytest.raises((CannotCollect, KeyboardInterrupt)):
        write_corpus(tmp_path / "corpus", pairs_of(4))
    assert names(tmp_path) == []


def test_a_folder_that_is_filled_meanwhile_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(folder: Path, manifest: object) -> None:
        (tmp_path / "corpus").mkdir()
        (tmp_path / "corpus" / "letter.txt").write_text("dear")

    monkeypatch.setattr(publishing, "write_manifest", meanwhile)
    with pytest.raises(CannotCollect):
        write_corpus(tmp_path / "corpus", pairs_of(4))
    assert names(tmp_path / "corpus") == ["letter.txt"] and names(tmp_path) == ["corpus"]


def test_a_killed_process_leaves_no_corpus_and_is_in_nobodys_way(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from understudy.concepts import TextPair, publishing
publishing.write_manifest = lambda folder, manifest: os.kill(os.getpid(), signal.SIGKILL)
pair = TextPair("warmth", "Yes.", "No.", "0" * 12, ("", ""))
publishing.write_corpus(Path({str(tmp_path)!r}) / "corpus", [pair])
"""
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".corpus.") and left.endswith(".partial")
    assert write_corpus(tmp_path / "corpus", pairs_of(4)) == load_corpus(tmp_path / "corpus")
