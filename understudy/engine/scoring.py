"""Log-probabilities of chosen tokens, with logits only where they are asked for."""

from collections.abc import Iterator, Sequence

import torch

from understudy.engine.decoding import check_tokens
from understudy.engine.errors import BadRequest
from understudy.engine.loading import LoadedModel
from understudy.engine.request import Score, ScoreRequest

_TOKENS_PER_PASS = (
    2048  # bounds the logits of one pass: 2048 x 150k x 2 bytes = 0.6 GB for the largest vocabularies
)
_POSITIONS_PER_SOFTMAX = 256  # bounds the float32 copy of them


def score(loaded: LoadedModel, sequences: Sequence[ScoreRequest]) -> Iterator[tuple[int, Score]]:
    """Score the ranges of each sequence; yields (number, score) in the order of computation.

    Sequences of similar length share a pass, padded on the right, which a causal model cannot see. What
    stands after the last range of a sequence is never fed.

    Raises BadRequest for a token that is not in the vocabulary or a sequence longer than the context.
    """
    for sequence in sequences:
        check_tokens(loaded, sequence.token_ids)
        if len(sequence.token_ids) > loaded.context_length:
            raise BadRequest(
                f"expected at most {loaded.context_length} tokens, this model's context, "
                f"got {len(sequence.token_ids)}: shorten the sequence"
            )
    for numbers in _passes(sequences):
        scores = _score_together(loaded, [sequences[number] for number in numbers])
        yield from zip(numbers, scores, strict=True)


def _fed(sequence: ScoreRequest) -> int:
    """How many tokens the model must read: all before the last scored one."""
    return max(end for _, end in sequence.ranges) - 1


def _passes(sequences: Sequence[ScoreRequest]) -> Iterator[list[int]]:
    together: list[int] = []
    for number in sorted(range(len(sequences)), key=lambda n: _fed(sequences[n])):
        if together and (len(together) + 1) * _fed(sequences[number]) > _TOKENS_PER_PASS:
            yield together
            together = []
        together.append(number)
    if together:
        yield together


@torch.no_grad()
def _score_together(loaded: LoadedModel, sequences: Sequence[ScoreRequest]) -> list[Score]:
    """Shapes: b sequences, t fed positions, k kept positions, v vocabulary."""
    device = loaded.model.device
    width = max(_fed(sequence) for sequence in sequences)
    ids_bt = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids_bt[row, : _fed(sequence)] = torch.tensor(sequence.token_ids[: _fed(sequence)])
    wanted = [
        [position for start, end in sequence.ranges for position in range(start, end)]
        for sequence in sequences
    ]
    kept = sorted({position - 1 for positions in wanted for position in positions})
    column = {position: place for place, position in enumerate(kept)}
    logits_bkv = loaded.model(
        input_ids=ids_bt.to(device), use_cache=False, logits_to_keep=torch.tensor(kept, device=device)
    ).logits
    return [
        _split(
            _chosen_logprobs(
                logits_bkv[row],
                [column[position - 1] for position in positions],
                [sequence.token_ids[position] for position in positions],
            ),
            sequence.ranges,
        )
        for row, (sequence, positions) in enumerate(zip(sequences, wanted, strict=True))
    ]


def _chosen_logprobs(logits_kv: torch.Tensor, columns: list[int], token_ids: list[int]) -> list[float]:
    found: list[float] = []
    for start in range(0, len(columns), _POSITIONS_PER_SOFTMAX):
        part = slice(start, start + _POSITIONS_PER_SOFTMAX)
        logprobs = logits_kv[torch.tensor(columns[part], device=logits_kv.device)].float().log_softmax(-1)
        chosen = torch.tensor(token_ids[part], device=logits_kv.device)
        found += logprobs.gather(-1, chosen[:, None]).squeeze(-1).tolist()
    return found


def _split(logprobs: list[float], ranges: Sequence[tuple[int, int]]) -> Score:
    parts: list[tuple[float, ...]] = []
    for start, end in ranges:
        parts.append(tuple(logprobs[: end - start]))
        logprobs = logprobs[end - start :]
    return Score(tuple(parts))
