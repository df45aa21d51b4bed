"""Pretraining: weighted loss, optimizers, schedule, and the loop over the corpus.

Matrices are trained with Muon (Jordan et al. 2024), the rest with AdamW, at a rate that is warmed up,
held, and let down linearly.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from understudy.pocket.corpus import Document
from understudy.pocket.recipe import Recipe, Stage
from understudy.pocket.tokenization import rows


def optimizers(model: Any, stage: Stage, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices, AdamW for embeddings, norms, convolutions, decays and narrow gates.

    AdamW alone where the stage has no Muon.
    """
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        wide = (
            stage.muon
            and parameter.ndim == 2
            and "embed" not in name
            and "in_proj_a" not in name
            and "in_proj_b" not in name
        )
        (matrices if wide else rest).append(parameter)
    rate = stage.learning_rate
    adamw = torch.optim.AdamW(rest, lr=rate, betas=recipe.betas, weight_decay=0.0, fused=True)
    if not matrices:
        return (adamw,)
    muon = torch.optim.Muon(
        matrices,
        lr=rate,
        weight_decay=recipe.matrix_weight_decay,
        momentum=recipe.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    return muon, adamw


def rate_share(step: int, stage: Stage, recipe: Recipe) -> float:
    """The share of the full learning rate at `step` of a stage: warm up, hold, let down linearly."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    held = stage.steps * stage.constant_share
    down = max(0.0, (step - held) / max(1.0, stage.steps - held))
    return warm * (1 - (1 - recipe.final_rate_share) * down)


def weighted_loss(model: Any, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross entropy, each token counted by its weight. ids, weights: [rows, tokens + 1]."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    each = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1), reduction="none"
    )
    wanted = weights[:, 1:].reshape(-1)
    return (each * wanted).sum() / wanted.sum()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a stage of a pretraining run stands."""

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float

    @property
    def seconds_left(self) -> float:
        """What the rest will take at the pace so far."""
        return self.seconds / self.step * (self.steps - self.step)

    def __str__(self) -> str:
        pace = self.tokens / self.seconds
        return (
            f"step {self.step}/{self.steps}  loss {self.loss:.3f}  {self.tokens / 1e6:.2f} M tokens  "
            f"{pace:,.0f} tokens/s  {self.seconds_left / 60:.1f} min left"
        )


Report = Callable[[Progress], None]


def pretrain(
    model: Any,
    tokenizer: Any,
    texts: Iterator[Document],
    stage: Stage,
    recipe: Recipe,
    report: Report,
    every: int = 100,
) -> Sequence[float]:
    """Train `model` in place on `texts` for one stage; returns the loss of each step. One pass only."""
    found, losses = optimizers(model, stage, recipe), []
    supply = rows(tokenizer, texts, recipe)
    began = time.monotonic()
    model.train()
    for step in range(stage.steps):
        batch = list(islice(supply, recipe.rows_per_step))
        if len(batch) < recipe.rows_per_step:
            raise ValueError(
                f"the corpus ended at step {step} of {stage.steps}: give more documents or fewer steps"
            )
        ids = torch.tensor([row for row, _ in batch])
        weights = torch.tensor([row for _, row in batch])
        loss = weighted_loss(model, ids, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.largest_gradient_norm)
        for optimizer in found:
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * rate_share(step, stage, recipe)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == stage.steps:
            recent = losses[-every:]
            tokens = (step + 1) * recipe.rows_per_step * recipe.tokens_per_row
            seconds = time.monotonic() - began
            report(Progress(step + 1, stage.steps, sum(recent) / len(recent), tokens, seconds))
    model.eval()
    return losses
