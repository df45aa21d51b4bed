"""How what is read of the same texts, by the same directions, moves as the model learns.

A change says that the stream moved along a direction. It does not say whether the concept still lies there:
directions that are found anew, and measured, say that.

Shapes: n texts, l layers, c concepts, h hidden size.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from understudy.concepts.activations import Progress, Report, collect, streams
from understudy.concepts.corpus import Text
from understudy.concepts.encoding import encode
from understudy.concepts.errors import BadRows
from understudy.concepts.readouts import ALL_TOKENS, Scale, Values, read_rows, require_scale
from understudy.engine import Directions, Dtype, LoadedModel, load_model
from understudy.lessons import Role
from understudy.weights import (
    INITIAL,
    HistoryView,
    ModelState,
    UnknownCommit,
    WeightHistory,
    distinct_parameters,
)

ALL = "all"
"""Instead of commits: every state that the history can still rebuild, the model as it came included."""

Told = Callable[[str, int, int], None]
"""The commit whose weights are read with, and how many texts of how many were read."""


@dataclass(frozen=True)
class Change:
    """The mean over texts of a difference within each text, with the interval of Student's t for pairs
    (Student 1908, Biometrika 6): each concept's and layer's own, not of all together.
    """

    value_lc: Values
    low_lc: Values
    high_lc: Values


@dataclass(frozen=True)
class Since:
    """What became of the texts since the first commit. `cosine_l` is the mean over texts of the cosine
    between their streams then and now, each the mean over the text's tokens.
    """

    change: Change
    cosine_l: Values


@dataclass(frozen=True)
class StateReadouts:
    """The mean readouts over all texts with the weights of a commit; `since` is None for the first."""

    commit: str
    mean_lc: Values
    since: Since | None


@dataclass(frozen=True)
class Drift:
    """Readouts of `texts` texts at several commits, in their order."""

    concepts: tuple[str, ...]
    layers: tuple[int, ...]
    scale: Scale
    texts: int
    confidence: float
    states: tuple[StateReadouts, ...]


def measure_drift(
    directory: Path,
    commits: Sequence[str],
    directions: Directions,
    texts: Sequence[Text],
    *,
    scale: Scale = "raw",
    role: Role | None = None,
    dtype: Dtype = "checkpoint",
    confidence: float = 0.95,
    told: Told | None = None,
) -> Drift:
    """Read texts with a model's weights as they were at several commits, and compare each with the first.

    A text's readout is the mean over its own tokens. The weights are rebuilt in a copy of this process's own:
    what is served, and the directory's files, stay as they are. `commits` are as resolve_commits takes them.
    Raises BadPooling or BadRows, and what resolve_commits and load_model raise.
    """
    found = resolve_commits(directory, commits)
    require_scale(directions, scale)
    if len(texts) < 2:
        raise BadRows(f"expected at least two texts, for a difference with an interval, got {len(texts)}")
    loaded = load_model(directory, dtype)
    encoded = encode(loaded.tokenizer, texts, role)
    places = streams(loaded, directions.layers)
    states: list[StateReadouts] = []
    first_rows: Mapping[int, torch.Tensor] = {}
    first_nlc = np.empty(0)
    for commit in found:
        _rebuild(loaded, ModelState(directory, commit))
        rows = collect(loaded, encoded, places, ALL_TOKENS, report=_telling(told, commit)).rows_nh
        values_nlc = read_rows(directions, list(rows.values()), scale)
        if not states:
            first_rows, first_nlc, since = rows, values_nlc, None
        else:
            since = Since(paired_change(first_nlc, values_nlc, confidence), _cosines(first_rows, rows))
        states.append(StateReadouts(commit, values_nlc.mean(0), since))
    return Drift(directions.concepts, directions.layers, scale, len(texts), confidence, tuple(states))


def resolve_commits(directory: Path, given: Sequence[str]) -> tuple[str, ...]:
    """Weight commits by the beginning of their ids, `initial` for the model as it came, or `all` alone.

    Raises UnknownCommit, also when the deltas that lead there were given up, and BadRows unless they are two
    different ones at least.
    """
    history = WeightHistory.view(directory)
    if tuple(given) == (ALL,):
        known = {INITIAL: 0, **{commit.id: commit.number for commit in history.commits}}
        found = [name for name, number in known.items() if _rebuildable(history, number)]
    else:
        found = [INITIAL if name == INITIAL else history.find(name).id for name in given]
        for name in found:
            history.chain(0 if name == INITIAL else history.find(name).number)
    if len(set(found)) < max(2, len(found)):
        raise BadRows(
            f"expected at least two different weight commits to compare, got {', '.join(found) or 'none'}: "
            f"`understudy weights log` lists them, `{INITIAL}` is the model as it came"
        )
    return tuple(found)


def paired_change(before_nlc: Values, after_nlc: Values, confidence: float) -> Change:
    """The mean difference over texts, and its interval: the mean plus and minus t s / sqrt(n)."""
    from scipy.stats import t as student

    difference_nlc = after_nlc - before_nlc
    count = len(difference_nlc)
    mean_lc: Values = difference_nlc.mean(0)
    error_lc = difference_nlc.std(0, ddof=1) / math.sqrt(count)
    half_lc = float(student.ppf(0.5 + confidence / 2, count - 1)) * error_lc
    return Change(mean_lc, mean_lc - half_lc, mean_lc + half_lc)


def _rebuildable(history: HistoryView, number: int) -> bool:
    try:
        history.chain(number)
    except UnknownCommit:
        return False
    return True


@torch.no_grad()
def _rebuild(loaded: LoadedModel, state: ModelState) -> None:
    """Copy the tensors of a state over the parameters of a model of this process's own."""
    parameters, aliases = distinct_parameters(loaded.model)
    for name, tensor in state.tensors():
        parameters[aliases.get(name, name)].copy_(tensor)


def _cosines(first: Mapping[int, torch.Tensor], now: Mapping[int, torch.Tensor]) -> Values:
    pairs = ((first[layer].double(), rows_nh.double()) for layer, rows_nh in now.items())
    return np.array([torch.cosine_similarity(then, rows, dim=-1).mean().item() for then, rows in pairs])


def _telling(told: Told | None, commit: str) -> Report | None:
    if told is None:
        return None

    def report(progress: Progress) -> None:
        told(commit, progress.texts, progress.of)

    return report
