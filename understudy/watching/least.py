"""The least signal: how small a lesson may be and still be seen, and where it is seen first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.behaviours import Behaviour, Rate
from understudy.config import TrainingSettings
from understudy.watching.laboratory import Laboratory
from understudy.watching.learning import Say
from understudy.watching.margins import Contrast, Margins, Mean, measure_margins

CONTROLS = 8
"""Shuffled updates to compare with: by chance, a real one goes further than all 8 in 1 of 9 cases."""


@dataclass(frozen=True, slots=True)
class Signal:
    """What one lesson at learning rate `lr` did to held-out scenarios, and what shuffled updates did.

    `change` and `first_token` are mean changes in nats of the margin of the first tokens and of the wanted
    one's log-probability; the `chance_` ones the same for updates with each tensor's entries shuffled, which
    have the same size and distribution and know nothing. `switched` counts answers that now act.
    """

    lr: float
    update_norm: float
    change: Mean
    chance_change: tuple[float, ...]
    first_token: Mean
    chance_first_token: tuple[float, ...]
    preferred: Rate
    switched: Rate
    switched_sampled: Rate

    @property
    def margin_seen(self) -> bool:
        """Outside of zero, and further than every shuffled update came."""
        return _seen(self.change, self.chance_change)

    @property
    def first_token_seen(self) -> bool:
        return _seen(self.first_token, self.chance_first_token)

    def switched_beyond(self, before: Rate, *, sampled: bool = False) -> bool:
        """Whether the count of acting answers is above the 95 % interval of the one before."""
        now = self.switched_sampled if sampled else self.switched
        return now.value > before.interval()[1]


def _seen(change: Mean, chance: Sequence[float]) -> bool:
    return (change.low > 0 or change.high < 0) and abs(change.value) > max(map(abs, chance))


def find_least_signal(
    laboratory: Laboratory,
    contrasts: Sequence[Contrast],
    accepts: Behaviour,
    settings: TrainingSettings,
    rates: Sequence[float],
    say: Say = lambda _: None,
) -> tuple[Signal, ...]:
    """One lesson, one step, from the start, at each learning rate."""
    found = []
    [lesson] = laboratory.lessons(0, 1)
    laboratory.reset(settings)
    before = measure_margins(laboratory, contrasts)
    for lr in rates:
        chosen = settings.model_copy(update={"lr": lr})
        laboratory.reset(chosen)
        laboratory.session([lesson], chosen)
        taught = laboratory.snapshot()
        after = measure_margins(laboratory, contrasts)
        greedy = laboratory.measure([accepts])["accepts"]
        sampled = laboratory.measure([accepts], 0.8)["accepts"]
        norm = laboratory.movement().whole.change
        controls = [_shuffled(laboratory, taught, seed, before, contrasts) for seed in range(CONTROLS)]
        found.append(
            Signal(
                lr,
                norm,
                Mean.of(_differences(before.first, after.first)),
                tuple(whole for whole, _ in controls),
                Mean.of(_differences(before.first_token, after.first_token)),
                tuple(first for _, first in controls),
                after.preferred,
                greedy,
                sampled,
            )
        )
        say(f"one lesson at lr {lr:g}: margin {found[-1].change}")
    return tuple(found)


def _shuffled(
    laboratory: Laboratory,
    taught: Mapping[str, Tensor],
    seed: int,
    before: Margins,
    contrasts: Sequence[Contrast],
) -> tuple[float, float]:
    """Mean changes of margin and first token when each tensor's change is dealt out at random within it."""
    draw = torch.Generator().manual_seed(seed)
    moved = {}
    for name in sorted(taught):
        start = laboratory.start[name].float()
        change = (taught[name].float() - start).flatten()
        dealt = change[torch.randperm(change.numel(), generator=draw)].view(start.shape)
        moved[name] = (start + dealt).to(taught[name].dtype)
    laboratory.load(moved)
    after = measure_margins(laboratory, contrasts)
    return (
        Mean.of(_differences(before.first, after.first)).value,
        Mean.of(_differences(before.first_token, after.first_token)).value,
    )


def _differences(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [new - old for old, new in zip(before, after, strict=True)]
