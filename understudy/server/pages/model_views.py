"""Weight commits as a page shows them: what each taught, what it did, and whether it still holds."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from understudy.lessons import LedgerEntry
from understudy.server.pages.evidence import Decided, read_decisions
from understudy.server.pages.lesson_views import Reach, clip
from understudy.server.pages.plots import line_plot

if TYPE_CHECKING:
    from understudy.server.pages.site import Site
    from understudy.weights import WeightCommit

PAGE = 25
LESSONS_SHOWN = 8
PLOTTED = 200
"""The newest commits that the plots over time show."""
CHOICES = 500
"""The newest commits that can be chosen for a comparison."""
SPOKEN_SHOWN = 40
INITIAL = "initial"
"""How the weights as they came are called where a commit's id is expected."""


class CommitLog:
    """The weight commits of a model directory, read again when there are more: records never change."""

    def __init__(self) -> None:
        self._known: tuple[WeightCommit, ...] = ()

    def read(self, site: "Site") -> "tuple[WeightCommit, ...]":
        """Oldest first. Reads files: not for the event loop."""
        from understudy.weights import read_commits

        newest = self._known[-1].id if self._known else None
        if newest is None or newest != site.engine.weight_commit:
            self._known = read_commits(site.engine.directory)
        return self._known


@dataclass(frozen=True, slots=True)
class TaughtLesson:
    """A lesson of a commit; `text` is None where the visitor may not read it."""

    id: str
    text: str | None
    state: str


@dataclass(frozen=True, slots=True)
class CommitCard:
    """A weight commit. `loss` are the means over its examples, before and after, in nats per token.

    `state`: `serves` (the newest), `held` (its change is in the weights), `undone`, or `restore`. `of` is the
    commit whose weights a restore brought back (None: as the model came).
    """

    commit: "WeightCommit"
    state: str
    of: str | None
    lessons: Sequence[TaughtLesson]
    more: int
    loss: tuple[float, float] | None
    kl: Mapping[str, Any] | None
    steps: int
    decided: Decided | None

    @property
    def brings_back(self) -> bool:
        """Whether this is a restore, which taught nothing itself."""
        return "restores" in self.commit.details


@dataclass(frozen=True, slots=True)
class Ledgered:
    """What the ledger says of lessons and sessions, read once for a page."""

    entries: Mapping[str, LedgerEntry]
    decided: Mapping[str, Decided]

    @classmethod
    def read(cls, site: "Site") -> "Ledgered":
        decisions = read_decisions(site.service.decider.gatekeeper.decisions.list())
        entries = {entry.id: entry for entry in site.ledger.list()}
        return cls(entries, {one.decision.session: one for one in decisions})


def commit_cards(
    commits: "Sequence[WeightCommit]", shown: "Sequence[WeightCommit]", ledgered: Ledgered, reach: Reach
) -> list[CommitCard]:
    """Cards of `shown`, some of all the `commits`."""
    from understudy.weights import changes_held

    held = {commit.id for commit in changes_held(commits)}
    newest = commits[-1].id if commits else None
    return [_card(commit, held, newest, commits, ledgered, reach) for commit in shown]


def _card(
    commit: "WeightCommit",
    held: set[str],
    newest: str | None,
    commits: "Sequence[WeightCommit]",
    ledgered: Ledgered,
    reach: Reach,
) -> CommitCard:
    result = commit.details.get("result") or {}
    state = "held" if commit.id in held else "undone"
    if "restores" in commit.details:
        state = "restore"
    return CommitCard(
        commit,
        "serves" if commit.id == newest else state,
        weights_of(commit, commits),
        [taught(identity, ledgered, reach) for identity in commit.lessons[:LESSONS_SHOWN]],
        max(0, len(commit.lessons) - LESSONS_SHOWN),
        mean_loss(commit),
        result.get("kl"),
        int(result.get("steps") or 0),
        ledgered.decided.get(commit.session or ""),
    )


