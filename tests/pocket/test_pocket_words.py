"""Held-out words are held out: from each other, and from the corpus itself."""

import re

import pytest

from understudy.pocket import behaviours, documents, states_of_mind, vocabulary, words
from understudy.pocket.build import SHIPPED_SEEDS
from understudy.pocket.corpus import Document
from understudy.pocket.recipe import Recipe

READ_DOCUMENTS = (110_000, 60_000)
"""Of each stage: more than the shipped checkpoint read."""


def _text(document: Document) -> str:
    return document.story or "\n".join(message.content for message in document.messages)


@pytest.fixture(scope="module")
def corpus_text() -> str:
    return "\n".join(
        _text(document)
        for seed, count, stage in zip(SHIPPED_SEEDS, READ_DOCUMENTS, Recipe().stages, strict=True)
        for document in documents(seed, count, stage.mix)
    )


@pytest.fixture(scope="module")
def corpus_words(corpus_text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+(?:'\w+)?", corpus_text.lower()))


def test_development_and_test_words_are_disjoint() -> None:
    assert not vocabulary.held_words("development") & vocabulary.held_words("test")


@pytest.mark.parametrize("split", ["development", "test"])
def test_no_held_out_word_stands_anywhere_in_the_corpus(split: str, corpus_words: frozenset[str]) -> None:
    held = vocabulary.held_words("development" if split == "development" else "test")
    assert len(held) > 60
    found = held & corpus_words
    assert not found


def test_no_form_of_a_held_out_verb_stands_in_the_corpus(corpus_words: frozenset[str]) -> None:
    frames = words.things().frames
    for frame in (*frames.development, *frames.test):
        verb = frame.split()[0].lower()
        stem = verb.removesuffix("e")
        forms = {
            verb,
            verb + "s",
            verb + "es",
            stem + "ed",
            stem + "ing",
            verb + verb[-1] + "ed",
            verb + verb[-1] + "ing",
        }
        found = forms & corpus_words
        assert not found


@pytest.mark.parametrize("split", ["development", "test"])
def test_no_pseudo_word_of_a_scenario_stands_in_the_corpus(split: str, corpus_words: frozenset[str]) -> None:
    directions = behaviours("development" if split == "development" else "test")[0].scenarios
    things = {scenario.target.lower().removeprefix("the ").removeprefix("a ") for scenario in directions}
    assert len(things) > 50
    found = things & corpus_words  # named, so that a failure prints these and not the whole corpus
    assert not found


def test_pseudo_words_belong_to_one_split() -> None:
    from random import Random

    random = Random(5)
    for split in ("train", "development", "test"):
        for _ in range(300):
            word = vocabulary.pseudo_word(random, split)
            assert vocabulary.split_of(word) == split


def test_held_out_clauses_and_requests_stand_nowhere_in_the_corpus(corpus_text: str) -> None:
    for state in states_of_mind():
        for clause in state.held_out_clauses:
            assert corpus_text.count(clause) == 0
    lowered = corpus_text.lower()
    for split in ("development", "test"):
        found = {behaviour.name: behaviour for behaviour in behaviours(split)}
        for name in ("pushes_back", "asks_back"):
            for scenario in found[name].scenarios:
                said = scenario.prompt[-1].content.split(": ", 1)[-1]
                assert lowered.count(f"\n{said.lower()}\n") == 0


def test_training_words_do_stand_in_the_corpus(corpus_words: frozenset[str]) -> None:
    """The search finds what is there: the tests above could otherwise pass on an empty text."""
    missing = vocabulary.held_words("train") - corpus_words
    assert not missing


def test_word_lists_reject_unknown_fields() -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"train": ["a"], "development": [], "test": [], "tset": []}, words.Splits)
