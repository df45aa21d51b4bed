"""mergekit's recipes: what is read, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_vectors import random_tensors, read_model, write_model

from understudy.weights import Recipe, RecipeError, merge, parse_recipe, read_recipe


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    return {
        name: str(write_model(tmp_path / name, random_tensors(n)))
        for n, name in enumerate(("base", "first", "second"))
    }


def ties(models: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "merge_method": "ties",
        "base_model": models["base"],
        "models": [
            {"model": models["first"], "parameters": {"weight": 1, "density": 0.5}},
            {"model": models["second"], "parameters": {"weight": 0.5}},
        ],
        **more,
    }


def changed(held: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    copied: dict[str, Any] = yaml.safe_load(yaml.safe_dump(held))
    place: Any = copied
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return copied


def test_a_recipe_file_is_read(models: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"""
# comments and YAML's forms are as usual
merge_method: ties
base_model: {models["base"]}
models:
  - model: {models["first"]}
    parameters: {{weight: 1.0, density: [0.5, 1e-1]}}
  - model: {{models_second}}
    parameters:
      weight:
        - filter: layers.0
          value: 0.25
        - value: 2
parameters: {{normalize: false, lambda: "1e-1", int8_mask: true}}
dtype: float32
out_dtype: bfloat16
tokenizer_source: base
""".replace("{models_second}", models["second"])
    )
    found = read_recipe(file)
    assert (found.method, found.base, found.dtype, found.out_dtype) == (
        "ties",
        Path(models["base"]),
        torch.float32,
        torch.bfloat16,
    )
    assert found.inputs == (Path(models["first"]), Path(models["second"]))
    first_layer = found.settings_for("model.layers.0.a.weight", 2)
    assert first_layer.weights == (1.0, 0.25)
    assert first_layer.densities == (0.5, 1.0)
    assert (first_layer.normalize, first_layer.scale, first_layer.rescale) == (False, 0.1, "none")
    last_layer = found.settings_for("model.layers.1.a.weight", 2)
    assert last_layer.weights == (1.0, 2.0)
    assert last_layer.densities == pytest.approx((0.1, 1.0))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["tokenizer"], {"source": "union"}, "'tokenizer'"),
        (["tokenizer_source"], "union", "tokenizer_source"),
        (["chat_template"], "auto", "'chat_template'"),
        (["modules"], {}, "'modules'"),
        (["merge_method"], "della", "della"),
        (["parameters"], {"epsilon": 0.1}, "parameters: unsupported key 'epsilon'"),
        (["parameters"], {"t": 0.1}, "unsupported key 't'"),
        (["models", 0, "parameters", "gamma"], 0.1, r"models\[0\].parameters: unsupported key 'gamma'"),
        (["models", 0, "parameters", "weight"], "much", r"models\[0\].parameters.weight: expected a number"),
        (["models", 0, "parameters", "weight"], True, "expected a number"),
        (["models", 0, "parameters", "weight"], [], "expected a number"),
        (["parameters"], {"normalize": 1}, "expected true or false"),
        (["models", 0, "model"], "someone/their-model", "nothing is downloaded"),
        (["models", 0, "revision"], "main", "'revision'"),
        (["models"], [], "at least one"),
        (["dtype"], "int8", "dtype"),
        (["slices"], [], "either models or slices"),
    ],
)
def test_what_is_not_understood_is_named(
    path: list[Any], value: Any, message: str, models: dict[str, str]
) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(changed(ties(models), path, value))


def test_a_missing_weight_is_named(models: dict[str, str], tmp_path: Path) -> None:
    held = parse_recipe(
        changed(ties(models), ["models", 1, "parameters"], {"weight": [{"filter": "layers.0", "value": 1}]})
    )
    with pytest.raises(RecipeError, match="weight for"):
        merge(held, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def sliced(models: dict[str, str], *ranges: tuple[int, int]) -> dict[str, Any]:
    return {
        "merge_method": "linear",
        "parameters": {"weight": 1.0},
        "slices": [
            {"sources": [{"model": models[name], "layer_range": list(held)} for name in ("first", "second")]}
            for held in ranges
        ],
    }


@pytest.mark.parametrize(
    "ranges", [[(0, 1)], [(0, 1), (0, 1)], [(1, 2), (0, 1)], [(0, 3)], [(0, 1), (1, 2), (1, 2)]]
)
def test_layers_are_neither_left_out_nor_moved(
    ranges: list[tuple[int, int]], models: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="cover layers 0 to 2"):
        merge(parse_recipe(sliced(models, *ranges)), tmp_path / "x")


def test_slices_of_all_layers_are_the_whole_model(models: dict[str, str], tmp_path: Path) -> None:
    merge(parse_recipe(sliced(models, (0, 1), (1, 2))), tmp_path / "x")
    first, second = read_model(Path(models["first"])), read_model(Path(models["second"]))
    for name, tensor in read_model(tmp_path / "x").items():
        assert torch.allclose(tensor, (first[name] + second[name]) / 2)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            {"sources": [{"model": m, "layer_range": [n, n + 1]} for n, m in enumerate(("first", "second"))]},
            "same layer_range",
        ),
        ({"sources": [{"model": "first"}]}, "layer_range"),
        ({"sources": [{"model": "first", "layer_range": [0, 2]}], "residual_weight": 1}, "residual_weight"),
    ],
)
def test_slices_that_cannot_be_followed(held: dict[str, Any], message: str, models: dict[str, str]) -> None:
    for source in held["sources"]:
        source["model"] = models[source["model"].rsplit("/", 1)[-1]]
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"merge_method": "linear", "parameters": {"weight": 1}, "slices": [held]})


def test_slerp_takes_two_ends(models: dict[str, str]) -> None:
    held: dict[str, Any] = {
        "merge_method": "slerp",
        "parameters": {"t": 0.3},
        "models": [{"model": models["first"]}],
    }
    with pytest.raises(RecipeError, match="base_model"):
        parse_recipe(held)
    found: Recipe = parse_recipe({**held, "base_model": models["base"]})
    assert found.inputs == (Path(models["base"]), Path(models["first"]))
    three = [{"model": models[name]} for name in ("base", "first", "second")]
    with pytest.raises(RecipeError, match="one other model"):
        parse_recipe({**held, "base_model": models["base"], "models": three})


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words", ""])
def test_a_file_that_is_no_recipe(text: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match="expected"):
        read_recipe(file)
    with pytest.raises(RecipeError, match="YAML"):
        read_recipe(tmp_path / "missing.yaml")
