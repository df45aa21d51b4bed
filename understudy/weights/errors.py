"""What can go wrong with shared weights and their history."""


class WeightsError(Exception):
    """Something about a model's parameters is not as it must be."""


class WeightsMismatch(WeightsError, ValueError):
    """Two sets of parameters that should agree in names, shapes or element types do not."""


class MappingBroken(WeightsError, OSError):
    """The shared mapping is missing, too short, or not one of ours."""


class HistoryBroken(WeightsError, RuntimeError):
    """The model directory and its history do not fit together."""


class HistoryBusy(WeightsError, BlockingIOError):
    """Another process serves or teaches this model directory."""


class StorageFailed(WeightsError, OSError):
    """The disk took no more: full, or failing. What was being written is not there; the rest is as before."""


class UnknownCommit(WeightsError, KeyError):
    """A weight commit that this history does not hold, or no longer leads to."""

    def __str__(self) -> str:
        return str(self.args[0])
