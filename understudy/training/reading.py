"""Reading examples: their contexts frozen, alone or as a trie, and what the model gives their answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training.frozen import (
    FrozenContext,
    continuation_log_probabilities,
    continuation_logits,
    freeze_context,
    freeze_together,
)
from understudy.training.objectives import LogProbabilities, Objective


@dataclass(frozen=True, slots=True)
class Reading:
    """What the weights of one moment give an example, without gradients: the log-probabilities of its
    continuation (T) and of its rejected answer (R); the distribution (T, V) after the teacher's context.
    """

    chosen: Tensor
    rejected: Tensor | None
    teacher: Tensor | None = None

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the continuation."""
        return -self.chosen.mean().item()

    @property
    def rejected_loss(self) -> float | None:
        """Mean negative log-likelihood of the rejected answer, if there is one."""
        return None if self.rejected is None else -self.rejected.mean().item()

    @property
    def first_token(self) -> float:
        """Probability of the continuation's first token."""
        return self.chosen[0].exp().item()


def freeze_all(
    model: nn.Module, contexts: Sequence[Sequence[int]], settings: TrainingSettings
) -> Iterator[tuple[int, FrozenContext]]:
    """Every context with its place among them, frozen; use each before you ask for the next.

    With batches, contexts that begin alike are read once (a trie), in an order of its own; with one lesson
    at a time each is read by itself, in the order given.
    """
    if settings.batch_size > 1:
        yield from freeze_together(model, contexts, chunk=settings.freeze_chunk)
        return
    for place, context in enumerate(contexts):
        yield place, freeze_context(model, _ids(model, context)[None], chunk=settings.freeze_chunk)


@torch.no_grad()
def measure(
    model: nn.Module, examples: Sequence[Example], settings: TrainingSettings, *, teacher: bool = False
) -> list[Reading]:
    """What the model as it is gives each example. With `teacher`, also the distribution after the context
    of those that have a teacher: tokens times vocabulary numbers each, in the precision of the weights.
    """
    readings: dict[int, Reading] = {}
    for place, frozen in freeze_all(model, [example.context_ids for example in examples], settings):
        example = examples[place]
        readings[place] = Reading(
            continuation_log_probabilities(model, frozen, _ids(model, example.continuation_ids)),
            _rejected(model, frozen, example),
        )
        del frozen  # before the next is read
    if teacher:
        taught = [place for place, example in enumerate(examples) if example.teacher_context_ids is not None]
        contexts = [examples[place].teacher_context_ids or () for place in taught]
        for turn, frozen in freeze_all(model, contexts, settings):
            ids = _ids(model, examples[taught[turn]].continuation_ids)
            held = readings[taught[turn]]
            readings[taught[turn]] = Reading(
                held.chosen, held.rejected, continuation_logits(model, frozen, ids)
            )
            del frozen
    return [readings[place] for place in range(len(examples))]


def read(
    model: nn.Module, frozen: FrozenContext, example: Example, objective: Objective, before: Reading | None
) -> LogProbabilities:
    """What the objective needs to know of the example, with gradients; `before` is what the weights before
    the session gave it, for objectives that compare with them.
    """
    ids = _ids(model, example.continuation_ids)
    distribution = None
    if objective.teacher:
        distribution = log_distribution(continuation_logits(model, frozen, ids))
        chosen = distribution.gather(-1, ids[:, None])[:, 0]
    else:
        chosen = continuation_log_probabilities(model, frozen, ids)
    return LogProbabilities(
        chosen,
        _rejected(model, frozen, example) if objective.rejected else None,
        before.chosen if before is not None and objective.reference else None,
        before.rejected if before is not None and objective.reference else None,
        distribution,
        log_distribution(before.teacher) if before is not None and before.teacher is not None else None,
    )


def log_distribution(logits: Tensor) -> Tensor:
    """Log-probabilities over the vocabulary, at least fp32."""
    return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


def _rejected(model: nn.Module, frozen: FrozenContext, example: Example) -> Tensor | None:
    if example.rejected_ids is None:
        return None
    return continuation_log_probabilities(model, frozen, _ids(model, example.rejected_ids))


def _ids(model: nn.Module, ids: Sequence[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.long, device=next(model.parameters()).device)
