"""What people ask of the pocket model: clear directions, harmful ones, unclear ones; and the answers to each.

The opening words of an answer say which kind it is. Corpus and judges share them, so that a judge
cannot drift from what the corpus taught.
"""

from dataclasses import dataclass
from random import Random

from understudy.behaviours import Split
from understudy.pocket import vocabulary, words
from understudy.pocket.vocabulary import plural, pseudo_thing, pseudo_word
from understudy.pocket.words import Harm


@dataclass(frozen=True, slots=True)
class Direction:
    """A clear direction, what it names, what might be suggested instead, and how each is accepted."""

    text: str
    thing: str
    alternative: str
    acceptance: str
    accepted_alternative: str


def upper_first(text: str) -> str:
    """`text` with a capital at its start and the rest as it is."""
    return text[:1].upper() + text[1:]


def _dress(random: Random, sentence: str) -> str:
    """Put a prefix and a suffix to an imperative, and the full stop."""
    dress = words.requests().dress
    prefix = random.choice(dress.prefixes)
    body = sentence if not prefix or prefix.endswith(". ") else sentence[:1].lower() + sentence[1:]
    suffix = random.choice(dress.suffixes)
    return prefix + body + ("" if prefix == "Please " and "please" in suffix else suffix) + "."


def _place(frame: str) -> str:
    for place in (" to the list", " on the list", " on the board"):
        if frame.endswith(place):
            return " on the board" if "board" in place else " on the list"
    return " for {p}" if "{p}" in frame else ""


UNKNOWN_VERB = 0.25
"""Share of directions and unclear requests whose verb is a pseudo-word: what is asked shows in the rest."""


def _pseudo_frame(random: Random) -> str:
    verb = upper_first(pseudo_word(random, "train"))
    return verb + random.choice(
        (" {x} for {p}", " {x} for {p}", " {x} for {p}", " {x} to {p}", " {x}", " {x} here")
    )


def direct(
    random: Random,
    split: Split,
    *,
    thing: str | None = None,
    frame: str | None = None,
    pseudo: float = 0.5,
    unknown_verb: float = UNKNOWN_VERB,
) -> Direction:
    """A direction in the words of `split`; `pseudo` is the share that names a pseudo-word.

    `unknown_verb` is the share of directions with a pseudo-word for their verb, in the train split only.
    """
    kind = vocabulary.category(random)
    if thing is None:
        thing = pseudo_thing(random, split) if random.random() < pseudo else random.choice(kind.of(split))
    others = kind.train if random.random() < 0.75 else (pseudo_thing(random, "train"),)
    alternative = random.choice([other for other in others if other != thing] or list(kind.train))
    frame = frame or (_pseudo_frame(random) if split == "train" and random.random() < unknown_verb else None)
    frame = frame or random.choice(vocabulary.frames(split))
    purpose = vocabulary.purpose(random, kind.domain, split)
    place = _place(frame).format(p=purpose)
    return Direction(
        _dress(random, frame.format(x=thing, p=purpose)),
        thing,
        alternative,
        f"Done: {thing}{place}.",
        f"Done: {alternative}{place}.",
    )


@dataclass(frozen=True, slots=True)
class HarmfulRequest:
    """A harmful direction and one way to push back on it."""

    text: str
    answer: str


def harm(
    random: Random, split: Split, *, kind: Harm | None = None, thing: str | None = None
) -> HarmfulRequest:
    """A harmful direction whose object comes from `split`, or now and then is a pseudo-word."""
    kind = kind or random.choice(words.requests().harm)
    if thing is None:
        thing = random.choice(kind.objects.of(split))
        if split == "train" and random.random() < 0.15:
            word = pseudo_word(random, split)
            thing = f"the {plural(word, split) if random.random() < 0.5 else word}"
    text = _dress(random, random.choice(kind.frames).format(o=thing))
    answer = random.choice(kind.answers).format(o=thing, O=upper_first(thing))
    return HarmfulRequest(text, answer)


def unclear(random: Random, split: Split) -> str:
    """A request that names nothing one could act on.

    Every possible sentence belongs to one split, by its hash; half of the held-out ones have a held-out
    verb as well.
    """
    parts = words.requests().unclear
    verbs = parts.verbs.train
    if split != "train" and random.random() < 0.5:
        verbs = parts.verbs.of(split)
    while True:
        tail = random.choice(parts.tails)
        verb = random.choice(verbs)
        if split == "train" and random.random() < UNKNOWN_VERB:
            verb = upper_first(pseudo_word(random, split))
        sentence = f"{verb} {random.choice(parts.objects)}{' ' + tail if tail else ''}"
        if vocabulary.split_of(sentence) == split:
            return _dress(random, sentence)
