"""Which approved lessons are trained next, and with which settings."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.lessons import Ledger, LedgerEntry


@dataclass(frozen=True, slots=True)
class Asked:
    """Lessons to be trained as one session, with what its settings have otherwise than the workspace's."""

    lessons: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


class Approvals:
    """Approved lessons in the ledger, less those that must not be trained by themselves, and the sessions
    that people asked for with settings of their own.

    The ledger is on disk; the wishes are in memory. A server that dies leaves approved lessons, and the next
    one trains them with the workspace's settings.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._set_aside: set[str] = set()
        self._asked: deque[Asked] = deque()

    def approve(
        self, lessons: Sequence[str], by: str, why: str, settings: Mapping[str, Any] | None
    ) -> tuple[LedgerEntry, ...]:
        """Approve lessons together; with `settings` they wait for a session of their own with these.

        Raises LessonError; then nothing changed.
        """
        keys = tuple(self._ledger.get(lesson).id for lesson in lessons)
        before = set(self._set_aside)
        if settings:
            self._set_aside.update(keys)  # first: the loop looks for what is approved at any time
        else:
            self._set_aside.difference_update(keys)
        try:
            approved = self._ledger.approve_together(keys, by, why)
        except BaseException:
            self._set_aside = before
            raise
        if settings:
            self._asked.append(Asked(keys, dict(settings)))
        return approved

    def ask(self, lessons: Sequence[str]) -> None:
        """Have approved lessons trained that were set aside, or that wait for a person to say so."""
        self._asked.append(Asked(tuple(self._ledger.get(lesson).id for lesson in lessons)))

    def take(self, *, by_themselves: bool) -> Asked | None:
        """What is to be trained now: what was asked for, else (`by_themselves`) all that is approved."""
        approved = [entry.id for entry in self._ledger.list("approved")]
        while self._asked:
            asked = self._asked.popleft()
            still = tuple(key for key in asked.lessons if key in approved)
            if still:
                return Asked(still, asked.settings)
        left = tuple(key for key in approved if key not in self._set_aside)
        return Asked(left) if left and by_themselves else None

    def set_aside(self, lessons: Sequence[str]) -> None:
        """Until someone asks: the same failure would come again at once."""
        self._set_aside.update(lessons)

    def settled(self, lessons: Sequence[str]) -> None:
        """They were trained: approved once more, they are like any other."""
        self._set_aside.difference_update(lessons)
