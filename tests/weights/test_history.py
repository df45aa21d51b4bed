"""Weight commits: nothing lost, every byte reversible, and the files follow by a sync."""

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from understudy.weights import (
    HistoryBroken,
    UnknownCommit,
    WeightHistory,
    WeightsMismatch,
    lessons_held,
    read_commits,
)
from understudy.weights.delta import Delta, apply, difference, read_delta

WHEN = "2026-01-02T03:04:05Z"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INDEX = "model.safetensors.index.json"


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(8, 6, generator=generator),
        "b": torch.randn(5, generator=generator).to(torch.bfloat16),
        "c": torch.randn(2, 3, 4, generator=generator),
        "d": torch.randn(70, 64, generator=generator).to(torch.bfloat16),
    }


def write_single(directory: Path) -> None:
    save_file(tensors(), directory / "model.safetensors", metadata={"format": "pt"})


def write_shards(directory: Path) -> None:
    held = tensors()
    places = {
        "a": "model-00001-of-00003.safetensors",
        "b": "model-00002-of-00003.safetensors",
        "c": "model-00002-of-00003.safetensors",
        "d": "model-00003-of-00003.safetensors",
    }
    for file in sorted(set(places.values())):
        save_file(
            {n: held[n] for n, f in places.items() if f == file}, directory / file, metadata={"format": "pt"}
        )
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


LAYOUTS = {"single": write_single, "shards": write_shards}


@pytest.fixture(params=sorted(LAYOUTS))
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    LAYOUTS[request.param](tmp_path)
    return tmp_path


def stored(directory: Path) -> dict[str, torch.Tensor]:
    """The tensors as any Hugging Face loader finds them."""
    if not (directory / INDEX).exists():
        return dict(load_file(directory / "model.safetensors"))
    places: dict[str, str] = json.loads((directory / INDEX).read_text())["weight_map"]
    found: dict[str, torch.Tensor] = {}
    for file in sorted(set(places.values())):
        held = load_file(directory / file)
        assert set(held) == {name for name, place in places.items() if place == file}
        found |= held
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype and torch.equal(one[n].view(torch.uint8), other[n].view(torch.uint8))
        for n in one
    )


def written(directory: Path) -> dict[Path, tuple[int, int, int, int]]:
    """What writing changes about each file; that one was read may be noted with it, too."""
    found = {file: file.stat() for file in directory.rglob("*")}
    return {file: (at.st_ino, at.st_mode, at.st_size, at.st_mtime_ns) for file, at in found.items()}


def commit(history: WeightHistory, live: dict[str, torch.Tensor], note: str = "a lesson") -> str:
    return history.commit(live, message=note, author="ada", created=WHEN, session=note, lessons=("l1",)).id


def moved(live: dict[str, torch.Tensor], by: float, *names: str) -> dict[str, torch.Tensor]:
    return {n: t + by if n in names or not names else t.clone() for n, t in live.items()}


@given(st.data(), st.sampled_from(DTYPES), st.integers(0, 40), st.booleans())
def test_a_delta_leads_both_ways(data: st.DataObject, dtype: torch.dtype, n: int, few: bool) -> None:
    wide = torch.empty(0, dtype=dtype).element_size()
    before = bytearray(data.draw(st.binary(min_size=n * wide, max_size=n * wide)))
    after = bytearray(data.draw(st.binary(min_size=n * wide, max_size=n * wide)))
    if few:  # far apart, as a small step leaves them
        before, after = before + bytes(2000 * wide), after + bytes(2000 * wide)
        for place in data.draw(st.lists(st.integers(0, len(after) - 1), max_size=5)):
            after[place] ^= 1
    if not before:
        return
    one, other = (torch.frombuffer(raw, dtype=dtype) for raw in (before, after))
    packed = difference(one, other)
    assert torch.equal(apply(one, packed).view(torch.uint8), other.view(torch.uint8))
    assert torch.equal(apply(other, packed).view(torch.uint8), one.view(torch.uint8))


def test_an_empty_tensor_has_a_delta() -> None:
    packed = difference(torch.empty(0, 3), torch.empty(0, 3))
    assert apply(torch.empty(0, 3), packed).shape == (0, 3)


def test_a_delta_that_does_not_fit_or_is_damaged_is_refused() -> None:
    for moved in (2, 100):  # stored by gaps, and by planes
        before, after = torch.zeros(100), torch.zeros(100)
        after[-moved:] = 1.5
        packed = difference(before, after)
        with pytest.raises(HistoryBroken, match="does not fit"):
            apply(torch.zeros(50), packed)
        for place in range(0, len(packed)):
            damaged = packed.clone()
            damaged[place] ^= 0x10
            try:
                found = apply(before, damaged)
            except HistoryBroken:
                continue
            assert torch.equal(found, after), "a flag that zstd ignores, and nothing else"
    with pytest.raises(WeightsMismatch, match="expected equal tensors"):
        difference(torch.zeros(3), torch.zeros(4))