def taught(identity: str, ledgered: Ledgered, reach: Reach) -> TaughtLesson:
    """A lesson of a commit, as far as the visitor may read it."""
    entry = ledgered.entries.get(identity)
    if entry is None or not reach.may_see(entry.lesson):
        return TaughtLesson(identity, None, "")
    return TaughtLesson(identity, clip(entry.lesson.chosen, 160), entry.state)


def weights_of(commit: "WeightCommit", commits: "Sequence[WeightCommit]") -> str | None:
    """The commit that first had the weights that this one leaves; None: they are as the model came."""
    by_id = {one.id: one for one in commits}
    found: str | None = commit.id
    while found is not None and "restores" in by_id[found].details:
        found = by_id[found].details["restores"]
    return found


def mean_loss(commit: "WeightCommit") -> tuple[float, float] | None:
    """Before and after, over the commit's examples; None where nothing was measured."""
    outcomes = (commit.details.get("result") or {}).get("outcomes") or []
    pairs = [(one["loss_before"], one["loss_after"]) for one in outcomes]
    pairs = [(before, after) for before, after in pairs if before is not None and after is not None]
    if not pairs:
        return None
    before, after = zip(*pairs, strict=True)
    return sum(before) / len(before), sum(after) / len(after)


@dataclass(frozen=True, slots=True)
class OverTime:
    """Plots over the newest commits; the same numbers stand in the timeline."""

    kl: Markup
    loss: Markup


def plot_over_time(commits: "Sequence[WeightCommit]") -> OverTime:
    """How far each session moved the weights, and where it left the loss of its examples."""
    newest = commits[-PLOTTED:]
    kl = [
        (float(one.number), float(found["mean"]))
        for one in newest
        if (found := (one.details.get("result") or {}).get("kl")) and found.get("mean") is not None
    ]
    loss = [(float(one.number), found[1]) for one in newest if (found := mean_loss(one)) is not None]
    return OverTime(
        line_plot(kl, f"KL in nats per token of {len(kl)} sessions, by commit number", dots=True),
        line_plot(loss, f"Mean loss after {len(loss)} sessions, by commit number", dots=True),
    )


# ---------------------------------------------------------------------- two commits beside each other


@dataclass(frozen=True, slots=True)
class Spoken:
    """What the model said in a lesson's context around one session, as it was recorded then."""

    lesson: TaughtLesson
    commit: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two states of the weights; ids are None for the weights as they came."""

    a: str | None
    b: str | None
    only_a: Sequence[TaughtLesson]
    only_b: Sequence[TaughtLesson]
    both: int
    spoken: Sequence[Spoken]


def compare_commits(
    site: "Site",
    commits: "Sequence[WeightCommit]",
    a: str | None,
    b: str | None,
    ledgered: Ledgered,
    reach: Reach,
) -> Comparison:
    """The lessons that one holds and the other does not, and what was said around the sessions between."""
    from understudy.weights import lessons_held

    place = {commit.id: number for number, commit in enumerate(commits, start=1)}
    ends = [0 if one is None else place[one] for one in (a, b)]
    held = [lessons_held(commits[:end]) for end in ends]
    between = commits[min(ends) : max(ends)]
    return Comparison(
        a,
        b,
        [taught(one, ledgered, reach) for one in sorted(held[0] - held[1])],
        [taught(one, ledgered, reach) for one in sorted(held[1] - held[0])],
        len(held[0] & held[1]),
        list(itertools.islice(_spoken(site, between, ledgered, reach), SPOKEN_SHOWN)),
    )


def _spoken(
    site: "Site", commits: "Sequence[WeightCommit]", ledgered: Ledgered, reach: Reach
) -> Iterator[Spoken]:
    """What was recorded around each session, newest first, of lessons that the visitor may read."""
    for commit in reversed(commits):
        for lesson in (taught(identity, ledgered, reach) for identity in commit.lessons):
            if lesson.text is None:
                continue
            for training in site.ledger.trainings(lesson.id):
                said = training.result.answer_before, training.result.answer_after
                if training.weight_commit == commit.id and said != (None, None):
                    yield Spoken(lesson, commit.id, *said)
