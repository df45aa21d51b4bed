"""Lessons as a page shows them, and to whom."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup

from understudy.conversation import Kind, NotAllowed, Right, compare_words
from understudy.lessons import SHORT_ID, LedgerEntry, Lesson, LessonError, State, UnknownLesson, mine
from understudy.server.pages.message_views import name_of
from understudy.server.pages.rendering import templates
from understudy.server.pages.visitors import Visitor

if TYPE_CHECKING:
    from understudy.server.pages.site import Site

STATES: tuple[State, ...] = ("proposed", "approved", "trained", "kept", "reverted", "refused")
PAGE = 50
CLIPPED_ROW, CLIPPED_DIFF, CLIPPED_PAGE = 400, 5_000, 20_000
"""Characters of a text that a row, a word diff and a page show. Two texts of 5,000 characters that have
nothing but small words in common take a second to compare; of 20,000, ten.
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which lessons a visitor may see, and decide about. `files` are the conversations that there are."""

    visitor: Visitor
    files: frozenset[str]

    @classmethod
    def of(cls, site: "Site", visitor: Visitor) -> "Reach":
        """As the conversations are now."""
        return cls(visitor, frozenset(site.repository.files()))

    def may_see(self, lesson: Lesson) -> bool:
        """Whoever reads a conversation sees its lessons; those of none take the right to teach."""
        file = lesson.source.file
        return self.visitor.may(Right.READ, file) if file in self.files else self.may_teach(lesson)

    def may_teach(self, lesson: Lesson) -> bool:
        """Whether the visitor decides about this lesson."""
        return self.visitor.may(Right.TEACH, lesson.source.file or None)

    def find(self, site: "Site", identity: str) -> LedgerEntry:
        """A lesson that the visitor may see. Raises UnknownLesson, whether it is hidden or not there."""
        unknown = UnknownLesson(f"no lesson {identity[:80]!r} that you may see: follow a link from the list")
        if len(identity) < SHORT_ID:
            raise unknown
        try:
            entry = site.ledger.get(identity)
        except LessonError as error:
            raise unknown from error
        if not self.may_see(entry.lesson):
            raise unknown
        return entry

    def find_taught(self, site: "Site", identity: str) -> LedgerEntry:
        """A lesson that the visitor decides about. Raises UnknownLesson and NotAllowed."""
        entry = self.find(site, identity)
        if not self.may_teach(entry.lesson):
            raise NotAllowed(
                f"{self.visitor.name or 'a stranger'} may not decide about lesson {entry.short}: that takes "
                f"the right 'teach' in {entry.lesson.source.file or 'this workspace'}"
            )
        return entry


@dataclass(frozen=True, slots=True)
class LessonCard:
    """A lesson in a list or on its page. `link` leads to the message, `place` names where it is from."""

    entry: LedgerEntry
    pieces: Sequence[Any]
    question: str
    link: str | None
    place: str
    may_teach: bool

    @property
    def whole(self) -> bool:
        """Whether the word diff shows the texts to their ends."""
        lesson = self.entry.lesson
        return max(len(lesson.chosen), len(lesson.rejected or "")) <= CLIPPED_DIFF

    @property
    def result(self) -> str:
        """The loss before and after, in words."""
        found = self.entry.result
        if found is None or found.loss_before is None:
            return ""
        if found.gated and found.loss_after is None:
            return f"known already ({found.loss_before:.2f})"
        after = "-" if found.loss_after is None else f"{found.loss_after:.2f}"
        return f"{found.loss_before:.2f} → {after}"


def lesson_card(entry: LedgerEntry, reach: Reach, clipped: int = CLIPPED_ROW) -> LessonCard:
    """The lesson with its word diff, each text cut off at `clipped` characters."""
    lesson, source = entry.lesson, entry.lesson.source
    known = source.file in reach.files
    link = f"/talk/{quote(name_of(source.file))}#{quote(source.message)}" if known else None
    asked = lesson.context[-1].content if lesson.context else ""
    return LessonCard(
        entry,
        compare_words(_begin(lesson.rejected or "", clipped), _begin(lesson.chosen, clipped)),
        clip(asked, clipped),
        link,
        name_of(source.file) if known else source.file.rpartition("/")[2],
        reach.may_teach(lesson),
    )


def _begin(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def clip(text: str, most: int) -> str:
    """The text's beginning, and how much is left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a list is to show: the query of `/learn`."""

    state: State | None = None
    author: str = ""
    text: str = ""
    conversation: str = ""
    page: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1

    def fits(self, entry: LedgerEntry) -> bool:
        """Whether a lesson is meant, whatever its state."""
        lesson = entry.lesson
        texts = (lesson.chosen, lesson.rejected or "", *(turn.content for turn in lesson.context[-1:]))
        needle = self.text.casefold()
        return (
            self.author in ("", lesson.source.author)
            and self.conversation in ("", lesson.source.file)
            and (not needle or any(needle in text.casefold() for text in texts))
        )


