"""One copy of the weights, whoever looks."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from understudy.weights import MappingBroken, SharedWeights, WeightsMismatch, find_mappings


class Tied(nn.Module):
    """Two layers and a head tied to the embedding."""

    def __init__(self, dtype: torch.dtype = torch.float32, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width, dtype=dtype)
        self.middle = nn.Linear(width, width, dtype=dtype)
        self.head = nn.Linear(width, 11, bias=False, dtype=dtype)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(torch.tanh(self.middle(self.embed(ids))))
        return answer


@pytest.fixture
def model() -> Tied:
    torch.manual_seed(0)
    return Tied()


@pytest.fixture
def shared(model: Tied) -> Iterator[SharedWeights]:
    weights = SharedWeights.create(model)
    yield weights
    weights.close()


def test_creating_changes_no_value_and_keeps_the_tie(model: Tied) -> None:
    ids = torch.arange(5)
    before, parameters = model(ids), list(model.parameters())
    weights = SharedWeights.create(model)
    assert torch.equal(model(ids), before)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert model.head.weight is model.embed.weight
    assert weights.aliases == {"head.weight": "embed.weight"}
    weights.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_second_model_on_the_mapping_is_the_same_model(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    first = Tied(dtype)
    weights = SharedWeights.create(first)
    with torch.device("meta"):
        second = Tied(dtype)
    SharedWeights.attach(weights.manifest).bind(second)
    assert second.head.weight is second.embed.weight
    with torch.no_grad():
        second.embed.weight.add_(1.0)
        second.middle.bias.fill_(0.25)
    assert torch.equal(first.embed.weight, second.embed.weight)
    assert torch.equal(first.head.weight, second.embed.weight)
    assert torch.equal(first.middle.bias, torch.full_like(first.middle.bias, 0.25))
    weights.close()


def test_another_process_writes_and_this_one_sees_it(model: Tied, shared: SharedWeights) -> None:
    program = (
        "import sys, torch; from pathlib import Path; from understudy.weights import SharedWeights\n"
        "w = SharedWeights.attach(Path(sys.argv[1])); w.tensors['middle.bias'].fill_(3.0)\n"
        "w.step = 7; w.dirty = True"
    )
    subprocess.run([sys.executable, "-c", program, str(shared.manifest)], check=True)
    assert torch.equal(model.middle.bias, torch.full_like(model.middle.bias, 3.0))
    assert (shared.step, shared.dirty) == (7, True)


def test_the_header_names_the_live_commit_to_every_process(shared: SharedWeights) -> None:
    assert SharedWeights.attach(shared.manifest).commit is None
    program = (
        "import sys; from pathlib import Path; from understudy.weights import SharedWeights\n"
        "w = SharedWeights.attach(Path(sys.argv[1])); w.commit = '00ab12cd34ef'; print(w.model)"
    )
    command = [sys.executable, "-c", program, str(shared.manifest)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "None"
    assert shared.commit == "00ab12cd34ef"
    for identity in ("000000000000", "ffffffffffff", None):
        shared.commit = identity
        assert SharedWeights.attach(shared.manifest).commit == identity


def test_a_mapping_is_found_by_its_model_directory(tmp_path: Path) -> None:
    source, link = tmp_path / "model", tmp_path / "link"
    source.mkdir()
    link.symlink_to(source)
    assert find_mappings(source) == []
    weights = SharedWeights.create(Tied(), source)
    assert find_mappings(source) == find_mappings(link) == [weights.manifest]
    assert find_mappings(tmp_path) == []
    found = SharedWeights.attach(weights.manifest)
    assert found.model == source and found.aliases == {"head.weight": "embed.weight"}
    manifest = json.loads(weights.manifest.read_text())
    assert manifest["model"] == str(source)
    assert manifest["tensors"]["middle.bias"].keys() == {"dtype", "shape", "offset"}
    weights.close()
    assert find_mappings(source) == []


def test_only_this_user_may_open_the_files(shared: SharedWeights) -> None:
    assert shared.directory.stat().st_mode & 0o077 == 0
    assert (shared.directory / "weights.bin").stat().st_mode & 0o077 == 0


def test_closing_removes_the_files(model: Tied) -> None:
    weights = SharedWeights.create(model)
    SharedWeights.attach(weights.manifest).close()
    assert weights.directory.is_dir(), "one who only attached must not remove them"
    weights.close()
    assert not weights.directory.exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_files_of_a_dead_owner_are_removed_by_the_next(model: Tied, how: signal.Signals) -> None:
    program = (
        "import torch; from torch import nn; from understudy.weights import SharedWeights\n"
        "w = SharedWeights.create(nn.Linear(3, 3)); print(w.directory, flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None and owner.stdin is not None
    left = Path(owner.stdout.readline().strip())
    assert left.is_dir()
    living = SharedWeights.create(Tied())
    assert left.is_dir(), "a living owner's files stay"
    os.kill(owner.pid, how)
    owner.wait()
    owner.stdin.close()
    owner.stdout.close()
    after = SharedWeights.create(Tied())
    assert not left.exists()
    assert living.directory.is_dir()
    living.close()
    after.close()


def test_what_a_process_left_that_died_while_it_began_is_removed(model: Tied) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, torch; import understudy.weights.shared as s\n"
            "s._lock = lambda file: (print(file.parent, flush=True), os._exit(1))\n"
            "s.SharedWeights.create(torch.nn.Linear(3, 3))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(done.stdout.strip())
    assert left.is_dir() and not list(left.iterdir())
    SharedWeights.create(model).close()
    assert not left.exists()


def test_a_model_of_another_shape_is_refused(shared: SharedWeights) -> None:
    with pytest.raises(WeightsMismatch, match=r"embed.weight: expected \(11, 4\)"):
        shared.bind(Tied(width=4))


def test_a_model_of_another_dtype_is_refused(shared: SharedWeights) -> None:
    with pytest.raises(WeightsMismatch, match="bfloat16"):
        shared.bind(Tied(torch.bfloat16))


def test_a_model_with_other_names_is_refused(shared: SharedWeights) -> None:
    with pytest.raises(WeightsMismatch, match=r"embed.weight.*found bias, weight"):
        shared.bind(nn.Linear(2, 2))


def test_a_missing_or_short_mapping_is_refused(shared: SharedWeights, tmp_path: Path) -> None:
    with pytest.raises(MappingBroken, match="expected the manifest"):
        SharedWeights.attach(tmp_path / "manifest.json")
    os.truncate(shared.directory / "weights.bin", 100)
    with pytest.raises(MappingBroken, match="found format 4 and 100 bytes"):
        SharedWeights.attach(shared.manifest)
