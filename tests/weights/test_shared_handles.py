"""Memory that stays where it is: handles over a socket, for this user only.

On a processor torch's handles are segments of shared memory; on a GPU they are CUDA's (`make test-gpu`).
"""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from understudy.weights import MappingBroken, SharedWeights, WeightsMismatch, Window
from understudy.weights.handles import receive_storages

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
        ],
    ),
]
WRITER = """
import sys
from pathlib import Path
from understudy.weights import SharedWeights
shared = SharedWeights.attach(Path(sys.argv[1]))
print(sorted((name, str(tensor.dtype), tensor.device.type) for name, tensor in shared.tensors.items()))
shared.tensors["k"].fill_(7.0)
shared.tensors["decay"].fill_(2.0)
shared.publish()
shared.step += 1
"""


def parameters(device: str) -> dict[str, torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    both = torch.randn(64, generator=draw).to(device)  # two parameters in one storage
    return {
        "qk": torch.nn.Parameter(both[:40].view(10, 4)),
        "norm": torch.nn.Parameter(both[40:]),
        "decay": torch.nn.Parameter(torch.ones(3, device=device)),
    }


WINDOWS = {
    "q": Window("qk", 0, (6, 4), torch.float32),
    "k": Window("qk", 6, (4, 4), torch.float32),
    "norm": Window("norm", 0, (24,), torch.float32),
    "decay": Window("decay", 0, (3,), torch.bfloat16),
}


@pytest.fixture(params=DEVICES)
def given(request: pytest.FixtureRequest) -> dict[str, torch.nn.Parameter]:
    return parameters(request.param)


@pytest.fixture
def shared(given: dict[str, torch.nn.Parameter]) -> Iterator[SharedWeights]:
    made = SharedWeights.share(given, WINDOWS, {}, in_place=True)
    yield made
    made.close()


def test_another_process_writes_where_the_engine_reads(
    given: dict[str, torch.nn.Parameter], shared: SharedWeights
) -> None:
    kept = {name: parameter.detach().clone() for name, parameter in given.items()}
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(shared.manifest)], capture_output=True, text=True, check=True
    )
    device = given["qk"].device.type
    assert f"('decay', 'torch.bfloat16', '{device}')" in done.stdout
    assert (given["qk"][6:] == 7.0).all() and torch.equal(given["qk"][:6], kept["qk"][:6])
    assert torch.equal(given["norm"], kept["norm"])
    assert (given["decay"] == 2.0).all(), "what the engine computes in another element type"
    assert shared.step == 1 and shared.generation == 1


def test_the_parameters_stay_where_they_are(given: dict[str, torch.nn.Parameter]) -> None:
    before = {name: parameter.data_ptr() for name, parameter in given.items()}
    shared = SharedWeights.share(given, WINDOWS, {}, in_place=True)
    assert {name: parameter.data_ptr() for name, parameter in given.items()} == before
    assert shared.tensors["k"].data_ptr() == given["qk"][6:].data_ptr()
    assert (shared.directory / "weights.bin").stat().st_size == 4096, "only what describes them"
    shared.close()
    assert not shared.directory.exists()


def test_only_this_user_is_given_handles(shared: SharedWeights) -> None:
    assert shared.directory.stat().st_mode & 0o777 == 0o700
    if os.getuid() != 0:
        pytest.skip("only root can try it as somebody else")
    shared.directory.chmod(0o711)
    (shared.directory / "handles.sock").chmod(0o666)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            receive_storages(shared.directory)
        except MappingBroken:
            os._exit(17)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17


def test_an_engine_that_is_gone_is_said_so(given: dict[str, torch.nn.Parameter]) -> None:
    shared = SharedWeights.share(given, WINDOWS, {}, in_place=True)
    assert shared._handles is not None
    shared._handles.close()
    (shared.directory / "handles.sock").unlink()
    with pytest.raises(MappingBroken, match="expected the engine to answer"):
        SharedWeights.attach(shared.manifest)
    shared.close()


def test_what_is_not_in_rows_is_refused() -> None:
    turned = torch.nn.Parameter(torch.randn(4, 10).t())
    with pytest.raises(WeightsMismatch, match="expected rows behind one another"):
        SharedWeights.share({"qk": turned}, {"q": Window("qk", 0, (10, 4), torch.float32)}, {}, in_place=True)
