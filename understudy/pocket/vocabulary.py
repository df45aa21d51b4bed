"""Drawing words: nouns, purposes, names, and pseudo-words that mean nothing."""

import hashlib
from functools import cache
from random import Random

from understudy.behaviours import Split
from understudy.pocket import words
from understudy.pocket.words import Category

_SPLITS: tuple[Split, ...] = ("train", "development", "test")

# How pseudo-words are put together: a syllable or two, and often an ending.
_ONSETS = (
    "b br bl d dr f fl fr g gr gl h j k kl kr l m n p pl pr qu r s sh sk sl sp st t tr th tw v w y z zh ch"
)
_VOWELS = "a e i o u a e i o u ai ee oo ou ia er or ar en an on in"
_CODAS = "n l x r s t m k p g nd st lk rm ng ck sh th b d v z"
_TAILS = "a o y ix us is um el en ia et os ar ic ly ton ley mar ette ine ade ora"

_HELD_OUT_BUCKETS: dict[int, Split] = {0: "development", 1: "test"}
_BUCKETS = 12

FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "for",
        "to",
        "in",
        "on",
        "with",
        "at",
        "by",
        "and",
        "or",
        "x",
        "p",
        "o",
        "my",
        "our",
        "her",
        "his",
        "their",
        "it",
        "from",
        "into",
    ]
)
"""Words so common that they belong to no split."""


def split_of(text: str) -> Split:
    """The split that owns a generated word or sentence: a hash decides, so no two splits can share one."""
    bucket = hashlib.sha256(text.encode()).digest()[0] % _BUCKETS
    return _HELD_OUT_BUCKETS.get(bucket, "train")


@cache
def _syllables() -> tuple[list[str], list[str], list[str], list[str]]:
    return _ONSETS.split(" "), _VOWELS.split(" "), _CODAS.split(" "), [*_TAILS.split(" "), ""]


@cache
def _real_words() -> frozenset[str]:
    return frozenset().union(*(held_words(split) for split in _SPLITS))


@cache
def _parts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Beginnings and ends of the train words, two to five letters long."""
    long = sorted(word for word in held_words("train") if word.isalpha() and len(word) > 3)
    starts = {word[:size] for word in long for size in range(2, min(6, len(word)))}
    ends = {word[-size:] for word in long for size in range(2, min(6, len(word)))}
    return tuple(sorted(starts)), tuple(sorted(ends))


def _syllabic(random: Random) -> str:
    onsets, vowels, codas, tails = _syllables()
    word = random.choice(onsets) + random.choice(vowels) + random.choice(codas)
    if random.random() < 0.35:
        word += random.choice(vowels) + random.choice(codas)
    return word + (random.choice(tails) if random.random() < 0.6 else "")


def pseudo_word(random: Random, split: Split) -> str:
    """A word that means nothing, lower case; every possible word belongs to one split, by its hash.

    Half are made of syllables, half of a beginning and an end of real words, so that pieces of real
    words are met in words that have to be copied letter by letter.
    """
    while True:
        if random.random() < 0.5:
            word = _syllabic(random)
        else:
            starts, ends = _parts()
            word = random.choice(starts) + random.choice(ends)
        if split_of(word) == split and word not in _real_words():
            return word


def plural(word: str, split: Split) -> str:
    """A pseudo-word with an s, where that is a word of the same split and no held-out one; else as it is."""
    many = f"{word}s"
    taken = many in held_words("development") | held_words("test")
    return many if not taken and not word.endswith(("s", "x", "z")) and split_of(many) == split else word


def pseudo_thing(random: Random, split: Split) -> str:
    """A pseudo-word in the dress of a noun: a brand, a thing with its article, a plural."""
    word = pseudo_word(random, split)
    dress = random.random()
    if dress < 0.05:
        return (
            word[:4].upper()
            if split_of(word[:4]) == split and word[:4] not in _real_words()
            else word.upper()
        )
    if dress < 0.40:
        return word.capitalize()
    if dress < 0.58:
        return f"the {word}"
    if dress < 0.66:
        return f"a {word}"
    return plural(word, split) if dress < 0.82 else word


def category(random: Random) -> Category:
    """Any category, each as likely as the next."""
    return random.choice(words.things().category)


def purpose(random: Random, domain: str, split: Split) -> str:
    """What something is for, from the words of `split`."""
    return random.choice(words.things().purposes[domain].of(split))


def names(split: Split) -> tuple[str, ...]:
    """People's names of a split."""
    return words.things().names.of(split)


def frames(split: Split) -> tuple[str, ...]:
    """Ways to direct. Held-out frames have verbs that stand nowhere in the corpus, in any form."""
    return words.things().frames.of(split)


@cache
def all_nouns(split: Split) -> tuple[str, ...]:
    """Every real noun of a split, in the order of the categories."""
    return tuple(noun for kind in words.things().category for noun in kind.of(split))


def content_words(phrases: tuple[str, ...]) -> frozenset[str]:
    """The words of some phrases, lower case, without articles and the like."""
    found = {word.strip("{}.,").lower() for phrase in phrases for word in phrase.split()}
    return frozenset(found - FUNCTION_WORDS)


@cache
def held_words(split: Split) -> frozenset[str]:
    """Every word that the lists of `split` own: nouns, names, purposes, verbs, objects of harm."""
    things, requests = words.things(), words.requests()
    phrases = [*all_nouns(split), *things.names.of(split), *things.frames.of(split)]
    phrases += [purpose for kind in things.purposes.values() for purpose in kind.of(split)]
    phrases += [thing for harm in requests.harm for thing in harm.objects.of(split)]
    phrases += requests.unclear.verbs.of(split)
    return content_words(tuple(phrases))
