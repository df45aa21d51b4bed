"""What a session refuses before anything is trained, so that nothing fails, or trains nonsense, midway."""

import math
from collections.abc import Sequence

from torch import nn

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training.frozen import ContextTooLong
from understudy.training.objectives import Objective
from understudy.training.outcomes import MissingProbe, UnusableExample


def check_examples(
    model: nn.Module,
    examples: Sequence[Example],
    replay: Sequence[Example],
    probe: Sequence[Example],
    objective: Objective,
    settings: TrainingSettings,
) -> None:
    """Raise UnusableExample, ContextTooLong or MissingProbe, naming the example and what it lacks."""
    kinds = (("example", examples), ("replay example", replay), ("probe example", probe))
    for kind, given in kinds:
        for place, example in enumerate(given):
            _check(model, example, f"{kind} {place}")
    for place, example in enumerate(examples):
        lacks = lacking(example, objective)
        if lacks is not None:
            raise UnusableExample(f"example {place}: the objective {settings.objective!r} {lacks}")
    if settings.max_kl is not None and not (probe and settings.probe_tokens):
        raise MissingProbe(
            f"expected probe examples and probe_tokens above 0 to hold max_kl {settings.max_kl:g}, got "
            f"{len(probe)} examples and {settings.probe_tokens} tokens: give some, or set max_kl to null"
        )


def lacking(example: Example, objective: Objective) -> str | None:
    """What the objective needs and the example does not have; None when it can be trained with it."""
    if objective.rejected and example.rejected_ids is None:
        return "compares with a rejected answer: expected rejected_ids, got none"
    if objective.rejected and example.rejected_ids == example.continuation_ids:
        return "compares with a rejected answer: expected one that differs from the chosen one, got the same"
    if objective.teacher and example.teacher_context_ids is None:
        return (
            "learns from the model's own answer with the criticism in view: "
            "expected teacher_context_ids, got none"
        )
    return None


def _check(model: nn.Module, example: Example, name: str) -> None:
    if not example.continuation_ids:
        raise UnusableExample(f"{name}: expected a continuation of at least 1 token, got none")
    if example.rejected_ids == ():
        raise UnusableExample(f"{name}: expected a rejected answer of at least 1 token, or None, got none")
    if not (example.weight > 0 and math.isfinite(example.weight)):
        raise UnusableExample(f"{name}: expected a positive weight, got {example.weight}")
    config = model.config.get_text_config()  # type: ignore[operator,union-attr]
    rejected, teacher = example.rejected_ids or (), example.teacher_context_ids
    for ids in (example.context_ids, example.continuation_ids, rejected, teacher or ()):
        wrong = [token for token in ids if not 0 <= token < config.vocab_size]
        if wrong:
            raise UnusableExample(
                f"{name}: expected token ids from 0 to {config.vocab_size - 1}, got {wrong[0]}: "
                "was it made with another model's tokenizer?"
            )
    if config.bos_token_id is None and (not example.context_ids or teacher == ()):
        raise UnusableExample(
            f"{name}: expected a context of at least 1 token, got none, and the model has no bos_token_id"
        )
    limit = getattr(config, "max_position_embeddings", None)
    context = max(len(example.context_ids), len(teacher or ()))
    tokens = context + max(len(example.continuation_ids), len(rejected))
    if limit is not None and tokens > limit:
        raise ContextTooLong(f"{name}: expected at most {limit} tokens, got {tokens}: shorten the context")
