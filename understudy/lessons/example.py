"""A lesson as token ids: what the trainer is given."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised continuation of a frozen context.

    `context_ids` is read and never supervised; `continuation_ids` is what the model is to say after it;
    `rejected_ids` is what it said instead, for objectives that compare. `kept` marks replay that shows
    behaviour which must survive (a push-back, a question back); contrast replay draws on it; `learned`
    marks replay that is a lesson learned before. `teacher_context_ids` is the context of the teacher in
    self-distillation: it holds the criticism that `context_ids` leaves out.
    """

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...] | None = None
    weight: float = 1.0
    kept: bool = False
    learned: bool = False
    teacher_context_ids: tuple[int, ...] | None = None
