"""Task vectors on the command line, over a workspace's model."""

import hashlib
import io
import json
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from understudy.cli import app
from understudy.cli.failures import explained
from understudy.engine import write_miniature
from understudy.lessons import ChatMessage
from understudy.weights import WeightHistory, read_commits
from understudy.workspace import Rehearsal, Workspace

WHEN = "2026-01-02T03:04:05Z"


def said(*words: str | Path) -> str:
    """What a command prints; run in this process, for a new one loads torch anew."""
    out = io.StringIO()
    with redirect_stdout(out), explained():
        assert app([str(word) for word in words], result_action="return_int_as_exit_code_else_zero") == 0
    return out.getvalue().strip()


def refused(*words: str | Path) -> str:
    err = io.StringIO()
    with redirect_stderr(err), pytest.raises(SystemExit) as left:
        said(*words)
    assert left.value.code == 2
    return " ".join(err.getvalue().split())


def digest(directory: Path) -> str:
    return hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace whose model has learned twice: commits `one` and `two`."""
    model = write_miniature(tmp_path / "miniature", "qwen3")
    folder = tmp_path / "w"
    line = Rehearsal((ChatMessage("user", "Hello"), ChatMessage("assistant", "Hi.")))
    Workspace.create(folder, model=model, copy_model=True, replay=(line,), settings="")
    history = WeightHistory.open(folder / "model")
    live = load_file(folder / "model" / "model.safetensors")
    torch.manual_seed(0)
    for message in ("one", "two"):
        for tensor in live.values():
            tensor += 0.01 * torch.randn_like(tensor)
        history.commit(live, message=message, author="ada", created=WHEN)
    history.sync()
    return folder


def commits(root: Path) -> list[str]:
    return [commit.id for commit in read_commits(root / "model")]


def test_taken_apart_negated_and_applied_gives_the_model_as_it_came(root: Path, tmp_path: Path) -> None:
    one, two = commits(root)
    start = digest(tmp_path / "miniature")
    told = said("weights", "vector", f"initial..{two}", "-o", tmp_path / "all.safetensors", "-w", root)
    assert f"@{two}" in told
    assert "entries, norm" in told
    said("weights", "vector", f"{one}..{two}", "-o", tmp_path / "second.safetensors", "-w", root)
    said("weights", "negate", tmp_path / "second.safetensors", "-o", tmp_path / "back.safetensors")
    told = said("weights", "apply", tmp_path / "back.safetensors", "-w", root, "-o", tmp_path / "undone")
    assert "task_arithmetic" in told
    assert "note:" in told  # the vector leads from `two` back, but starts from `one`'s weights
    found = load_file(tmp_path / "undone" / "model.safetensors")
    for name, tensor in WeightHistory.view(root / "model").tensors_at(one):
        assert torch.allclose(found[name], tensor, atol=1e-6), name
    assert (tmp_path / "undone" / "tokenizer.json").is_file()
    assert digest(tmp_path / "miniature") == start


def test_a_commit_by_applying_and_back_again(root: Path, tmp_path: Path) -> None:
    before = digest(root / "model")
    _, two = commits(root)
    vector = tmp_path / "v.safetensors"
    said("weights", "vector", f"initial..{two[:6]}", "-o", vector, "-w", root)
    told = said(
        "weights",
        "apply",
        vector,
        "--scale",
        "-1",
        "--commit",
        "-m",
        "Take it away",
        "--as",
        "ada",
        "-w",
        root,
    )
    newest = read_commits(root / "model")[-1]
    assert (newest.message, newest.author) == ("Take it away", "ada")
    assert newest.id in told
    found, start = (
        load_file(root / "model" / "model.safetensors"),
        load_file(tmp_path / "miniature" / "model.safetensors"),
    )
    for name in start:
        assert torch.allclose(found[name], start[name], atol=1e-6)
    history = WeightHistory.open(root / "model")
    history.restore(None, two, author="ada", created=WHEN)
    history.sync()
    assert digest(root / "model") == before
    assert not list(root.glob(".model-*"))


def test_a_commit_starts_from_what_was_committed_not_from_what_the_files_hold(
    root: Path, tmp_path: Path
) -> None:
    """Commits that no sync has brought to the files yet are in the base."""
    history = WeightHistory.open(root / "model")
    live = dict(history.tensors_at(history.head))
    for tensor in live.values():
        tensor += 1
    third = history.commit(live, message="three", author="ada", created=WHEN)
    assert history.pending
    del history
    vector = tmp_path / "v.safetensors"
    said("weights", "vector", f"{commits(root)[1]}..{third.id}", "-o", vector, "-w", root)
    said("weights", "apply", vector, "--commit", "-w", root)
    for name, tensor in load_file(root / "model" / "model.safetensors").items():
        assert torch.allclose(tensor, live[name] + 1, atol=1e-5), name


def test_merging_by_options_by_recipe_and_as_vectors(root: Path, tmp_path: Path) -> None:
    one, two = commits(root)
    vectors = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    said("weights", "vector", f"initial..{one}", "-o", vectors[0], "-w", root)
    said("weights", "vector", f"{one}..{two}", "-o", vectors[1], "-w", root)
    base = tmp_path / "miniature"
    said(
        "weights",
        "merge",
        *vectors,
        "--method",
        "ties",
        "--base",
        base,
        "--density",
        "0.5",
        "-o",
        tmp_path / "x",
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "merge_method": "ties",
                "base_model": str(base),
                "models": [
                    {"model": str(path), "parameters": {"weight": 1, "density": 0.5}} for path in vectors
                ],
            }
        )
    )
    said("weights", "merge", "--recipe", recipe, "-o", tmp_path / "y")
    by_options, by_recipe = (load_file(tmp_path / name / "model.safetensors") for name in "xy")
    assert all(torch.equal(by_options[name], by_recipe[name]) for name in by_options)
    told = said(
        "weights", "merge", *vectors, "--method", "task-arithmetic", "-o", tmp_path / "sum.safetensors"
    )
    assert "task vector" in told
    said("weights", "apply", tmp_path / "sum.safetensors", "--base", base, "-o", tmp_path / "z")
    expected = dict(WeightHistory.view(root / "model").tensors_at(two))
    for name, tensor in load_file(tmp_path / "z" / "model.safetensors").items():
        assert torch.allclose(tensor, expected[name], atol=1e-6)
    told = said("weights", "merge", *vectors, "--method", "dare", "--commit", "--seed", "3", "-w", root)
    assert read_commits(root / "model")[-1].id in told


def test_conflicts_as_text_and_as_json(root: Path, tmp_path: Path) -> None:
    one, two = commits(root)
    vectors = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    said("weights", "vector", f"initial..{one}", "-o", vectors[0], "-w", root)
    said("weights", "negate", vectors[0], "-o", vectors[1])
    told = said("weights", "conflicts", *vectors)
    assert "the whole model" in told
    assert "-1.000" in told
    found = json.loads(said("weights", "conflicts", *vectors, "--json"))
    assert found["pairs"][0]["whole"]["disagreement"] == 1
    assert two


def test_what_cannot_be_done_is_said_in_a_line(root: Path, tmp_path: Path) -> None:
    one, two = commits(root)
    vector = tmp_path / "v.safetensors"
    said("weights", "vector", f"{one}..{two}", "-o", vector, "-w", root)
    assert "already there" in refused("weights", "vector", f"{one}..{two}", "-o", vector, "-w", root)
    assert "fits 0" in refused(
        "weights", "vector", f"feed..{two}", "-o", tmp_path / "x.safetensors", "-w", root
    )
    assert "expected A..B" in refused("weights", "vector", one, "-o", tmp_path / "x.safetensors", "-w", root)
    assert "either --output FILE or --commit" in refused("weights", "apply", vector, "-w", root)
    assert "leave out --base" in refused(
        "weights", "apply", vector, "--base", tmp_path / "miniature", "--commit", "-w", root
    )
    assert "task vector" in refused(
        "weights", "negate", root / "model" / "model.safetensors", "-o", tmp_path / "x.safetensors"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("merge_method: ties\nmodels: []\ntokenizer: {}\n")
    assert "'tokenizer'" in refused("weights", "merge", "--recipe", recipe, "-o", tmp_path / "x")
    assert "--density" in refused(
        "weights", "merge", vector, "--method", "ties", "--density", "0.1", "0.2", "0.3", "-o", tmp_path / "x"
    )
    assert not (tmp_path / "x").exists()


def test_a_real_process_refuses_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "understudy", "weights", "conflicts", "a.safetensors", "b.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "expected a model directory or a safetensors file at a.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_running_server_takes_the_commit_and_serves_it(root: Path, tmp_path: Path) -> None:
    """One real server: the live weights, the commit and the way back."""
    start = digest(tmp_path / "miniature")
    _, two = commits(root)
    vector = tmp_path / "v.safetensors"
    said("weights", "vector", f"initial..{two}", "-o", vector, "-w", root)
    workspace = Workspace.open(root)
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "understudy", "serve", "-w", str(root), "--port", "0"],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 240
        while (address := workspace.server()) is None or address.pid != process.pid:
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        told = said("weights", "apply", vector, "--scale", "-1", "--commit", "--as", "bo", "-w", root)
        newest = read_commits(root / "model")[-1]
        assert newest.id in told
        assert (newest.author, newest.parent) == ("bo", two)
        said("weights", "merge", vector, "--method", "task-arithmetic", "--commit", "-w", root)
        again = read_commits(root / "model")[-1]
        assert again.parent == newest.id
        said("weights", "restore", "initial", "-w", root)
    finally:
        process.terminate()
        process.wait(120)
    history = WeightHistory.open(root / "model")
    history.sync()
    assert digest(root / "model") == start