@dataclass(frozen=True, slots=True)
class LessonList:
    """A page of lessons, newest first, with what can be chosen from."""

    cards: Sequence[LessonCard]
    counts: Mapping[str, int]
    total: int
    pages: int
    authors: Sequence[str]
    conversations: Sequence[str]


def list_lessons(site: "Site", reach: Reach, wanted: Wanted) -> LessonList:
    """The lessons that a visitor may see and asked for. Reads the whole ledger: not for the event loop."""
    seen = [entry for entry in reversed(site.ledger.list()) if reach.may_see(entry.lesson)]
    fitting = [entry for entry in seen if wanted.fits(entry)]
    counts = Counter(entry.state for entry in fitting)
    chosen = [entry for entry in fitting if wanted.state in (None, entry.state)]
    start = (wanted.page - 1) * PAGE
    return LessonList(
        [lesson_card(entry, reach) for entry in chosen[start : start + PAGE]],
        {state: counts[state] for state in STATES},
        len(chosen),
        max(1, math.ceil(len(chosen) / PAGE)),
        sorted({entry.lesson.source.author for entry in seen} - {""}),
        sorted({entry.lesson.source.file for entry in seen} & reach.files),
    )


def teachers(site: "Site", visitor: Visitor, file: str) -> list[str]:
    """Who may approve a lesson of this conversation, by display name; empty where everyone may."""
    participants = visitor.participants
    if participants.unrestricted:
        return []
    return sorted(
        person.display
        for person in participants.people.values()
        if person.kind is Kind.PERSON and participants.may(person.name, Right.TEACH, file or None)
    )


# ---------------------------------------------------------------------- below an edited message


def lesson_preview(site: "Site", visitor: Visitor, entry: LedgerEntry) -> Markup:
    """What a correction would teach: the context folded, the word diff, who may approve, the settings folded
    away, and the buttons. It renews itself when one of them was pressed.
    """
    reach = Reach.of(site, visitor)
    shown = preview_context(site, reach, entry)
    return Markup(  # the template escapes
        templates().get_template("lesson_preview.html").render(visitor=visitor, **shown)
    )


def preview_context(site: "Site", reach: Reach, entry: LedgerEntry) -> dict[str, Any]:
    """What the preview's template is given."""
    return {
        "card": lesson_card(entry, reach, CLIPPED_DIFF),
        "clip": clip,
        "teachers": teachers(site, reach.visitor, entry.lesson.source.file),
        **settings_context(site),
    }


def settings_context(site: "Site") -> dict[str, Any]:
    """What the folded settings of a session show: the workspace's own, and the objectives to choose from."""
    from understudy.training import objective_names

    return {"training": site.workspace.settings.training, "objectives": objective_names()}


def propose_now(site: "Site", file: str, message: str, commit: str | None = None) -> LedgerEntry | None:
    """Enter the lesson of an edit that was just made, without waiting for the watcher; None when the edit
    teaches nothing. `commit` is the edit's; without it, the message's last.

    Reads Git: not for the event loop.
    """
    made = commit or site.repository.history(file, message)[-1].commit
    lessons = [
        one
        for one in mine(site.repository, site.model_name, since=f"{made}^")
        if (one.source.file, one.source.message) == (file, message)
    ]
    return site.ledger.propose(lessons[-1]).entry if lessons else None
