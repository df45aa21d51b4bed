"""The decode loop: one batch of rows, one token per row and pass.

Shapes: b rows, t positions, v vocabulary.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from understudy.engine.detokenize import StopGuard, TokenTexts
from understudy.engine.errors import BadRequest, PromptTooLong
from understudy.engine.loading import LoadedModel
from understudy.engine.request import FinishReason, GenerationRequest, GenerationStep, TokenLogprob
from understudy.engine.sampling import Chooser, token_logprobs
from understudy.engine.tap import Tap, Watch
from understudy.engine.turns import Turns


def check_prompts(loaded: LoadedModel, prompts: Sequence[Sequence[int]]) -> None:
    """Raises PromptTooLong or BadRequest for prompts that this model cannot be given."""
    for prompt in prompts:
        if len(prompt) >= loaded.context_length:
            raise PromptTooLong(len(prompt), loaded.context_length)
        check_tokens(loaded, prompt)


def check_tokens(loaded: LoadedModel, token_ids: Sequence[int]) -> None:
    """Raises BadRequest when an id is not in the vocabulary."""
    unknown = [token for token in token_ids if not 0 <= token < loaded.vocabulary]
    if unknown:
        raise BadRequest(
            f"expected token ids from 0 to {loaded.vocabulary - 1}, got {unknown[0]}: "
            "encode the text with this model's own tokenizer"
        )


@torch.no_grad()
def decode(
    loaded: LoadedModel,
    texts: TokenTexts,
    request: GenerationRequest,
    cancelled: Callable[[], bool],
    turns: Turns,
    tap: Tap | None = None,
) -> Iterator[tuple[GenerationStep, ...]]:
    """Answer a request; yields, after each pass, the steps of the rows that gained something.

    Prompts are read at once; then each token takes one of the `turns` that all requests share. Ends early,
    with rows unfinished, once `cancelled()`. Weights may change under the loop: each pass uses what it
    finds, and what earlier passes cached stays as it was. Readouts and steering need the `tap`. Raises
    PromptTooLong or BadRequest.
    """
    check_prompts(loaded, request.prompts)
    watch = Watch(tap, request)
    sampling = request.sampling
    prompts = [prompt for prompt in request.prompts for _ in range(request.samples)]
    rows = [_Row(number, prompt, loaded, texts, request) for number, prompt in enumerate(prompts)]
    chooser = Chooser(sampling, len(rows))
    batch = _Batch(loaded.model, request.prompts, request.samples, watch)
    chosen: torch.Tensor | None = None
    going: list[int] = []
    while rows and not cancelled():
        with turns:
            if chosen is not None:
                batch.advance(chosen, going)
            chosen = chooser.choose(batch.logits_bv, [row.number for row in rows])
            logprobs: Sequence[TokenLogprob | None] = [None] * len(rows)
            if sampling.logprobs is not None:
                logprobs = token_logprobs(batch.logits_bv, chosen, sampling.logprobs)
            steps = [row.take(*taken) for row, *taken in zip(rows, chosen.tolist(), logprobs, strict=True)]
        yield watch.tell(steps)
        going = [place for place, step in enumerate(steps) if step.finish_reason is None]
        rows = [rows[place] for place in going]


class _Row:
    """One answer in the making: its text so far and when it ends."""

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        loaded: LoadedModel,
        texts: TokenTexts,
        request: GenerationRequest,
    ) -> None:
        self.number = number
        room = loaded.context_length - len(prompt)
        self._left = min(request.sampling.max_tokens or room, room)
        self._ends = frozenset() if request.sampling.ignore_eos else loaded.eos_ids
        self._reader = texts.reader(prompt)
        self._guard = StopGuard(request.sampling.stop)

    def take(self, token_id: int, logprob: TokenLogprob | None) -> GenerationStep:
        self._left -= 1
        reason: FinishReason | None = None
        text = ""
        if token_id in self._ends:
            reason = "stop"
        else:
            text = self._guard.pass_on(self._reader.read(token_id))
            if not self._guard.stopped and self._left == 0:
                reason = "length"
        if reason is not None:
            text += self._guard.pass_on(self._reader.finish()) + self._guard.finish()
        if self._guard.stopped:
            reason = "stop"
        return GenerationStep(
            self.number, text, (token_id,), (logprob,) if logprob is not None else (), reason
        )


class _Batch:
    """Rows that are decoded together: left-padded prompts, then one column per pass."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], samples: int, watch: Watch) -> None:
        self._model = model
        self._watch = watch
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        device = model.device
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        self._cache: Any = None
        self._padded = bool((mask == 0).any())
        self._mask_bt = mask.to(device)
        self._next_b = self._mask_bt.sum(-1)
        self._last_b = self._next_b - 1  # where each row's prompt ends
        self.logits_bv = self._forward(ids.to(device), (self._mask_bt.cumsum(-1) - 1).clamp(min=0))
        if samples > 1:  # prompts are read once, however many answers they get
            self._select(torch.arange(len(prompts), device=device).repeat_interleave(samples))

    def advance(self, chosen_b: torch.Tensor, going: list[int]) -> None:
        """Feed the chosen tokens of the rows at `going`, and drop the others."""
        kept = torch.tensor(going, device=chosen_b.device)
        if len(going) < len(chosen_b):
            self._select(kept)
        if self._padded:
            self._mask_bt = torch.cat([self._mask_bt, self._mask_bt.new_ones(len(going), 1)], dim=-1)
        self.logits_bv = self._forward(chosen_b[kept][:, None], self._next_b[:, None])
        self._next_b = self._next_b + 1

    def _forward(self, ids_bt: torch.Tensor, positions_bt: torch.Tensor) -> torch.Tensor:
        given: dict[str, Any] = {"position_ids": positions_bt} if self._takes_positions else {}
        with self._watch.on(positions_bt, self._last_b):
            output = self._model(
                input_ids=ids_bt,
                attention_mask=self._mask_bt if self._padded else None,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
                **given,
            )
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _select(self, rows: torch.Tensor) -> None:
        self._cache.reorder_cache(rows)
        self._watch.select(rows)
        self._mask_bt = self._mask_bt[rows]
        self._next_b = self._next_b[rows]
        self._last_b = self._last_b[rows]
        self.logits_bv = self.logits_bv[rows]