def test_a_commit_leaves_the_files_alone_and_a_sync_brings_them(directory: Path) -> None:
    history = WeightHistory.open(directory)
    first = moved(tensors(), 1)
    identity = commit(history, first)
    assert same(stored(directory), tensors())
    assert (history.head, history.synced, [c.id for c in history.pending]) == (identity, None, [identity])
    report = history.sync()
    assert report.commit == identity
    assert same(stored(directory), first)
    assert (history.synced, history.pending) == (identity, ())
    assert history.sync().files == ()


def test_opening_brings_the_files_to_the_newest_commit(directory: Path) -> None:
    history, live = WeightHistory.open(directory), tensors()
    for step in range(3):
        live = moved(live, 0.01 * (step + 1))
        commit(history, live, f"lesson {step}")
    assert same(stored(directory), tensors())
    assert WeightHistory.open(directory).pending == ()
    assert same(stored(directory), live)


def test_a_delta_holds_what_moved_in_a_file_that_any_tool_reads(directory: Path) -> None:
    history = WeightHistory.open(directory)
    identity = commit(history, moved(tensors(), 1, "b", "d"))
    file = history.delta_file(identity)
    assert set(load_file(file)) == set(read_delta(file)) == Delta(file).names == {"b", "d"}
    assert history.find(identity).tensors["a"] == hashlib.sha256(tensors()["a"].numpy().tobytes()).hexdigest()


def test_a_commit_costs_the_same_however_many_are_pending(directory: Path) -> None:
    history, live = WeightHistory.open(directory), tensors()
    read: list[int] = []
    for step in range(12):
        live = moved(live, 0.001)
        commit(history, live, f"lesson {step}")
        read.append(len(history.chain(len(history.commits)).deltas))
    assert read == [1] * 12, "one delta leads from the files to the newest commit"
    assert same(dict(history.tensors_at(history.head)), live)


def test_restoring_brings_back_every_byte_and_is_itself_recorded(directory: Path) -> None:
    history, live = WeightHistory.open(directory), tensors()
    states = []
    for step in range(3):
        for tensor in live.values():
            tensor.add_(0.001 * (step + 1))
        states.append((commit(history, live, f"lesson {step}"), {n: t.clone() for n, t in live.items()}))
        if step == 1:
            history.sync()
    for target, expected in [states[0], states[2], (None, tensors())]:
        history.restore(live, target, author="ada", created=WHEN)
        assert same(live, expected), "the live weights go back"
        history.sync()
        assert same(stored(directory), expected), "and the files"
    assert len(WeightHistory.open(directory).commits) == 6
    with pytest.raises(UnknownCommit, match="nothing to restore"):
        history.restore(live, history.head, author="ada", created=WHEN)


def test_other_tools_values_are_taken_over_as_a_commit(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    values = tensors(7)
    save_file(values, other / "made.safetensors")
    history, live = WeightHistory.open(directory), tensors()
    made = history.adopt(live, other / "made.safetensors", message="merged", author="ada", created=WHEN)
    assert same(live, values) and history.head == made.id
    assert same(dict(history.tensors_at(made.id)), values)
    save_file({**values, "stray": torch.zeros(1)}, other / "made.safetensors")
    with pytest.raises(WeightsMismatch, match=r"expected only tensors .* has \['stray'\]"):
        history.adopt(live, other, message="m", author="a", created=WHEN)
    save_file({**values, "a": torch.zeros(3)}, other / "made.safetensors")
    with pytest.raises(WeightsMismatch, match=r"a: expected \(8, 6\) torch.float32"):
        history.adopt(live, other, message="m", author="a", created=WHEN)
    assert history.head == made.id


def test_a_record_names_who_why_and_which_lessons(directory: Path) -> None:
    history = WeightHistory.open(directory)
    commit(history, tensors(1))
    found = WeightHistory.open(directory).commit_of("a lesson")
    assert found is not None
    assert (found.author, found.message, found.lessons, found.created, found.parent) == (
        "ada", "a lesson", ("l1",), WHEN, None,
    )  # fmt: skip
    change = sum((t.double() - tensors()[n].double()).square().sum().item() for n, t in tensors(1).items())
    assert found.update_norm == pytest.approx(change**0.5)
    assert history.find(found.id[:5]) == found
    with pytest.raises(UnknownCommit, match="expected the id of one weight commit, 'zz' fits 0"):
        history.find("zz")


STEPS: st.SearchStrategy[list[tuple[str, int, frozenset[str]]]] = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(0, 2**16), st.frozensets(st.sampled_from("abcd"))),
        st.tuples(st.just("restore"), st.integers(0, 30), st.just(frozenset())),
        st.tuples(st.sampled_from(["sync", "reopen", "view"]), st.just(0), st.just(frozenset())),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), STEPS)
