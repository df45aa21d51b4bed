"""What vLLM may be set up with, and what a request may ask of it; vLLM itself is not needed for these."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from understudy.engine import BadRequest
from understudy.engine.vllm.sharing import NotTeachable, check_setup
from understudy.engine.vllm.tapping import wanted_steering


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
