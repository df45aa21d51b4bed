"""vLLM's weights are the mapping's: every tensor, while another process writes."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from understudy.engine import Directions, ReadoutManifest, encode_text, load_tokenizer, write_miniature
from understudy.lessons import Example
from understudy.pocket import checkpoint_directory
from understudy.training import RunSession, TrainerHandle
from understudy.weights import SharedWeights, read_commits

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM has an environment of its own: make test-vllm", allow_module_level=True)

PROGRAM = Path(__file__).with_name("answer_ids.py")
TEXTS = ("Please put the red cup on the table by the window.", "What would you like to drink?")
KINDS = {"qwen3": "float32", "llama": "float32", "pocket": "bfloat16"}
NOISE = {"float32": 5e-5, "bfloat16": 0.08}
"""How far log-probabilities of vLLM and of transformers in fp32 may lie apart: root mean square, in nats."""
FOLLOWS = {"float32": 1e-3, "bfloat16": 0.3}
"""How far their changes may lie apart, as a share of the change."""


@dataclass
class Served:
    """vLLM in a process of its own, the mapping of its weights, and transformers in fp32 beside it."""

    process: "subprocess.Popen[str]"
    directory: Path
    shared: SharedWeights
    reference: Any
    dtype: str
    ids: list[list[int]]

    def ask(self, **what: object) -> Any:
        return ask(self.process, **what)

    def logprobs(self) -> torch.Tensor:
        return torch.tensor([value for row in self.ask(ids=self.ids) for value in row])

    def expected(self) -> torch.Tensor:
        """What transformers makes of the mapping's values as they are now."""
        with torch.no_grad():
            for name, parameter in self.reference.named_parameters():
                parameter.copy_(self.shared.tensors[name])
        return reference_logprobs(self.reference, self.ids)


def ask(process: "subprocess.Popen[str]", **what: object) -> Any:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, "vLLM ended"
    return json.loads(answer)


@contextmanager
def answering(
    directory: Path, dtype: str, *, compiled: bool, readout: Path | None = None
) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """vLLM with the plugin, and the manifest of its mapping."""
    command = [sys.executable, str(PROGRAM), str(directory), dtype, *(["--compiled"] if compiled else [])]
    environment = {**os.environ, **({"UNDERSTUDY_MODEL__READOUT": str(readout)} if readout else {})}
    file = directory.parent / "vllm.log"
    with (
        file.open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        first = process.stdout.readline()
        assert first, file.read_text()[-4000:]
        manifest = Path(json.loads(first)["manifest"])
        yield process, manifest
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert not manifest.exists(), "it leaves nothing in shared memory"


def size(difference: torch.Tensor) -> float:
    return difference.square().mean().sqrt().item()


def reference_logprobs(model: Any, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    found = []
    for ids in sequences:
        row = torch.tensor([ids])
        with torch.no_grad():
            logits = model(row).logits[0, :-1].float()
        found.append(logits.log_softmax(-1).gather(1, row[0, 1:, None])[:, 0])
    return torch.cat(found)


@pytest.fixture(scope="module", params=[(kind, mode) for kind in KINDS for mode in ("eager", "compiled")])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    kind, mode = request.param
    directory = tmp_path_factory.mktemp(kind) / "model"
    if kind == "pocket":
        shutil.copytree(checkpoint_directory(), directory)
    else:
        write_miniature(directory, kind, head_size=32)
    with answering(directory, KINDS[kind], compiled=mode == "compiled") as (process, manifest):
        shared = SharedWeights.attach(manifest)
        reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        tokenizer = load_tokenizer(directory)
        ids = [list(encode_text(tokenizer, text)) for text in TEXTS]
        yield Served(process, directory, shared, reference, KINDS[kind], ids)


def test_every_tensor_is_mapped_and_answers_agree_with_transformers(served: Served) -> None:
    names = {name for name, _ in AutoModelForCausalLM.from_pretrained(served.directory).named_parameters()}
    assert served.shared.tensors.keys() == names
    assert size(served.logprobs() - served.expected()) <= NOISE[served.dtype]


def test_a_change_of_any_tensor_changes_vllm_as_it_changes_transformers(served: Served) -> None:
    before, expected_before = served.logprobs(), served.expected()
    draw = torch.Generator().manual_seed(0)
    for name, tensor in served.shared.tensors.items():
        kept = tensor.clone()
        much = 3.0 if name.endswith(("A_log", "dt_bias")) else tensor.float().std() + 0.1
        tensor.add_(torch.randn(tensor.shape, generator=draw).to(tensor.dtype) * much)
        served.shared.publish()
        change, expected = served.logprobs() - before, served.expected() - expected_before
        tensor.copy_(kept)
        served.shared.publish()
        assert size(change) > NOISE[served.dtype] / 4, f"{name} changes nothing"
        off = size(change - expected)
        assert off <= FOLLOWS[served.dtype] * size(expected) + NOISE[served.dtype] / 2, f"{name}: {off}"
    assert torch.equal(served.logprobs(), before), "back at the original values"


def test_what_the_trainer_teaches_is_served_and_synced(served: Served) -> None:
    [ids, _] = served.ids
    example = Example(tuple(ids[:5]), tuple(reversed(ids[5:9])))
    settings = {"lr": 1e-3, "epochs": 4, "gate": None, "replay": 0.0}

    async def teach() -> str:
        trainer = TrainerHandle(served.shared.manifest, served.directory)
        await trainer.start()
        try:
            run = RunSession(
                session="s", examples=(example,), replay=(), settings=settings, message="m", author="a"
            )
            done = await trainer.run(run)
            assert done.outcomes[0].loss_after < done.outcomes[0].loss_before - 0.5
            assert (await trainer.checkpoint("c")).commit == done.commit
            assert done.commit is not None
            return done.commit
        finally:
            await trainer.close()

    before = served.logprobs()
    commit = asyncio.run(teach())
    after = served.logprobs()
    assert size(after - before) > 2 * NOISE[served.dtype]
    assert [made.id for made in read_commits(served.directory)] == [commit] and served.shared.commit == commit
    fresh = AutoModelForCausalLM.from_pretrained(served.directory, dtype=torch.float32)
    assert size(after - reference_logprobs(fresh, served.ids)) <= NOISE[served.dtype]


def test_directions_that_come_later_are_in_graphs_compiled_before(tmp_path: Path) -> None:
    directory = write_miniature(tmp_path / "model", "qwen3", head_size=32)
    manifest = ReadoutManifest(concepts=["calm"], layers=[0], hidden_size=32, dtype="float32")
    Directions(manifest, {0: torch.ones(1, 32)}).save(tmp_path / "directions")
    ids = [[70, 71, 72, 73, 74, 75]]
    with answering(directory, "float32", compiled=True) as (process, _):
        [without] = ask(process, ids=ids)
    with answering(directory, "float32", compiled=True, readout=tmp_path / "directions") as (process, _):
        [plain], [steered] = ask(process, ids=ids), ask(process, ids=ids, steer=["calm=3"])
    assert plain == pytest.approx(without, abs=1e-5)
    assert steered != pytest.approx(without, abs=0.1)
