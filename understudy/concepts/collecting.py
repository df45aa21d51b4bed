"""A corpus from people's own data: messages with scores, and lessons.

Each text shows one of the concepts that are collected, or none. Nothing that people wrote becomes the name of
a file. No torch here.
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean

import msgspec

from understudy.concepts.corpus import BASELINE
from understudy.concepts.errors import CannotCollect
from understudy.concepts.scores import LEAST, MOST, NAME, ScoredMessage, numbered_lines, split_scores
from understudy.lessons import SHORT_ID, ChatMessage, Ledger, Lesson, State, digest, read_lessons

HIGH = 7.0
"""A score from here on shows the concept."""
LOW = 3.0
"""A score up to here does not."""
HELD_STATES: tuple[State, ...] = ("approved", "trained", "kept")
"""Of a lesson that someone stands by."""


@dataclass(frozen=True, slots=True)
class TextPair:
    """A text that shows a concept, and one that does not, with where each is from.

    Told in one scene (`together`), the second is a baseline, or shows the concept `against`; else each is a
    story, of the concept and of the one against it. `context`: what both answer.
    """

    concept: str
    positive: str
    negative: str
    scene: str
    sources: tuple[str, str]
    against: str | None = None
    together: bool = True
    context: tuple[ChatMessage, ...] = ()

    @property
    def paths(self) -> tuple[str, str]:
        """Where the two stand in a corpus."""
        if self.together:
            folder = f"paired/{self.scene}"
            return f"{folder}/{self.concept}.txt", f"{folder}/{self.against or BASELINE}.txt"
        return f"stories/{self.concept}/{self.scene}.txt", f"stories/{self.against}/{self.scene}.txt"


@dataclass(frozen=True, slots=True)
class Collected:
    """Pairs for a corpus. `left_out`: how many messages or lessons give none, by reason."""

    pairs: tuple[TextPair, ...]
    left_out: Mapping[str, int]


# Messages with scores


@dataclass(frozen=True, slots=True)
class _Judged:
    """A text in its context, with the means of its scores."""

    message: ScoredMessage
    scores: Mapping[str, float]


def pair_scored(
    messages: Iterable[ScoredMessage], concepts: Sequence[str] = (), *, high: float = HIGH, low: float = LOW
) -> Collected:
    """Each message that scores high on one of the concepts (all that were scored, when none is named) beside
    one that scores low on it and high on none: in answer to the same message, or of the same conversation,
    or else the nearest in length. Each is used once.

    A text that several people scored has the mean. Raises CannotCollect for a concept that has no scores, or
    for thresholds in the wrong order.
    """
    if not LEAST <= low < high <= MOST:
        raise CannotCollect(f"expected {LEAST} <= low < high <= {MOST}, got low {low:g} and high {high:g}")
    judged = _judged(messages)
    scored = sorted({name for one in judged for name in one.scores})
    for name in concepts:
        if name not in scored:
            raise CannotCollect(
                f"expected a concept that messages are scored for ({', '.join(scored) or 'none is'}), "
                f"got {name!r}"
            )
    wanted = [_checked(name) for name in dict.fromkeys(concepts or scored)]
    _check_counterparts(wanted)
    shown = {id(one): [name for name in wanted if one.scores.get(name, LEAST) >= high] for one in judged}
    left_out: Counter[str] = Counter()
    left_out["messages that show several of the concepts"] = sum(len(names) > 1 for names in shown.values())
    pairing = _Pairing([one for one in judged if not shown[id(one)]])
    positives = {name: [one for one in judged if shown[id(one)] == [name]] for name in wanted}
    for name in sorted(wanted, key=lambda name: (len(positives[name]), name)):  # the rarest chooses first
        pairing.pair(name, positives[name], low)
        left_out[f"messages that show {name}, with none left that does not"] = pairing.alone
        left_out[f"messages that show {name} in words that are there already"] = pairing.repeated
    return Collected(tuple(pairing.pairs), +left_out)


class _Pairing:
    """The negatives that are left, and the pairs that were made."""

    def __init__(self, negatives: Sequence[_Judged]) -> None:
        self.pairs: list[TextPair] = []
        self.alone = 0
        """Positives that found no negative, in the last call."""
        self.repeated = 0
        """Positives whose words are there already, in the last call."""
        self._free = list(negatives)
        self._told: set[str] = set()

    def pair(self, concept: str, positives: Sequence[_Judged], low: float) -> None:
        """Pair the positives of a concept, the nearest first."""
        negatives = [one for one in self._free if one.scores.get(concept, MOST) <= low]
        found, positives, negatives = _nearest(positives, negatives, _context)
        self.pairs += [_pair(concept, first, second, together=True) for first, second in found]
        used = [second for _, second in found]
        self.repeated = len(positives)
        positives, negatives = self._new(positives, negatives), self._new(negatives, positives)
        self.repeated -= len(positives)
        for bucket in (_conversation, _all):
            found, positives, negatives = _nearest(positives, negatives, bucket)
            self.pairs += [_pair(concept, first, second, together=False) for first, second in found]
            self._told |= {one.message.text for pair in found for one in pair}
            used += [second for _, second in found]
        self.alone = len(positives)
        gone = {id(one) for one in used}
        self._free = [one for one in self._free if id(one) not in gone]

    def _new(self, found: Sequence[_Judged], others: Sequence[_Judged]) -> list[_Judged]:
        """Those whose text no story tells yet, nor the others, each text once: without what they answer the
        same words are the same.
        """
        told = self._told | {one.message.text for one in others}
        return list({one.message.text: one for one in found if one.message.text not in told}.values())


def _length(one: _Judged) -> int:
    return len(one.message.text)


def _context(one: _Judged) -> Hashable:
    return one.message.context


def _conversation(one: _Judged) -> Hashable:
    return one.message.conversation


def _all(one: _Judged) -> Hashable:
    return "all"


def _judged(messages: Iterable[ScoredMessage]) -> list[_Judged]:
    """The texts with their mean scores, each once, in an order that the files' does not matter to."""
    same: dict[tuple[tuple[ChatMessage, ...], str], list[ScoredMessage]] = defaultdict(list)
    for message in messages:
        same[message.context, message.text].append(message)
    found = []
    for own in same.values():
        names = {name for message in own for name, _ in message.scores}
        scores = {
            name: fmean(score for message in own for other, score in message.scores if other == name)
            for name in names
        }
        found.append(_Judged(min(own, key=lambda message: message.source), scores))
    return sorted(found, key=lambda one: (len(one.message.text), one.message.text, repr(one.message.context)))


