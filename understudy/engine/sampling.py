"""Choosing tokens from logits. Shapes: b rows, v vocabulary."""

import secrets

import torch

from understudy.engine.request import Sampling, TokenLogprob


class Chooser:
    """Chooses one token per row and step, from a random stream of its own.

    Each step draws one number per row of the *whole* request, also for rows that have ended, so what a
    row is given depends on the seed, its number and the step alone.
    """

    def __init__(self, sampling: Sampling, rows: int) -> None:
        self._sampling = sampling
        self._rows = rows
        self._generator = torch.Generator()
        seed = sampling.seed if sampling.seed is not None else secrets.randbits(63)
        self._generator.manual_seed(seed % 2**64)

    def choose(self, logits_bv: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """Token ids (b,) for the given rows of the request."""
        if self._sampling.temperature == 0:
            return logits_bv.argmax(-1)
        uniforms = torch.rand(self._rows, generator=self._generator, dtype=torch.float64)
        return pick(logits_bv, uniforms[rows].to(logits_bv.device), self._sampling)


def pick(logits_bv: torch.Tensor, uniforms_b: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Token ids (b,) by inverting the cumulative distribution at `uniforms_b` in [0, 1).

    Top-k keeps the k likeliest tokens; nucleus sampling (arXiv 1904.09751, section 3.1) then keeps the
    smallest set whose mass reaches top_p, so the likeliest token always stays.
    """
    scaled = logits_bv.double() / sampling.temperature
    order = None
    if sampling.top_k:
        scaled, order = scaled.topk(min(sampling.top_k, scaled.shape[-1]), dim=-1)
    elif sampling.top_p < 1:
        scaled, order = scaled.sort(dim=-1, descending=True)
    mass = scaled.softmax(-1)
    if sampling.top_p < 1:
        before = mass.cumsum(-1) - mass
        mass = mass.where(before < sampling.top_p, 0.0)
    cumulative = mass.cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not carry the target past the last token that has any mass.
    target = (uniforms_b[:, None] * total).minimum(total.nextafter(torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target, right=True)
    return (index if order is None else order.gather(-1, index)).squeeze(-1)


def token_logprobs(logits_bv: torch.Tensor, chosen_b: torch.Tensor, top: int) -> list[TokenLogprob]:
    """Each chosen token's log-probability, with the `top` likeliest alternatives."""
    logprobs = logits_bv.float().log_softmax(-1)
    own = logprobs.gather(-1, chosen_b[:, None]).squeeze(-1).tolist()
    best = logprobs.topk(min(top, logprobs.shape[-1]), dim=-1)
    alternatives = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        TokenLogprob(token, logprob, tuple(zip(ids, values, strict=True)))
        for token, logprob, (ids, values) in zip(chosen_b.tolist(), own, alternatives, strict=True)
    ]
