"""The weights' history from the command line, with no server running: real processes, real files."""

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from understudy.cli import app
from understudy.cli.failures import explained
from understudy.config import ModelSettings
from understudy.engine import EmbeddedEngine, load_model, write_miniature
from understudy.lessons import ChatMessage
from understudy.server import open_engine
from understudy.weights import SharedWeights, WeightHistory, find_mappings
from understudy.workspace import Rehearsal, Workspace

WHEN = "2026-01-02T03:04:05Z"


def understudy(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command in this process, as `main` runs it: a process of its own takes seconds to load torch."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with explained():
                code = app(["weights", *words], result_action="return_int_as_exit_code_else_zero")
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def said(*words: str) -> str:
    done = understudy(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> str:
    model = write_miniature(tmp_path / "miniature", "qwen3_5")
    line = Rehearsal((ChatMessage("user", "Hello"), ChatMessage("assistant", "Hi.")))
    Workspace.create(tmp_path / "w", model=model, copy_model=True, replay=(line,), settings="")
    return str(tmp_path / "w")


def values(root: str) -> dict[str, torch.Tensor]:
    return dict(load_file(Path(root) / "model" / "model.safetensors"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def teach(root: str, tmp_path: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """Values made by another tool, recorded: some matrices of layer 1 moved."""
    made = {n: t + 0.01 if ".layers.1." in n else t for n, t in values(root).items()}
    save_file(made, tmp_path / "made.safetensors")
    return said("commit", "--from", str(tmp_path / "made.safetensors"), "-m", "by hand", "-w", root), made


def test_commit_log_show_diff_checkout_revert_verify_gc(root: str, tmp_path: Path) -> None:
    original = values(root)
    first, made = teach(root, tmp_path)
    assert same(values(root), made), "the files are up to date when the command returns"
    assert [c["id"] for c in json.loads(said("log", "--json", "-w", root))] == [first]
    assert f"{first}  " in said("log", "-w", root) and "by hand" in said("log", "-w", root)

    shown = json.loads(said("show", first, "--json", "-w", root))
    assert shown["tensors"].keys() == original.keys()
    assert set(shown["moved"]) == {n for n in original if not torch.equal(original[n], made[n])}
    assert f"{len(shown['moved'])} of {len(original)} tensors moved" in said("show", first, "-w", root)
    assert said("show", "-w", root) == said("show", first, "-w", root), "the newest, when none is named"

    moved = json.loads(said("diff", "--json", "-w", root))
    change = sum(float((made[n].double() - original[n].double()).square().sum()) for n in made) ** 0.5
    assert moved["whole"]["change"] == pytest.approx(change)
    table = said("diff", "initial", first, "-w", root)
    assert "layer 1" in table and "layers.1." in table and "layers.0." not in table

    assert "reverted" in said("revert", first, "-w", root)
    assert same(values(root), original)
    assert "restored" in said("checkout", first, "-w", root)
    assert same(values(root), made)
    assert "restored" in said("restore", "initial", "-w", root)
    assert same(values(root), original)

    assert "all as recorded" in said("verify", "-w", root)
    assert "3 older commits" in said("gc", "--keep", "1", "-w", root)
    refused = understudy("checkout", first, "-w", root)
    assert refused.returncode == 2 and "given up by `understudy weights gc`" in refused.stderr
    assert len(json.loads(said("log", "--json", "-w", root))) == 4, "the records stay"
    assert "all as recorded" in said("verify", "-w", root)


def test_weights_name_their_commit_before_any_trainer_runs(root: str, tmp_path: Path) -> None:
    first, _ = teach(root, tmp_path)
    with open_engine(Workspace.open(Path(root))) as engine:
        assert engine.shared.commit == engine.weight_commit == first


def test_sync_brings_pending_commits_into_the_files(root: str) -> None:
    directory = Path(root) / "model"
    live = {n: t * 2 for n, t in values(root).items()}
    made = WeightHistory.open(directory).commit(live, message="m", author="a", created=WHEN)
    assert f"{made.id} * " in said("log", "-w", root)
    report = json.loads(said("sync", "--json", "-w", root))
    assert (report["commit"], report["files"]) == (made.id, ["model.safetensors"])
    assert same(values(root), live)
    assert said("sync", "-w", root) == f"{made.id}  the files are up to date"


def test_verify_and_diagnose_name_what_is_wrong(root: str, tmp_path: Path) -> None:
    first, made = teach(root, tmp_path)
    assert "no one serves" in said("diagnose", "-w", root) and "all fits together" in said(
        "diagnose", "-w", root
    )
    model = torch.nn.ParameterDict(
        {n.replace(".", "/"): torch.nn.Parameter(t.clone()) for n, t in made.items()}
    )
    shared = SharedWeights.create(model, Path(root) / "model")
    found = json.loads(understudy("diagnose", "--json", "-w", root).stdout)
    assert found["live"]["mapping"] == str(shared.directory) and not found["sound"]
    shared.close()

    delta = Path(root) / "model" / ".understudy" / "commits" / f"{first}.delta"
    kept = delta.read_bytes()
    delta.write_bytes(kept[:-30] + bytes(30))
    wrong = understudy("verify", "-w", root)
    assert wrong.returncode == 1 and f"the delta of {first}" in wrong.stdout
    delta.unlink()
    assert f"commit {first}" in understudy("verify", "-w", root).stdout
    delta.write_bytes(kept)
    left = delta.with_name("strange.delta")
    shutil.copyfile(delta, left)
    assert "left over" in said("verify", "-w", root)
    assert "strange.delta" in said("gc", "-w", root) and not left.exists()
    assert understudy("verify", "-w", root).returncode == 0


def test_live_journal_and_disk_side_by_side(root: str, tmp_path: Path) -> None:
    directory = Path(root) / "model"
    shared = SharedWeights.create(load_model(directory).model, directory)
    history = WeightHistory.open(directory)
    for tensor in shared.tensors.values():
        tensor.add_(0.5)
    shared.commit = history.commit(shared.tensors, message="m", author="a", created=WHEN).id
    found = json.loads(said("diagnose", "--json", "-w", root))
    assert found["sound"] and found["live"]["commit"] == shared.commit == found["pending"][0]
    assert all(t["live"] and t["journal"] and not t["disk"] for t in found["tensors"])
    said_so = said("diagnose", "-w", root)
    assert "follow with the next sync" in said_so and "differs" not in said_so
    name = next(iter(shared.tensors))
    shared.tensors[name].view(-1)[0] += 1
    wrong = understudy("diagnose", "-w", root)
    assert wrong.returncode == 1 and f"{name}: differs in live\n" in wrong.stdout
    shared.close()


def test_the_engine_announces_which_model_it_serves(root: str) -> None:
    directory = Path(root) / "model"
    with EmbeddedEngine(ModelSettings(), directory) as engine:
        assert engine.shared.model == directory.resolve()
        assert find_mappings(directory) == [engine.shared.manifest]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("checkout", "feedbeef"), "expected the id of one weight commit"),
        (("checkout", "initial"), "nothing to restore"),
        (("commit", "--from", "/nowhere", "-m", "x"), "found nothing at /nowhere"),
        (("gc", "--keep", "0"), "at least one commit"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(root: str, words: tuple[str, ...], expected: str) -> None:
    command = [sys.executable, "-m", "understudy", "weights", *words, "-w", root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert expected in done.stderr