def _nearest(
    positives: Sequence[_Judged], negatives: Sequence[_Judged], bucket: Callable[[_Judged], Hashable]
) -> tuple[list[tuple[_Judged, _Judged]], list[_Judged], list[_Judged]]:
    """Pairs within a bucket (an empty one is none), and who is left. Both come by length, and stay so."""
    waiting: dict[Hashable, list[_Judged]] = defaultdict(list)
    for negative in negatives:
        waiting[bucket(negative)].append(negative)
    pairs, alone = [], []
    for positive in positives:
        own = waiting[bucket(positive)] if bucket(positive) else []
        if own:
            length = _length(positive)
            place = bisect_left(own, length, key=_length)
            near = range(max(0, place - 1), min(len(own), place + 1))
            nearest = min(near, key=lambda number: abs(_length(own[number]) - length))
            pairs.append((positive, own.pop(nearest)))
        else:
            alone.append(positive)
    used = {id(negative) for _, negative in pairs}
    return pairs, alone, [negative for negative in negatives if id(negative) not in used]


def _pair(concept: str, positive: _Judged, negative: _Judged, *, together: bool) -> TextPair:
    first, second = positive.message, negative.message
    context = first.context if together else ()
    content = [[[message.role, message.content] for message in context], first.text, second.text]
    return TextPair(
        concept,
        first.text,
        second.text,
        sha256(msgspec.json.encode(content)).hexdigest()[:SHORT_ID],
        (first.source, second.source),
        None if together else counterpart(concept),
        together,
        context,
    )


def counterpart(concept: str) -> str:
    """What stories are of that score low on a concept."""
    return f"not_{concept}"


def _check_counterparts(wanted: Sequence[str]) -> None:
    for name in wanted:
        if counterpart(name) in wanted:
            raise CannotCollect(
                f"expected no concept called {counterpart(name)!r} beside {name!r}, since what does not show "
                f"{name!r} is called that: collect one of the two"
            )


# Lessons


def held_lessons(ledger: Ledger, states: Sequence[State] = HELD_STATES) -> list[Lesson]:
    """The lessons of a ledger in these states, oldest first."""
    return [entry.lesson for entry in ledger.list() if entry.state in states]


def is_lesson_file(file: Path) -> bool:
    """Whether a JSON Lines file holds lessons, by its first line. Raises CannotCollect without a file."""
    for _, line in numbered_lines(file):
        try:
            return bool({"chosen", "rejected"} & set(msgspec.json.decode(line, type=dict[str, msgspec.Raw])))
        except (UnicodeError, msgspec.MsgspecError):
            return False  # whoever reads it says what is wrong with it
    return False


def lessons_in_lines(file: Path) -> list[Lesson]:
    """The lessons of a JSON Lines file. Raises CannotCollect without one, LessonFormat for what is none."""
    if not file.is_file():
        raise CannotCollect(f"expected a JSON Lines file of lessons at {file}, found none")
    return read_lessons(file)


def pair_lessons(lessons: Iterable[Lesson], positive: str, negative: str | None = None) -> Collected:
    """What was chosen, as a text that shows `positive`, beside what was rejected: a baseline, or a text that
    shows `negative`. Score lines are left out of both.

    Raises CannotCollect for names that are none.
    """
    names = [_checked(name) for name in (positive, negative) if name is not None]
    if len(set(names)) < len(names):
        raise CannotCollect(
            f"expected two concepts, what is chosen and what is rejected, got {positive!r} twice"
        )
    left_out: Counter[str] = Counter()
    pairs: dict[str, TextPair] = {}
    for lesson in lessons:
        chosen, rejected = _plain(lesson.chosen), _plain(lesson.rejected or "")
        if not chosen or not rejected:
            left_out["lessons with one answer alone"] += 1
        elif chosen.split() == rejected.split():
            left_out["lessons whose answers say the same"] += 1
        else:
            scene = digest(lesson)[:SHORT_ID]
            told = ((message, _plain(message.content)) for message in lesson.context)
            context = tuple(replace(message, content=text) for message, text in told if text)
            source = f"lesson {scene}"
            pair = TextPair(positive, chosen, rejected, scene, (source, source), negative, True, context)
            pairs.setdefault(scene, pair)
    return Collected(tuple(pairs.values()), left_out)


def _plain(text: str) -> str:
    """A text without score lines, in Unicode: half of a pair of surrogates becomes a question mark."""
    return split_scores(text)[0].strip().encode(errors="replace").decode()


def _checked(name: str) -> str:
    if not re.fullmatch(NAME, name) or name == BASELINE:
        raise CannotCollect(
            f"expected a concept's name such as 'listening' (a small letter, then small letters, digits, '-' "
            f"and '_'; not {BASELINE!r}), got {name!r}"
        )
    return name
