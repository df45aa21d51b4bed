"""Leaning: how much what the model said rests on the notes before it, and of what use each note is.

Of a reply y to a context c, with the notes N, in nats of the whole reply:

    drop of a note n = log p(y | N, c) - log p(y | N without n, c)
    leaning          = log p(y | N, c) - log p(y | c)

A reply leans when its leaning is above that of nearly all replies that used no note: the threshold is a
conformal quantile of theirs (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005). What
leans on notes can be learned without them: Snell, Klein and Zhong, "Learning by Distilling Context", arXiv
2209.15189.

The whole reply counts and not its mean token, because it is the log-likelihood ratio of "said with the notes"
to "said without", and no other figure finds more of the first at as many false alarms (Neyman and Pearson
1933). It needs no correction for length either: of replies drawn without notes at temperature 1, whatever
their length, at most exp(-t) lean by t nats or more, since p(y | N, c) / p(y | c) is 1 on average over them
(Markov; the end of the turn, which is not scored here, aside).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from understudy.behaviours.scenarios import Prompt
from understudy.behaviours.subject import TOGETHER, LogProbability, Speech, Subject
from understudy.behaviours.verdicts import Smooth
from understudy.lessons import ChatMessage, Note, Reply, with_notes

ENOUGH_NULLS = 20
"""Null replies that a threshold should rest on, and the most that are drawn to one context."""

Said = tuple[Prompt, str]
"""A text, and the context that it answers."""
Told = Callable[[int, int], None]
"""Is told how much is done, and of how much."""


class TooFewReplies(ValueError):
    """Too few replies that used no note to tell, at this level, what leans on one."""


@dataclass(frozen=True, slots=True)
class Leaning:
    """What one reply owes to the notes: nats of the whole reply, by note and in all."""

    reply: Reply
    tokens: int
    drops: tuple[float, ...]
    total: float


@dataclass(frozen=True, slots=True)
class NoteMatrix:
    """Rows are notes, columns replies. `nulls` are the leanings of the replies that used no note."""

    notes: tuple[Note, ...]
    columns: tuple[Leaning, ...]
    nulls: tuple[float, ...]
    level: float
    threshold: float

    @property
    def leaning(self) -> tuple[Leaning, ...]:
        """The replies that lean."""
        return tuple(one for one in self.columns if self.leans(one))

    def leans(self, one: Leaning) -> bool:
        """Whether a reply is above the threshold. Of replies that use no note, at most 1 - level are."""
        return one.total > self.threshold

    def usefulness(self, note: Note) -> Smooth | None:
        """A note's mean drop over the replies that were spoken with it, in whatever wording; None when there
        are none.
        """
        row = self.notes.index(note)
        drops = [one.drops[row] for one in self.columns if note.name in one.reply.notes]
        return Smooth.of(drops, "nats") if drops else None


def lean(
    replies: Sequence[Reply],
    notes: Sequence[Note],
    nulls: Sequence[Said],
    subject: Subject,
    *,
    level: float,
    scored: Told = lambda done, of: None,
) -> NoteMatrix:
    """Score each reply with all notes, without each and without any, and each null reply with and without.

    Raises TooFewReplies before anything is scored when there are too few null replies for the level.
    """
    _require_enough(len(nulls), level)
    fewer = [tuple(other for other in notes if other != note) for note in notes]
    wanted = [
        (with_notes(given, context), text)
        for context, text in (*nulls, *((one.context, one.text) for one in replies))
        for given in (notes, ())
    ]
    wanted += [(with_notes(given, one.context), one.text) for one in replies for given in fewer]
    known = _score(subject, wanted, scored)

    def nats(given: Sequence[Note], context: Prompt, text: str) -> float:
        return known[with_notes(given, context), text].total

    columns = []
    for one in replies:
        context, text = one.context, one.text
        whole = nats(notes, context, text)
        drops = tuple(whole - nats(given, context, text) for given in fewer)
        tokens = known[with_notes(notes, context), text].tokens
        columns.append(Leaning(one, tokens, drops, whole - nats((), context, text)))
    held = tuple(nats(notes, context, text) - nats((), context, text) for context, text in nulls)
    return NoteMatrix(tuple(notes), tuple(columns), held, level, leaning_threshold(held, level))


def fits_with(subject: Subject, notes: Sequence[Note], said: Said) -> bool:
    """Whether the model can hold the notes, the context and the text together."""
    context, text = said
    whole = (*with_notes(notes, context), ChatMessage("assistant", text))
    return subject.length(whole) <= subject.context_length


def draw_nulls(
    subject: Subject,
    contexts: Iterable[Prompt],
    wanted: int,
    speech: Speech,
    drawn: Told = lambda done, of: None,
) -> tuple[Said, ...]:
    """Answers that the model gives now, without notes: what a reply is that uses none.

    Whole rounds over the contexts, each with another seed, so that each context counts alike. There may be
    fewer than wanted: a context is answered only so often, and an empty answer is none.
    """
    asked, found = list(dict.fromkeys(contexts)), list[Said]()
    for turn in range(ENOUGH_NULLS):
        if len(found) >= wanted or not asked:
            break
        answers = subject.answer(asked, replace(speech, seed=speech.seed + turn))
        found += [(prompt, text) for prompt, text in zip(asked, answers, strict=True) if text.strip()]
        drawn(min(len(found), wanted), wanted)
    return tuple(found)


def leaning_threshold(nulls: Sequence[float], level: float) -> float:
    """The ceil((n + 1) level)-th smallest of n null leanings.

    Where a new null reply is exchangeable with them, it lies above with a probability of at most 1 - level,
    whatever their distribution (Vovk, Gammerman and Shafer 2005). Raises TooFewReplies.
    """
    _require_enough(len(nulls), level)
    return sorted(nulls)[_rank(len(nulls), level) - 1]


def nulls_needed(level: float) -> int:
    """The fewest null replies that a threshold at this level takes: with fewer it lies above them all."""
    exact = Fraction(str(level))
    return math.ceil(exact / (1 - exact))


def _rank(nulls: int, level: float) -> int:
    return math.ceil((nulls + 1) * Fraction(str(level)))  # exact: 0.55 * 100 is more than 55 in floats


def _require_enough(nulls: int, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")
    if nulls < nulls_needed(level):
        raise TooFewReplies(
            f"expected at least {nulls_needed(level)} replies that used no note for a threshold at level "
            f"{level:g}, got {nulls}: choose a lower level, or let the model answer more without notes"
        )


def _score(subject: Subject, wanted: Sequence[Said], scored: Told) -> Mapping[Said, LogProbability]:
    """Each different text after a prompt once, so that what was said twice has the same figure."""
    distinct = list(dict.fromkeys(wanted))
    known: dict[Said, LogProbability] = {}
    for start in range(0, len(distinct), TOGETHER):
        some = distinct[start : start + TOGETHER]
        known.update(zip(some, subject.log_probabilities(some), strict=True))
        scored(len(known), len(distinct))
    return known
