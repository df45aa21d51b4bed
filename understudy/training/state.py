"""Optimizer state on disk: one file for each weight commit, so that it follows the weights wherever they go.

Under `<model>/.understudy/optimizer/`: `<commit>.safetensors`, and `begun-<session>.safetensors` for a
session whose commit is about to be made. The state lies there before the commit does, so that no commit can
be without its state; `StateStore.settle` gives it the commit's name, or removes it when there is none.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from understudy.training.apollo import Apollo
from understudy.weights import WeightCommit

log = logging.getLogger(__name__)

PROJECTION = ("rank", "seed", "proj_refresh")
"""Settings that decide what the projected moments are moments of: with others they mean nothing."""
_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """An optimizer's memory by parameter name. Tensors are the optimizer's own, not copies.

    `groups` has, for the projected and the other group, the steps taken (warm-up counts them) and the
    settings in PROJECTION; `numbers` and `tensors` are keyed by parameter and entry.
    """

    groups: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, Mapping[str, int | float]]
    tensors: Mapping[str, Mapping[str, Tensor]]


def read_state(optimizer: Apollo) -> OptimizerState:
    """What the optimizer remembers now."""
    groups, numbers, tensors = {}, {}, {}
    for group in optimizer.param_groups:
        groups[_kind(group)] = {"steps": group["steps"], **{key: group[key] for key in PROJECTION}}
        for name, weight in zip(group["param_names"], group["params"], strict=True):
            held = optimizer.state.get(weight, {})
            numbers[name] = {key: value for key, value in held.items() if not isinstance(value, Tensor)}
            tensors[name] = {key: value for key, value in held.items() if isinstance(value, Tensor)}
    return OptimizerState(groups, numbers, tensors)


def write_state(optimizer: Apollo, state: OptimizerState) -> tuple[str, ...]:
    """Give a new optimizer this memory, as copies; its settings stay its own.

    Returns the kinds of group that begin anew: the projected one, when its projection is another.
    """
    anew = []
    for group in optimizer.param_groups:
        kind = _kind(group)
        held = state.groups.get(kind)
        if held is None or (kind == "projected" and any(held[key] != group[key] for key in PROJECTION)):
            anew.append(kind)
            continue
        group["steps"] = held["steps"]
        for name, weight in zip(group["param_names"], group["params"], strict=True):
            optimizer.state[weight].update(state.numbers.get(name, {}))
            for key, value in state.tensors.get(name, {}).items():
                optimizer.state[weight][key] = value.detach().to(weight.device, copy=True)
    return tuple(anew)


class StateStore:
    """The optimizer states of one model directory."""

    def __init__(self, directory: Path, keep: int) -> None:
        """`keep`: states of the newest so many weight commits stay."""
        self.folder = directory / ".understudy" / "optimizer"
        self._keep = keep

    def begin(self, session: str, optimizer: Apollo) -> None:
        """Write the state that a session's commit will have. Raises OSError, and leaves nothing then."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._begun(session)
        aside = file.with_suffix(".new")
        try:
            _write(aside, read_state(optimizer))
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        aside.rename(file)
        _sync(self.folder)

    def settle(self, commits: Sequence[WeightCommit]) -> None:
        """Name states after the commits that came of them; remove what belongs to none, or is too old."""
        if not self.folder.is_dir():
            return
        begun = {self._begun(commit.session): commit.id for commit in commits if commit.session}
        for file in self.folder.glob("begun-*"):
            if file in begun:
                file.rename(self._file(begun[file]))
            else:
                file.unlink()
        numbers = {commit.id: commit.number for commit in commits}
        newest = sorted(self.folder.glob(f"*{_SUFFIX}"), key=lambda file: numbers.get(file.stem, 0))
        wanted = self._file(self.owner(commits) or "")
        for file in newest[: -self._keep]:
            if file != wanted:
                file.unlink()
        _sync(self.folder)

    def load(self, commits: Sequence[WeightCommit]) -> OptimizerState | None:
        """The state that belongs to the newest commit; None for the model as it came, or where it is gone."""
        owner = self.owner(commits)
        if owner is None:
            return None
        try:
            return _read(self._file(owner))
        except FileNotFoundError:
            log.warning("the optimizer state of weight commit %s is gone: moments begin anew", owner)
        except (SafetensorError, ValueError, KeyError) as error:
            log.warning("the optimizer state of weight commit %s is unreadable (%s)", owner, error)
        return None

    def owner(self, commits: Sequence[WeightCommit]) -> str | None:
        """The commit whose session made the weights what they are: a restore leads to what it restored.

        None for the model as it came, and for weights taken over from elsewhere: no step led to them.
        """
        by_id = {commit.id: commit for commit in commits}
        at = commits[-1].id if commits else None
        while at is not None:
            commit = by_id[at]
            if "restores" in commit.details:
                at = commit.details["restores"]
            elif "result" not in commit.details:
                return None
            elif commit.details["result"]["steps"] == 0 and not self._file(at).exists():
                at = commit.parent
            else:
                return at
        return None

    def _file(self, commit: str) -> Path:
        return self.folder / f"{commit}{_SUFFIX}"

    def _begun(self, session: str) -> Path:
        return self.folder / f"begun-{hashlib.sha256(session.encode()).hexdigest()[:32]}{_SUFFIX}"


def _kind(group: dict[str, Any]) -> str:
    return "projected" if group["projected"] else "other"


def _write(file: Path, state: OptimizerState) -> None:
    """As safetensors, on disk when this returns. Raises OSError."""
    flat = {
        f"{name}/{key}": value.contiguous()
        for name, entries in state.tensors.items()
        for key, value in entries.items()
    }
    described = json.dumps({"groups": state.groups, "numbers": state.numbers})
    try:
        save_file(flat, file, {"state": described})
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(f"expected to write the optimizer state to {file}: {error}") from error
    _sync(file)


def _read(file: Path) -> OptimizerState:
    tensors: dict[str, dict[str, Tensor]] = {}
    if not file.is_file():
        raise FileNotFoundError(file)
    with safe_open(file, framework="pt") as held:
        described = json.loads(held.metadata()["state"])
        for flat in held.keys():  # noqa: SIM118  (it is no dict)
            name, _, key = flat.rpartition("/")
            tensors.setdefault(name, {})[key] = held.get_tensor(flat)
    return OptimizerState(described["groups"], described["numbers"], tensors)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
