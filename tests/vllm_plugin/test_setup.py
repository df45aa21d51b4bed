"""What vLLM may be set up with, and what a request may ask of it; vLLM itself is not needed for these."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from understudy.engine import BadRequest, write_miniature
from understudy.engine.vllm.sharing import NotTeachable, check_setup, share_model
from understudy.engine.vllm.tapping import KEY, wanted_readout, wanted_steering
from understudy.weights import WeightsMismatch, find_mappings


def worker(directory: Path, **change: Any) -> Any:
    found = {"tensor": 1, "pipeline": 1, "quantization": None, "model": str(directory), **change}
    return SimpleNamespace(
        vllm_config=SimpleNamespace(
            parallel_config=SimpleNamespace(
                tensor_parallel_size=found["tensor"], pipeline_parallel_size=found["pipeline"]
            ),
            model_config=SimpleNamespace(quantization=found["quantization"], model=found["model"]),
        )
    )


def test_a_plain_setup_is_taken(tmp_path: Path) -> None:
    check_setup(worker(tmp_path))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tensor": 2}, "tensor parallelism of 1, got 2: one trainer maps one process's weights"),
        ({"pipeline": 4}, "pipeline parallelism of 1, got 4"),
        ({"quantization": "fp8"}, "got fp8: a quantized weight cannot take a small step"),
        ({"model": "some/name"}, "expected a model directory, got 'some/name'"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    with pytest.raises(NotTeachable, match=match):
        check_setup(worker(tmp_path, **change))


def test_steering_is_text() -> None:
    assert wanted_steering({"steer": "calm=1"}) == ("calm=1",)
    assert wanted_steering({"steer": ["calm=1", "proud=2"]}) == ("calm=1", "proud=2")
    assert wanted_steering(None) == wanted_steering({}) == ()
    for wrong in (3, [1.5], {"calm": 1}):
        with pytest.raises(BadRequest, match="expected texts"):
            wanted_steering({"steer": wrong})


def test_what_our_engine_alone_asks_for_is_checked_too() -> None:
    assert wanted_readout({KEY: ["k", 3]}) == ("k", 3)
    assert wanted_readout({"steer": "calm=1"}) is None
    for wrong in ("k", ["k"], [3, "k"], ["k", -1], {"k": 3}):
        with pytest.raises(BadRequest, match="expected a key and a position"):
            wanted_readout({KEY: wrong})


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A model whose parameters have the checkpoint's names, as vLLM's have where it fuses nothing."""
    return AutoModelForCausalLM.from_pretrained(write_miniature(tmp_path / "m", "llama"))


def test_what_was_loaded_is_shared_under_the_checkpoints_names(model: Any, tmp_path: Path) -> None:
    shared = share_model(model, tmp_path / "m", "me")
    assert shared.tensors.keys() == dict(model.named_parameters()).keys()
    assert find_mappings(tmp_path / "m", "me") == [shared.manifest]
    assert find_mappings(tmp_path / "m", "somebody else") == []
    shared.close()


def test_values_that_are_not_the_files_end_the_start_with_a_name(model: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] += 1
    with pytest.raises(
        WeightsMismatch, match=r"expected model\.layers\.1\.mlp\.up_proj\.weight to be in vLLM"
    ):
        share_model(model, tmp_path / "m", "me")
    assert find_mappings(tmp_path / "m") == []


def test_a_weight_that_was_given_up_ends_the_start_with_its_name(model: Any, tmp_path: Path) -> None:
    model.model.layers[0].self_attn.o_proj.weight = torch.nn.Parameter(torch.empty(0))
    with pytest.raises(WeightsMismatch, match=r"vLLM gave up those of model\.layers\.0\.self_attn\.o_proj"):
        share_model(model, tmp_path / "m", "me")
