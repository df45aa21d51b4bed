"""Likeness of texts: what was asked before in nearly the same words, and what would give held-out words away.

    likeness(a, b) = |A & B| / |A | B|          A, B: the runs of three characters of each text

That is Jaccard's coefficient over shingles (Broder 1997). Wang et al., Self-Instruct (arXiv 2212.10560), drop
what is nearly there already in the same way, by the longest common subsequence of words.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from understudy.behaviours.scenarios import Scenario
from understudy.behaviours.sources import split_of
from understudy.behaviours.specification import Invariant

ALIKE = 0.85
"""From here on two texts are nearly the same. Of the pocket model's scenarios, the likeness of two that name
different things is at most .80 in 785,193 pairs; single words that rhyme (`Tighten`, `Brighten`) reach .92.
"""
RUN = 3
"""Characters in a row that are compared."""


def runs_of(text: str) -> frozenset[str]:
    """The runs of characters of a text, whatever its case and spaces; of a shorter text itself."""
    plain = " ".join(text.lower().split())
    return frozenset(plain[start : start + RUN] for start in range(max(1, len(plain) - RUN + 1)))


def likeness(one: str, other: str) -> float:
    """Between 0 and 1: of all runs in either text, those in both."""
    a, b = runs_of(one), runs_of(other)
    return len(a & b) / len(a | b)


def text_of(scenario: Scenario) -> str:
    """What a scenario asks, as one text; the document when it asks nothing."""
    return "\n".join(turn.content for turn in scenario.prompt) or scenario.target


def words_of(text: str) -> frozenset[str]:
    """Its words in lower case."""
    return frozenset(re.findall(r"\w+", text.lower()))


class Texts:
    """Texts among which near-duplicates are found: by an index from runs to texts, so exactly."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._sizes: list[int] = []
        self._places: dict[str, list[int]] = defaultdict(list)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """One more."""
        runs = runs_of(text)
        for run in runs:
            self._places[run].append(len(self._sizes))
        self._sizes.append(len(runs))

    def has_alike(self, text: str) -> bool:
        """Whether one of them is nearly the same as this."""
        runs = runs_of(text)
        shared = Counter(place for run in runs for place in self._places.get(run, ()))
        return any(
            count / (len(runs) + self._sizes[place] - count) >= ALIKE for place, count in shared.items()
        )


class HeldOut:
    """What the development and test splits of all invariants hold, and must stay unseen.

    A text gives them away when it is nearly one of their scenarios, or has a word that only they have among
    the fillings that a `split_by` keeps apart. What an invariant's own train split says it may go on saying.
    """

    def __init__(self, invariants: Sequence[Invariant]) -> None:
        self._texts, self._words = Texts(), set[str]()
        self._taught: dict[str, frozenset[str]] = {}
        for invariant in invariants:
            held = [*invariant.scenarios["development"], *invariant.scenarios["test"]]
            for scenario in held:
                self._texts.add(text_of(scenario))
            taught = words_of("\n".join(map(text_of, invariant.scenarios["train"])))
            self._taught[invariant.name] = taught
            if invariant.split_by:
                self._words |= words_of("\n".join(one.group for one in held)) - taught

    def names(self, invariant: Invariant, text: str) -> bool:
        """Whether a text made for an invariant has a held-out word."""
        return bool((words_of(text) & self._words) - self._taught[invariant.name])

    def gives_away(self, invariant: Invariant, scenario: Scenario) -> bool:
        """Whether a scenario made for an invariant says what only the other splits may."""
        text = text_of(scenario)
        return self.names(invariant, text) or self._texts.has_alike(text)

    def leaks(self, invariant: Invariant, scenario: Scenario) -> bool:
        """Whether a scenario made for an invariant is of another split than `train`, or gives one away."""
        return split_of(scenario) != "train" or self.gives_away(invariant, scenario)
