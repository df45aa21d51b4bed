"""How answers carry readouts: raw or as z-scores, token by token or once for the whole message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from understudy.server.errors import ApiError

if TYPE_CHECKING:
    from understudy.engine import Completion, Directions, GenerationStep, Readout, ReadoutStatistics
    from understudy.engine.statistics import Values

Scale = Literal["raw", "z"]
Per = Literal["token", "message"]


@dataclass(slots=True)
class _Message:
    """What was read so far of one answer and its prompt: sums over tokens, [layers, concepts]."""

    tokens: int = 0
    sums: "Values" = field(default_factory=lambda: np.zeros(()))
    prompt_mean: "Values | None" = None


class AnswerReadouts:
    """The readouts of one request's answers as its client wants them; `count` is told what they carry.

    Engines read raw numbers token by token. What is made of them is made here, for whole answers and for
    those that are streamed.
    """

    def __init__(
        self, directions: "Directions | None", scale: Scale, per: Per, count: "Callable[[Values, int], None]"
    ) -> None:
        """`count` takes the sums of raw readouts over tokens, [layers, concepts], and how many these are.

        Raises NoDirections, or ApiError(400) for z-scores without statistics.
        """
        from understudy.engine import NoDirections

        if directions is None:
            raise NoDirections
        self._statistics: ReadoutStatistics | None = None
        if scale == "z":
            self._statistics = _statistics_of(directions)
        self._per = per
        self._count = count
        self._messages: dict[int, _Message] = {}

    def tell(self, row: int, said: "Completion | GenerationStep") -> dict[str, Any]:
        """The fields of an answer, or of a chunk of it, that carry readouts; none where there are none."""
        answer = _values(said.readout)
        if answer is not None:
            self._count(answer.sum(axis=0), len(answer))
        if self._per == "message":
            return self._tell_message(row, said, answer)
        if self._statistics is None:
            found = {"readout": said.readout, "prompt_readout": said.prompt_readout}
            return {name: readout for name, readout in found.items() if readout}
        return self._told({"readout": answer, "prompt_readout": _values(said.prompt_readout)})

    def _tell_message(
        self, row: int, said: "Completion | GenerationStep", answer: "Values | None"
    ) -> dict[str, Any]:
        message = self._messages.setdefault(row, _Message())
        if answer is not None:
            message.tokens += len(answer)
            message.sums = answer.sum(axis=0) + message.sums
        if (prompt := _values(said.prompt_readout)) is not None:
            message.prompt_mean = prompt.mean(axis=0)
        if said.finish_reason is None or message.tokens == 0:
            return {}
        del self._messages[row]
        mean = message.sums / message.tokens
        return self._told({"message_readout": mean, "message_prompt_readout": message.prompt_mean})

    def _told(self, found: "Mapping[str, Values | None]") -> dict[str, Any]:
        """What there is of it as lists, on the scale that is wanted."""
        return {name: self._scaled(values).tolist() for name, values in found.items() if values is not None}

    def _scaled(self, values: "Values") -> "Values":
        return values if self._statistics is None else self._statistics.standardize(values)


def _statistics_of(directions: "Directions") -> "ReadoutStatistics":
    if directions.statistics is None:
        raise ApiError(
            400,
            "vllm_xargs.readout_scale: expected raw, since these directions have no statistics: z-scores are "
            "taken by `mean` and `deviation` of `statistics` in readout.json",
            param="vllm_xargs.readout_scale",
            code="no_statistics",
        )
    return directions.statistics


def _values(readout: "Readout") -> "Values | None":
    """[tokens, layers, concepts], where there are any."""
    return np.asarray(readout, np.float64) if readout else None
