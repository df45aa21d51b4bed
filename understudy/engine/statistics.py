"""What readouts are where nothing special is said: what z-scores and strengths in lengths are counted in.

Shapes: l layers, c concepts; ... are whatever dimensions come before.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from understudy.engine.errors import BrokenReadout

Values = npt.NDArray[np.float64]
Table = list[list[float]]
"""[layers][concepts]"""


class ReadoutStatistics(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Of the readouts of the tokens of baseline texts: each concept's mean and standard deviation, by layer.

    `norms` is the length of each concept's difference of means there, whose direction the vectors are, and
    `tokens` over how many tokens the rest was taken.
    """

    mean: Table
    deviation: Table
    norms: Table
    tokens: Annotated[int, msgspec.Meta(ge=1)]

    def check(self, layers: int, concepts: int) -> None:
        """Raises BrokenReadout, naming what does not fit."""
        for name, lowest in (("mean", -math.inf), ("deviation", 0.0), ("norms", 0.0)):
            table: Table = getattr(self, name)
            if len(table) != layers or any(len(row) != concepts for row in table):
                raise BrokenReadout(
                    f"expected statistics.{name} of {layers} layers with {concepts} concepts each, got "
                    f"{[len(row) for row in table]}"
                )
            if not all(math.isfinite(value) and value >= lowest for row in table for value in row):
                raise BrokenReadout(
                    f"expected finite numbers{'' if lowest else ' of at least 0'} in statistics.{name}"
                )
        if not all(value > 0 for row in self.deviation for value in row):
            raise BrokenReadout(
                "expected statistics.deviation above 0: a readout that never varies says nothing"
            )

    def standardize(self, readout: "Sequence[Sequence[Sequence[float]]] | npt.ArrayLike") -> Values:
        """z-scores: how many standard deviations a readout is from its mean, [..., l, c]."""
        mean_lc, deviation_lc = self._arrays
        scored: Values = (np.asarray(readout, np.float64) - mean_lc) / deviation_lc
        return scored

    @cached_property
    def _arrays(self) -> tuple[Values, Values]:
        return np.array(self.mean), np.array(self.deviation)
