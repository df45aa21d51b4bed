"""The same recipes on the same inputs: mergekit and ours."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit_oracle import merge_with_mergekit
from safetensors.torch import load_file
from weight_models import small_model

from understudy.weights import merge, parse_recipe

ARCHITECTURES = ("llama", "qwen3", "qwen3_5")


def write_models(folder: Path, architecture: str, dtype: torch.dtype = torch.float32) -> tuple[str, str, str]:
    """A base and two models that went different ways from it, each entry by a different amount."""
    paths = []
    for number, name in enumerate(("base", "first", "second")):
        model = small_model(architecture)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                if number:
                    parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        model.to(dtype).save_pretrained(folder / name)
        paths.append(str(folder / name))
    return paths[0], paths[1], paths[2]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    return write_models(tmp_path_factory.mktemp("models"), request.param)


def both(recipe: dict[str, Any], tmp_path: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    merge(parse_recipe(recipe), tmp_path / "ours")
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    theirs = merge_with_mergekit(recipe, tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert {t.dtype for t in ours.values()} == {t.dtype for t in theirs.values()}
    return ours, theirs


def weighted(
    models: tuple[str, str, str], first: dict[str, Any], second: dict[str, Any]
) -> list[dict[str, Any]]:
    return [{"model": models[1], "parameters": first}, {"model": models[2], "parameters": second}]


DIFFERENCE_RECIPES: list[dict[str, Any]] = [
    {"merge_method": "task_arithmetic"},
    {"merge_method": "task_arithmetic", "parameters": {"normalize": True, "lambda": 0.7}},
    {"merge_method": "ties"},
    {"merge_method": "ties", "parameters": {"normalize": False, "lambda": 1.5, "int8_mask": True}},
    {"merge_method": "ties", "parameters": {"rescale": True}},
    {"merge_method": "linear"},
    {"merge_method": "linear", "parameters": {"normalize": False}},
]


@pytest.mark.parametrize("extra", DIFFERENCE_RECIPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_recipe_gives_the_same_weights(
    extra: dict[str, Any],
    dtype: str,
    models: tuple[str, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if dtype == "bfloat16":
        keep_first_of_equals(monkeypatch)
    linear = extra["merge_method"] == "linear"
    first: dict[str, Any] = {"weight": 0.8} if linear else {"weight": 0.8, "density": 0.53}
    second: dict[str, Any] = {"weight": 0.5} if linear else {"weight": 0.5, "density": [0.2, 0.9]}
    recipe = {**extra, "models": weighted(models, first, second), "dtype": dtype}
    if not linear:
        recipe["base_model"] = models[0]
    ours, theirs = both(recipe, tmp_path)
    exact = not extra.get("parameters", {}).get("rescale")
    for name, tensor in theirs.items():
        if exact:
            assert torch.equal(ours[name], tensor), name
        elif dtype == "float32":  # the factor that restores the sum of magnitudes is summed in another order
            assert torch.allclose(ours[name], tensor, rtol=1e-5, atol=1e-6), name
        else:  # there that factor is rounded to bfloat16, and where inputs nearly cancel a sign may turn
            near = torch.isclose(ours[name].float(), tensor.float(), rtol=2**-6, atol=2**-7)
            assert float(near.float().mean()) > 0.97, name


def test_a_negative_weight_and_a_base_among_the_models(models: tuple[str, str, str], tmp_path: Path) -> None:
    recipe = {
        "merge_method": "ties",
        "base_model": models[0],
        "models": [
            {"model": models[0]},
            *weighted(models, {"weight": -0.4, "density": 0.5}, {"weight": 1.0, "density": 0.7}),
        ],
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    ours, theirs = both(recipe, tmp_path)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def keep_first_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among equal magnitudes mergekit keeps any, as its sort happens to leave them; ours the first."""
    argsort = torch.argsort
    monkeypatch.setattr(torch, "argsort", lambda *given, **more: argsort(*given, **more, stable=True))


def test_bfloat16_models_with_many_equal_magnitudes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = write_models(tmp_path, "qwen3", torch.bfloat16)
    recipe = {
        "merge_method": "ties",
        "base_model": models[0],
        "models": weighted(models, {"weight": 1, "density": 0.3}, {"weight": 1, "density": 0.3}),
        "dtype": "bfloat16",
    }
    ours, theirs = both(recipe, tmp_path)
    other = sum(int((ours[name] != theirs[name]).sum()) for name in theirs)
    assert 0 < other < 0.02 * sum(tensor.numel() for tensor in theirs.values())
    keep_first_of_equals(monkeypatch)
    stable = merge_with_mergekit(recipe, tmp_path / "stable")
    assert all(torch.equal(ours[name], stable[name]) for name in theirs)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", [True, False])
