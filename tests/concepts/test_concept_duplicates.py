"""Near duplicates: the same as all pairs compared one by one, and joined by chains."""

from itertools import combinations
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.concepts import RESEMBLANCE, Text, near_duplicates
from understudy.lessons import ChatMessage

WORDS = ("the", "lake", "lay", "flat", "under", "a", "grey", "sky", "while", "she", "counted", "boats")


def text(path: str, body: str, answers: str | None = None) -> Text:
    context = () if answers is None else (ChatMessage("user", answers),)
    return Text(path, "story", "calm", path, "train", body, context)


def resemblance(one: str, other: str) -> float:
    """Broder's, with runs of three words, as its definition says."""
    sets = []
    for body in (one, other):
        words = body.casefold().split()
        sets.append({" ".join(words[start : start + 3]) for start in range(max(1, len(words) - 2))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def groups(pairs: set[tuple[str, str]], paths: list[str]) -> set[frozenset[str]]:
    found = {path: {path} for path in paths}
    for one, other in pairs:
        both = found[one] | found[other]
        found |= dict.fromkeys(both, both)
    return {frozenset(group) for group in found.values()}


BODIES = st.lists(st.sampled_from(WORDS[:5]), min_size=1, max_size=9).map(" ".join)
ANSWERED = st.none() | st.lists(st.sampled_from(WORDS[:3]), min_size=3, max_size=5).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(BODIES, ANSWERED), max_size=9), st.sampled_from([0.2, 0.5, RESEMBLANCE, 0.9, 1.0]))
def test_the_groups_are_those_of_all_pairs_compared(
    given_texts: list[tuple[str, str | None]], threshold: float
) -> None:
    texts = [text(str(number), *one) for number, one in enumerate(given_texts)]
    expected = set()
    for one, other in combinations(texts, 2):
        shares = [resemblance(one.text, other.text)]
        if one.context and other.context:
            shares.append(resemblance(one.context[0].content, other.context[0].content))
        if bool(one.context) == bool(other.context) and min(shares) >= threshold:
            expected.add((one.path, other.path))
    found = list(near_duplicates(texts, threshold))
    paths = [one.path for one in texts]
    assert groups({(one.first.path, one.second.path) for one in found}, paths) == groups(expected, paths)
    for near in found:
        assert threshold <= near.share <= resemblance(near.first.text, near.second.text) + 1e-12


@pytest.mark.parametrize("opening", WORDS)
def test_a_text_within_another_is_found_at_the_threshold_itself(opening: str) -> None:
    """What the two share is more common than what they do not: three runs of five, so 0.6."""
    short = f"{opening} b c d e"
    (found,) = near_duplicates([text("long", f"{short} f g"), text("short", short)], 0.6)
    assert found.share == pytest.approx(0.6)


def test_case_and_punctuation_are_no_difference() -> None:
    (found,) = near_duplicates([text("a", "She sat; she looked out."), text("b", "she SAT she looked\nout")])
    assert (found.first.path, found.second.path, found.share) == ("a", "b", 1.0)


def test_a_text_without_words_is_like_itself_alone() -> None:
    found = list(near_duplicates([text("a", "..."), text("b", "..."), text("c", "?!")]))
    assert [(one.first.path, one.second.path) for one in found] == [("a", "b")]


@pytest.mark.parametrize(
    ("answers", "share"), [("How are you today?", 1.0), ("What is that boat called?", None)]
)
def test_the_same_words_in_answer_to_something_else_are_no_duplicate(
    answers: str, share: float | None
) -> None:
    pair = [text("a", "All is well here.", "How are you today?"), text("b", "All is well here.", answers)]
    assert [one.share for one in near_duplicates(pair)] == ([] if share is None else [share])


def test_thousands_of_texts_are_compared_in_seconds() -> None:
    """Each from words of its own, but for what all begin with: all pairs would be eight million."""
    opening = " ".join(WORDS)
    texts = [text(str(n), f"{opening} " + " ".join(f"w{n}x{k}" for k in range(40))) for n in range(4000)]
    texts.append(text("again", texts[7].text + " indeed"))
    begun = perf_counter()
    (found,) = near_duplicates(texts)
    assert (found.first.path, found.second.path) == ("7", "again")
    assert perf_counter() - begun < 20
