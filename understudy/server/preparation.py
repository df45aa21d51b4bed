"""From lessons and rehearsals to examples that the trainer can take: token ids, checked."""

import logging
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from understudy.lessons import ChatMessage, Example, LedgerEntry
from understudy.server.errors import ApiError
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Engine

log = logging.getLogger(__name__)
_PROBE_SEED = 0  # any: what matters is that each session is measured on the same examples


@dataclass(frozen=True, slots=True)
class Unteachable:
    """A lesson that cannot be made into an example, and why."""

    id: str
    lesson: str
    why: str


class Preparation:
    """Encodes with the served model's tokenizer. Slow for many lessons: call it off the event loop."""

    def __init__(self, workspace: Workspace, engine: "Engine") -> None:
        self._workspace = workspace
        self._engine = engine
        self._rehearsed: tuple[Example, ...] | None = None
        self._learned: dict[str, Example | None] = {}
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ what goes with a session

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

    def replay(
        self, learned: Sequence[LedgerEntry] = (), shown: Sequence[tuple[tuple[ChatMessage, ...], str]] = ()
    ) -> tuple[Example, ...]:
        """What a session may mix in: the rehearsals, the answers that `shown` has of behaviour to be kept,
        and the lessons learned before; the last two marked as such.

        A lesson that this model's chat template cannot carry is left out, and the log says so once.
        """
        from understudy.engine import encode_lesson

        past = [self._encode_learned(entry) for entry in learned]
        kept = [replace(encode_lesson(self._engine.tokenizer, *one), kept=True) for one in shown]
        return (*self.rehearsals(), *kept, *(example for example in past if example is not None))

    def probe(self, tokens: int) -> tuple[Example, ...]:
        """Rehearsals on which a session's effect is measured: the same ones each time, those to be protected
        and others in turn, until their continuations hold `tokens`, or all of them.
        """
        shuffled = random.Random(_PROBE_SEED).sample(self.rehearsals(), len(self.rehearsals()))
        kinds = [[e for e in shuffled if e.kept], [e for e in shuffled if not e.kept]]
        in_turn = [kind[place] for place in range(len(shuffled)) for kind in kinds if place < len(kind)]
        chosen: list[Example] = []
        for example in in_turn:
            if sum(len(one.continuation_ids) for one in chosen) >= tokens:
                break
            chosen.append(example)
        return tuple(chosen)

    def _encode_learned(self, entry: LedgerEntry) -> Example | None:
        with self._lock:
            if entry.id not in self._learned:
                taught, unteachable = self.teachable((entry,))
                self._learned[entry.id] = replace(taught[0][1], learned=True) if taught else None
                for one in unteachable:
                    log.warning("lesson %s is not rehearsed: %s", one.lesson, one.why)
            return self._learned[entry.id]

    # ------------------------------------------------------------------ lessons of the ledger

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

    def encode(
        self,
        where: str,
        prompt: Sequence[ChatMessage],
        chosen: str,
        rejected: str | None = None,
        weight: float = 1.0,
    ) -> Example:
        """A lesson of a request, which stands at `where` there. Raises ApiError(400)."""
        from understudy.engine import EngineError, encode_lesson

        try:
            encoded = encode_lesson(self._engine.tokenizer, prompt, chosen, rejected)
        except EngineError as error:
            raise ApiError(400, f"{where}: {error}", param=where) from error
        example = replace(encoded, weight=weight)
        self.check_one(example, where)
        return example

    # ------------------------------------------------------------------ checks

    def check(self, examples: Sequence[Example], param: str = "examples") -> None:
        """Raises ApiError(400) for nothing to learn, ids outside the vocabulary, and what is too long."""
        if not examples:
            raise ApiError(400, "expected at least one example, got none", param=param)
        for number, example in enumerate(examples):
            self.check_one(example, f"{param}[{number}]")

    def check_one(self, example: Example, where: str) -> None:
        """As `check`, for the example that stands at `where`."""
        vocabulary, limit = self._engine.vocabulary, self._engine.context_length
        for name in ("context_ids", "continuation_ids", "rejected_ids", "teacher_context_ids"):
            ids: tuple[int, ...] | None = getattr(example, name)
            field = f"{where}.{name}"
            if ids is None:
                continue
            if name in ("continuation_ids", "rejected_ids") and not ids:
                raise ApiError(400, f"{field}: expected {name}, got none", param=field)
            if ids and not (min(ids) >= 0 and max(ids) < vocabulary):
                wrong = next(token for token in ids if not 0 <= token < vocabulary)
                problem = f"{field}: expected token ids from 0 to {vocabulary - 1}, got {wrong}"
                raise ApiError(400, problem, param=field)
        answer = max(len(example.continuation_ids), len(example.rejected_ids or ()))
        context = max(len(example.context_ids), len(example.teacher_context_ids or ()))
        if context + answer > limit:
            problem = f"{where}: expected at most {limit} tokens, got {context + answer}: shorten the context"
            raise ApiError(400, problem, param=where, code="context_length_exceeded")
