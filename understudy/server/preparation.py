"""From lessons and rehearsals to examples that the trainer can take: token ids, checked."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from understudy.lessons import Example, LedgerEntry
from understudy.server.errors import ApiError
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import EmbeddedEngine


@dataclass(frozen=True, slots=True)
class Unteachable:
    """A lesson that cannot be made into an example, and why."""

    id: str
    lesson: str
    why: str


class Preparation:
    """Encodes with the served model's tokenizer. Slow for many lessons: call it off the event loop."""

    def __init__(self, workspace: Workspace, engine: "EmbeddedEngine") -> None:
        self._workspace = workspace
        self._engine = engine
        self._rehearsed: tuple[Example, ...] | None = None
        self._lock = threading.Lock()

    def rehearsals(self) -> tuple[Example, ...]:
        """The workspace's rehearsals, encoded once. Raises ConfigError for a line that cannot be used."""
        from understudy.engine import encode_lesson

        with self._lock:
            if self._rehearsed is None:
                self._rehearsed = tuple(
                    replace(
                        encode_lesson(self._engine.tokenizer, line.messages[:-1], line.messages[-1].content),
                        kept=line.kept,
                    )
                    for line in self._workspace.rehearsals()
                )
            return self._rehearsed

    def example(self, entry: LedgerEntry) -> Example:
        """A lesson as token ids. Raises BrokenTemplate when the chat template cannot carry it."""
        from understudy.engine import encode_lesson

        lesson = entry.lesson
        return encode_lesson(self._engine.tokenizer, lesson.context, lesson.chosen, lesson.rejected)

    def teachable(
        self, entries: Sequence[LedgerEntry]
    ) -> tuple[list[tuple[LedgerEntry, Example]], list[Unteachable]]:
        """The lessons with their examples, and those that cannot be taught."""
        good: list[tuple[LedgerEntry, Example]] = []
        bad: list[Unteachable] = []
        for entry in entries:
            try:
                example = self.example(entry)
                self.check((example,))
            except (ValueError, ApiError) as error:
                bad.append(Unteachable(entry.id, entry.short, str(error)))
            else:
                good.append((entry, example))
        return good, bad

    def check(self, examples: Sequence[Example]) -> None:
        """Raises ApiError(400) for nothing to learn, ids outside the vocabulary, and what is too long."""
        if not examples:
            raise ApiError(400, "expected at least one example, got none", param="examples")
        vocabulary, limit = self._engine.loaded.vocabulary, self._engine.context_length
        for number, example in enumerate(examples):
            where = f"examples[{number}]"
            ids = (*example.context_ids, *example.continuation_ids, *(example.rejected_ids or ()))
            length = len(example.context_ids) + len(example.continuation_ids)
            if not example.continuation_ids:
                raise ApiError(400, f"{where}: expected continuation_ids, got none", param="examples")
            if not all(0 <= token < vocabulary for token in ids):
                problem = f"{where}: expected token ids from 0 to {vocabulary - 1}, got others"
                raise ApiError(400, problem, param="examples")
            if length > limit:
                problem = f"{where}: expected at most {limit} tokens, got {length}: shorten the context"
                raise ApiError(400, problem, param="examples", code="context_length_exceeded")