def test_dare_with_the_same_entries_dropped(
    method: str, rescale: bool, models: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mergekit draws from torch's global generator; here ours is set to the same state for each tensor."""
    import mergekit.merge_methods.generalized_task_arithmetic as their_method
    import mergekit.merge_methods.task_adapter as their_task

    from understudy.weights.methods import tensor_seed

    place = 0
    name = ""
    execute = their_task.ExecuteMergeMethodTask.execute
    sparsify = their_method.sparsify

    def named_execute(task: Any, *given: Any, **more: Any) -> Any:
        nonlocal place, name
        place, name = 0, task.output_weight.name
        return execute(task, *given, **more)

    def seeded_sparsify(*given: Any, **more: Any) -> Any:
        nonlocal place
        torch.manual_seed(tensor_seed(0, place, name))
        place += 1
        return sparsify(*given, **more)

    monkeypatch.setattr(their_task.ExecuteMergeMethodTask, "execute", named_execute)
    monkeypatch.setattr(their_method, "sparsify", seeded_sparsify)
    recipe = {
        "merge_method": method,
        "base_model": models[0],
        "models": weighted(models, {"weight": 0.6, "density": 0.4}, {"weight": 0.9, "density": 0.25}),
        "parameters": {"rescale": rescale},
        "dtype": "float32",
    }
    ours, theirs = both(recipe, tmp_path)
    for tensor_name, tensor in theirs.items():
        if rescale:
            assert torch.allclose(ours[tensor_name], tensor, rtol=1e-5, atol=1e-6), tensor_name
        else:
            assert torch.equal(ours[tensor_name], tensor), tensor_name


def test_slerp_with_filters_and_gradients(models: tuple[str, str, str], tmp_path: Path) -> None:
    whole = [0, layers_of(models[0])]
    sources = [{"model": models[0], "layer_range": whole}, {"model": models[1], "layer_range": whole}]
    recipe = {
        "slices": [{"sources": sources}],
        "merge_method": "slerp",
        "base_model": models[0],
        "parameters": {
            "t": [
                {"filter": "self_attn", "value": [0, 0.5]},
                {"filter": "mlp", "value": [1, 0.3, 0.7]},
                {"value": "0.45"},
            ]
        },
        "dtype": "float32",
    }
    ours, theirs = both(recipe, tmp_path)
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, rtol=1e-5, atol=1e-6), name
    assert not torch.equal(
        ours["model.layers.1.mlp.up_proj.weight"], load(models[0])["model.layers.1.mlp.up_proj.weight"]
    )


def test_slerp_between_nearly_parallel_models_is_a_straight_line(
    models: tuple[str, str, str], tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import save_file

    near = tmp_path / "near"
    shutil.copytree(models[0], near)
    save_file({n: t * 1.5 for n, t in load(models[0]).items()}, near / "model.safetensors", {"format": "pt"})
    recipe = {
        "models": [{"model": models[0]}, {"model": str(near)}],
        "merge_method": "slerp",
        "base_model": models[0],
        "parameters": {"t": 0.5},
        "dtype": "float32",
    }
    ours, theirs = both(recipe, tmp_path)
    for name, tensor in load(models[0]).items():
        assert torch.allclose(ours[name], theirs[name], rtol=1e-6)
        assert torch.allclose(ours[name], tensor * 1.25, rtol=1e-6)


def test_slices_with_parameters_of_their_own(models: tuple[str, str, str], tmp_path: Path) -> None:
    def piece(start: int, end: int, weight: float) -> dict[str, Any]:
        return {
            "sources": [
                {"model": models[1], "layer_range": [start, end], "parameters": {"weight": weight}},
                {"model": models[2], "layer_range": [start, end]},
            ],
            "parameters": {"weight": 1.0 - weight},
        }

    slices = [piece(0, 1, 0.25), piece(1, layers_of(models[0]), 0.75)]
    recipe = {"slices": slices, "merge_method": "linear", "dtype": "float32"}
    ours, theirs = both(recipe, tmp_path)
    # of an architecture that it has to guess, mergekit counts the last norm to the first slice
    guessed = any("linear_attn" in name for name in theirs)
    compared = [name for name in theirs if "layers." in name or not guessed]
    assert all(torch.equal(ours[name], theirs[name]) for name in compared)


def load(directory: str) -> dict[str, torch.Tensor]:
    held: dict[str, torch.Tensor] = load_file(Path(directory) / "model.safetensors")
    return held


def layers_of(directory: str) -> int:
    held: int = json.loads((Path(directory) / "config.json").read_text())["num_hidden_layers"]
    return held
