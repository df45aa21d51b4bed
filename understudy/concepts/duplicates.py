"""Texts that are almost the same: shingles, their resemblance, and an index that finds it.

A text is the set of its runs of `SHINGLE_WORDS` words; two resemble each other as much as the Jaccard index
of their sets (Broder, On the resemblance and containment of documents, 1997). No torch here.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import ceil

from understudy.concepts.corpus import Text

SHINGLE_WORDS = 3
"""Short, since the texts are: a word that is changed in a text of 60 words costs 3 of 58 shingles."""
RESEMBLANCE = 0.6
"""From here on two texts are near duplicates: at 3 words to a shingle, about every twelfth word differs."""

_WORD = re.compile(r"\w+")

Shingle = tuple[bool, tuple[str, ...]]
"""Words, and whether they are of the messages that a text answers."""
Reading = frozenset[Shingle]


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two texts of almost the same words, that answer almost the same. `share`: their resemblance."""

    first: Text
    second: Text
    share: float


def near_duplicates(texts: Sequence[Text], threshold: float = RESEMBLANCE) -> Iterator[NearDuplicate]:
    """Near duplicates: texts that resemble each other are joined by a chain of pairs, and not each by a pair
    of their own, which for thousands of like texts would be millions.

    What texts answer has to be as much alike as they are: the same words in answer to something else are no
    duplicate.
    """
    groups: dict[Reading, list[Text]] = {}
    for text in texts:
        groups.setdefault(_reading(text), []).append(text)
    for same in groups.values():
        for other in same[1:]:
            yield NearDuplicate(same[0], other, 1.0)
    readings, joined = list(groups), Joined(len(groups))
    for one, two in _candidates(readings, threshold):
        if joined.together(one, two):
            continue
        share = _resemblance(readings[one], readings[two])
        if share >= threshold:
            joined.join(one, two)
            yield NearDuplicate(groups[readings[one]][0], groups[readings[two]][0], share)


class Joined:
    """The numbers below a count, in groups: alone to begin with, then joined two at a time."""

    def __init__(self, count: int) -> None:
        self._group = {number: [number] for number in range(count)}

    def together(self, one: int, other: int) -> bool:
        """Whether the two are of one group."""
        return self._group[one] is self._group[other]

    def join(self, one: int, other: int) -> None:
        """Make one group of the groups of the two."""
        small, large = sorted((self._group[one], self._group[other]), key=len)
        if small is not large:
            large += small
            self._group.update(dict.fromkeys(small, large))

    @property
    def groups(self) -> list[list[int]]:
        """Every group once."""
        return [group for number, group in self._group.items() if group[0] == number]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text without their case; a text without words is one word."""
    return tuple(_WORD.findall(text.casefold())) or (text,)


def _reading(text: Text) -> Reading:
    answered = "\n".join(message.content for message in text.context)
    said = ((False, shingle) for shingle in _shingles(text.text))
    return frozenset((*said, *((True, shingle) for shingle in _shingles(answered) if text.context)))


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {words[start : start + SHINGLE_WORDS] for start in range(max(1, len(words) - SHINGLE_WORDS + 1))}


def _resemblance(one: Reading, other: Reading) -> float:
    """The lesser of how much the texts and how much what they answer resemble each other."""
    return min(_jaccard(_part(one, answered), _part(other, answered)) for answered in (False, True))


def _part(reading: Reading, answered: bool) -> set[tuple[str, ...]]:
    return {words for of, words in reading if of is answered}


def _jaccard(one: AbstractSet[object], other: AbstractSet[object]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0


def _candidates(readings: Sequence[Reading], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs that may reach the threshold, by an index of shingles; it loses none.

    Two sets of that Jaccard index share one of the n - ceil(threshold n) + 1 rarest members of each, whatever
    is rare (Bayardo, Ma and Srikant, Scaling up all pairs similarity search, 2007). Where texts and what they
    answer both reach it, so do they together, since a ratio of sums lies between the ratios.
    """
    rarity = Counter(shingle for reading in readings for shingle in reading)
    index: dict[Shingle, list[int]] = {}
    for number, reading in enumerate(readings):
        size = len(reading)
        least = threshold * size - 1e-9
        prefix = sorted(reading, key=lambda one: (rarity[one], one))[: size - ceil(least) + 1]
        met = {other for shingle in prefix for other in index.get(shingle, ())}
        yield from ((o, number) for o in sorted(met) if least <= len(readings[o]) <= size / threshold + 1e-9)
        for shingle in prefix:
            index.setdefault(shingle, []).append(number)
