"""Weight commits: nothing lost, every byte reversible."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from understudy.weights import HistoryBroken, UnknownCommit, WeightHistory, WeightsMismatch, lessons_held
from understudy.weights.delta import apply, difference

WHEN = "2026-01-02T03:04:05Z"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(8, 6, generator=generator),
        "b": torch.randn(5, generator=generator).to(torch.bfloat16),
        "c": torch.randn(2, 3, 4, generator=generator),
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    held = tensors()
    save_file({"a": held["a"]}, tmp_path / "one.safetensors", metadata={"format": "pt"})
    save_file({"b": held["b"], "c": held["c"]}, tmp_path / "two.safetensors", metadata={"format": "pt"})
    return tmp_path


def digests(directory: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in directory.glob("*.safetensors")}


def commit(history: WeightHistory, live: dict[str, torch.Tensor], note: str = "a lesson") -> str:
    return history.commit(live, message=note, author="ada", created=WHEN, session=note, lessons=("l1",)).id


@given(st.data(), st.sampled_from(DTYPES), st.integers(0, 40))
def test_a_delta_leads_both_ways(data: st.DataObject, dtype: torch.dtype, n: int) -> None:
    size = n * torch.empty(0, dtype=dtype).element_size()
    before, after = (
        torch.frombuffer(bytearray(data.draw(st.binary(min_size=size, max_size=size))), dtype=dtype)
        if size
        else torch.empty(0, dtype=dtype)
        for _ in range(2)
    )
    packed = difference(before, after)
    assert torch.equal(apply(before, packed).view(torch.uint8), after.view(torch.uint8))
    assert torch.equal(apply(after, packed).view(torch.uint8), before.view(torch.uint8))


def test_the_directory_holds_what_was_committed_and_any_tool_reads_it(directory: Path) -> None:
    history = WeightHistory.open(directory)
    live = {n: t + 1 for n, t in tensors().items()}
    identity = commit(history, live)
    stored = {**load_file(directory / "one.safetensors"), **load_file(directory / "two.safetensors")}
    assert all(torch.equal(stored[n], live[n]) for n in live)
    assert history.head == identity == (directory / ".understudy" / "HEAD").read_text().strip()
    assert not list(directory.glob("*.new"))


def test_restoring_brings_back_every_byte_and_is_itself_recorded(directory: Path) -> None:
    original = digests(directory)
    history = WeightHistory.open(directory)
    live = tensors()
    states = []
    for step in range(3):
        for tensor in live.values():
            tensor.add_(0.001 * (step + 1))
        states.append((commit(history, live, f"lesson {step}"), digests(directory)))
    for target, expected in [(states[0][0], states[0][1]), (states[2][0], states[2][1]), (None, original)]:
        history.restore(live, target, author="ada", created=WHEN)
        assert digests(directory) == expected
        stored = {**load_file(directory / "one.safetensors"), **load_file(directory / "two.safetensors")}
        assert all(torch.equal(stored[n], live[n]) for n in live), "the live weights go back too"
    assert len(WeightHistory.open(directory).commits) == 6


def test_a_record_names_who_why_and_which_lessons(directory: Path) -> None:
    history = WeightHistory.open(directory)
    commit(history, tensors(1))
    found = WeightHistory.open(directory).commit_of("a lesson")
    assert found is not None
    assert (found.author, found.message, found.lessons, found.created, found.parent) == (
        "ada", "a lesson", ("l1",), WHEN, None,
    )  # fmt: skip
    moved = sum((t.double() - tensors()[n].double()).square().sum().item() for n, t in tensors(1).items())
    assert found.update_norm == pytest.approx(moved**0.5)
    assert history.find(found.id[:5]) == found
    with pytest.raises(UnknownCommit, match="expected the id of one weight commit, 'zz' fits 0"):
        history.find("zz")


CUT = """
import sys, os
from pathlib import Path
import understudy.weights.history as h, understudy.weights.checkpoint as c
sys.path.insert(0, sys.argv[3])
from test_history import tensors, commit
point, calls = int(sys.argv[2]), 0
def dying(function):
    def wrapper(*given, **named):
        global calls
        calls += 1
        if calls == point: os._exit(9)
        return function(*given, **named)
    return wrapper
h.sync = dying(h.sync); c.sync = dying(c.sync)
history = h.WeightHistory.open(Path(sys.argv[1]))
commit(history, tensors(1))
"""


@pytest.mark.parametrize("point", range(1, 9))
def test_a_commit_cut_off_anywhere_is_whole_or_absent(directory: Path, point: int) -> None:
    before = digests(directory)
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(directory), str(point), str(Path(__file__).parent)],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
    )
    assert done.returncode == 9, (point, done.stderr)
    history = WeightHistory.open(directory)
    if history.head is None:
        assert digests(directory) == before
    else:
        stored = {**load_file(directory / "one.safetensors"), **load_file(directory / "two.safetensors")}
        assert all(torch.equal(stored[n], t) for n, t in tensors(1).items())
        assert digests(directory) == history.commits[-1].after
    commit(history, tensors(2), "the next lesson")
    assert digests(directory) == history.commits[-1].after


def test_a_file_changed_from_outside_is_noticed(directory: Path) -> None:
    commit(WeightHistory.open(directory), tensors(1))
    save_file({"a": torch.zeros(8, 6)}, directory / "one.safetensors")
    with pytest.raises(HistoryBroken, match="belongs to no known commit"):
        WeightHistory.open(directory)


def test_a_broken_record_is_named(directory: Path) -> None:
    commit(WeightHistory.open(directory), tensors(1))
    [record] = (directory / ".understudy" / "commits").glob("*.json")
    record.write_text(json.dumps({"id": "x"}))
    with pytest.raises(HistoryBroken, match=record.name):
        WeightHistory.open(directory)


def test_weights_that_the_files_cannot_hold_are_refused_and_nothing_changes(directory: Path) -> None:
    before = digests(directory)
    history = WeightHistory.open(directory)
    live = tensors()
    live["b"] = live["b"].float() + 1e-6
    with pytest.raises(WeightsMismatch, match=r"b: served as torch.float32 but stored as torch.bfloat16"):
        commit(history, live)
    del live["b"]
    with pytest.raises(WeightsMismatch, match=r"expected tensors for \['b'\] and 1 in all"):
        commit(history, live)
    assert digests(directory) == before
    assert history.head is None


def test_a_directory_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryBroken, match="is it a model directory"):
        WeightHistory.open(tmp_path)


def test_the_lessons_held_follow_restores(directory: Path) -> None:
    history, live = WeightHistory.open(directory), tensors()
    held = [lessons_held(history.commits)]
    ids = []
    for number in range(3):
        live["c"].add_(1)
        made = history.commit(live, message="m", author="a", created=WHEN, lessons=(f"l{number}",))
        ids.append(made.id)
    held.append(lessons_held(history.commits))
    history.restore(live, ids[0], author="a", created=WHEN)
    held.append(lessons_held(history.commits))
    live["c"].add_(1)
    history.commit(live, message="m", author="a", created=WHEN, lessons=("l9",))
    held.append(lessons_held(history.commits))
    history.restore(live, ids[2], author="a", created=WHEN)
    held.append(lessons_held(history.commits))
    history.restore(live, None, author="a", created=WHEN)
    held.append(lessons_held(history.commits))
    assert held == [set(), {"l0", "l1", "l2"}, {"l0"}, {"l0", "l9"}, {"l0", "l1", "l2"}, set()]