def test_whatever_happens_every_commit_is_what_was_committed(
    layout: str, steps: list[tuple[str, int, frozenset[str]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        LAYOUTS[layout](directory)
        history, live = WeightHistory.open(directory), tensors()
        known: list[tuple[str | None, dict[str, torch.Tensor]]] = [(None, tensors())]
        held = tensors()
        for kind, number, names in steps:
            if kind == "commit":
                fresh = tensors(number)
                for name in names:
                    live[name].copy_(fresh[name])
                known.append(
                    (commit(history, live, f"{len(known)}"), {n: t.clone() for n, t in live.items()})
                )
            elif kind == "restore":
                target, expected = known[number % len(known)]
                if target != history.head:
                    made = history.restore(live, target, author="a", created=WHEN)
                    known.append((made.id, expected))
                    assert same(live, expected)
            elif kind == "sync":
                history.sync()
                held = known[-1][1]
            elif kind == "reopen":
                history = WeightHistory.open(directory)
                held = known[-1][1]
            assert same(stored(directory), held)
            reader = WeightHistory.view(directory) if kind == "view" else history
            for target, expected in known:
                assert same(dict(reader.tensors_at(target)), expected)
        assert [c.id for c in read_commits(directory)] == [identity for identity, _ in known[1:]]


def test_a_file_changed_from_outside_is_noticed(directory: Path) -> None:
    history = WeightHistory.open(directory)
    commit(history, tensors(1))
    changed = stored(directory)
    [file] = [f for f in directory.glob("*.safetensors") if "a" in load_file(f)]
    save_file({**{n: changed[n] for n in load_file(file)}, "a": torch.zeros(8, 6)}, file)
    for attempt in (
        lambda: WeightHistory.open(directory),
        lambda: WeightHistory.view(directory),
        lambda: commit(history, tensors(2), "next"),
        history.sync,
    ):
        with pytest.raises(
            HistoryBroken, match=r"belongs to no known commit: a .*Put the old files back; .*--from"
        ):
            attempt()


def test_files_that_were_only_copied_are_recognised_by_their_hashes(directory: Path) -> None:
    history = WeightHistory.open(directory)
    commit(history, tensors(1))
    history.sync()
    commit(history, tensors(2), "pending")
    for file in directory.glob("*.safetensors"):
        copy = file.read_bytes()
        file.unlink()
        file.write_bytes(copy)
    commit(history, tensors(3), "third")
    history.sync()
    assert same(stored(directory), tensors(3))


def test_a_broken_altered_or_missing_record_is_named(directory: Path) -> None:
    history = WeightHistory.open(directory)
    commit(history, tensors(1))
    commit(history, tensors(2), "second")
    first, second = sorted((directory / ".understudy" / "commits").glob("*.json"))
    whole = first.read_text()
    first.write_text(json.dumps({"id": "x"}))
    with pytest.raises(HistoryBroken, match=first.name):
        WeightHistory.open(directory)
    first.write_text(whole.replace("ada", "eve"))
    with pytest.raises(HistoryBroken, match="it was altered"):
        read_commits(directory)
    first.unlink()
    with pytest.raises(HistoryBroken, match=rf"expected commit 1 after nothing, found 2 .*{second.name}"):
        read_commits(directory)


def test_a_damaged_delta_is_never_passed_on(directory: Path) -> None:
    history = WeightHistory.open(directory)
    identity = commit(history, tensors(1))
    file = history.delta_file(identity)
    delta = bytearray(file.read_bytes())
    delta[-20] ^= 1
    file.write_bytes(delta)
    with pytest.raises(HistoryBroken):
        history.sync()
    assert same(stored(directory), tensors())


def test_weights_that_the_files_cannot_hold_are_refused_and_nothing_changes(directory: Path) -> None:
    history = WeightHistory.open(directory)
    live = tensors()
    live["b"] = live["b"].float() + 1e-6
    with pytest.raises(WeightsMismatch, match=r"b: served as torch.float32 but stored as torch.bfloat16"):
        commit(history, live)
    del live["b"]
    with pytest.raises(WeightsMismatch, match=r"expected tensors for \['b'\] and 1 in all"):
        commit(history, live)
    assert same(stored(directory), tensors())
    assert history.head is None
    assert not list((directory / ".understudy" / "commits").iterdir())


def test_looking_changes_nothing(directory: Path) -> None:
    live = moved(tensors(), 1)
    commit(WeightHistory.open(directory), live)
    before = written(directory)
    view = WeightHistory.view(directory)
    assert same(dict(view.tensors_at(view.head)), live) and same(dict(view.tensors_at(None)), tensors())
    assert written(directory) == before


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
