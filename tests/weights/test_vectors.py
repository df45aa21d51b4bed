"""Task vectors: what leads from one state of the weights to another, and back."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from understudy.weights import (
    INITIAL,
    AlreadyThere,
    ModelState,
    NotFinite,
    NotTensors,
    Recipe,
    RecipeInput,
    RecipeSlice,
    StoredTensors,
    WeightHistory,
    WeightsMismatch,
    apply_recipe,
    constant,
    make_vector,
    merge,
    negate_vector,
    read_origin,
)

WHEN = "2026-01-02T03:04:05Z"
CONFIG = {"model_type": "test", "dtype": "float32"}


def write_model(directory: Path, tensors: dict[str, torch.Tensor], *, shards: int = 1) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "tokenizer.json").write_text("{}")
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    names = sorted(tensors)
    files = {name: f"model-{n % shards + 1:05d}-of-{shards:05d}.safetensors" for n, name in enumerate(names)}
    for file in set(files.values()):
        save_file(
            {n: tensors[n] for n in names if files[n] == file}, directory / file, metadata={"format": "pt"}
        )
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return directory


def read_model(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in directory.glob("*.safetensors"):
        found.update(load_file(file))
    return found


def random_tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "model.embed.weight": (7, 4),
        "model.layers.0.a.weight": (5, 3),
        "model.layers.1.a.weight": (5, 3),
        "n": (6,),
    }
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    st.lists(st.tuples(st.floats(-8, 8, width=16), st.floats(-8, 8, width=16)), min_size=1, max_size=40),
    st.integers(1, 2),
)
def test_a_vector_added_to_where_it_starts_gives_where_it_leads(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: torch.dtype,
    values: list[tuple[float, float]],
    shards: int,
) -> None:
    folder = tmp_path_factory.mktemp("vector")
    before = torch.tensor([a for a, _ in values], dtype=torch.float64).to(dtype)
    after = torch.tensor([b for _, b in values], dtype=torch.float64).to(dtype)
    first = write_model(folder / "a", {"w": before, "v": torch.ones(2, dtype=dtype)}, shards=shards)
    second = write_model(folder / "b", {"w": after, "v": torch.zeros(2, dtype=dtype)}, shards=shards)
    make_vector(ModelState(first), ModelState(second), folder / "v.safetensors")
    merge(apply_recipe(folder / "v.safetensors", first, 1.0), folder / "c")
    found = read_model(folder / "c")["w"]
    assert found.dtype == dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rounding = torch.finfo(wide).eps * (before.abs().double() + after.abs().double())
    own = torch.finfo(dtype).eps * after.abs().double()
    assert bool(((found.double() - after.double()).abs() <= rounding + own).all())
    if dtype in (torch.bfloat16, torch.float16):
        near = (before.double() - after.double()).abs() <= 2**10 * after.double().abs()
        assert torch.equal(found[near], after[near])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.floats(-2, 2, width=16))
def test_negating_is_a_scale_of_minus_one_and_its_own_inverse(
    tmp_path_factory: pytest.TempPathFactory, seed: int, scale: float
) -> None:
    folder = tmp_path_factory.mktemp("negated")
    first = write_model(folder / "a", random_tensors(seed))
    second = write_model(folder / "b", random_tensors(seed + 1000))
    vector, turned, again = (folder / f"{name}.safetensors" for name in "vtu")
    make_vector(ModelState(first), ModelState(second), vector)
    negate_vector(vector, turned)
    negate_vector(turned, again)
    held, held_turned = load_file(vector), load_file(turned)
    assert all(torch.equal(held_turned[name], -tensor) for name, tensor in held.items())
    assert vector.read_bytes() == again.read_bytes()
    merge(apply_recipe(turned, first, scale), folder / "one")
    merge(apply_recipe(vector, first, -scale), folder / "other")
    one, other = read_model(folder / "one"), read_model(folder / "other")
    assert all(torch.equal(one[name], other[name]) for name in one)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.floats(-3, 3, width=16), st.floats(0.125, 3, width=16))
def test_linear_and_slerp_at_their_ends_and_between(
    tmp_path_factory: pytest.TempPathFactory, seed: int, t: float, weight: float
) -> None:
    folder = tmp_path_factory.mktemp("ends")
    first = write_model(folder / "a", random_tensors(seed))
    second = write_model(folder / "b", random_tensors(seed + 1))

    def merged(method: str, name: str, **given: float) -> dict[str, torch.Tensor]:
        own = {"weight": given.pop("first")}, {"weight": given.pop("second")}
        inputs = RecipeInput(first, constant(**own[0])), RecipeInput(second, constant(**own[1]))
        merge(Recipe(method, (RecipeSlice(inputs),), settings=constant(**given)), folder / name)
        return read_model(folder / name)

    a, b = read_model(first), read_model(second)
    start = merged("slerp", "t0", first=1, second=1, t=0.0)
    end = merged("slerp", "t1", first=1, second=1, t=1.0)
    mean = merged("linear", "mean", first=weight, second=weight)
    one = merged("linear", "one", first=weight, second=0)
    summed = merged("linear", "sum", first=weight, second=t, normalize=False)
    halfway = merged("slerp", "half", first=1, second=1, t=0.5)
    for name in a:
        assert torch.allclose(start[name], a[name], rtol=1e-6, atol=1e-7)
        assert torch.allclose(end[name], b[name], rtol=1e-6, atol=1e-7)
        assert torch.allclose(mean[name], (a[name] + b[name]) / 2, rtol=1e-5, atol=1e-6)
        assert torch.allclose(one[name], a[name], rtol=1e-6)
        assert torch.allclose(summed[name], weight * a[name] + t * b[name], rtol=1e-5, atol=1e-5)
        cosine = torch.nn.functional.cosine_similarity(a[name].flatten(), b[name].flatten(), dim=0)
        if abs(float(cosine)) < 0.9:
            angle = math.acos(float(cosine))
            expected = (a[name] + b[name]) * (math.sin(angle / 2) / math.sin(angle))
            assert torch.allclose(halfway[name], expected, rtol=1e-4, atol=1e-5)


def test_vectors_between_weight_commits(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "model", random_tensors(1))
    start = read_model(directory)
    live = {name: tensor.clone() for name, tensor in start.items()}
    history = WeightHistory.open(directory)
    live["n"] += 1
    first = history.commit(live, message="one", author="ada", created=WHEN).id
    live["n"] *= 3
    second = history.commit(live, message="two", author="ada", created=WHEN).id
    before = (directory / "model.safetensors").read_bytes()
    report = make_vector(
        ModelState(directory, INITIAL), ModelState(directory, second), tmp_path / "v.safetensors"
    )
    assert (directory / "model.safetensors").read_bytes() == before  # reading changes nothing
    held = load_file(tmp_path / "v.safetensors")
    assert torch.equal(held["n"], live["n"] - start["n"])
    assert not held["model.embed.weight"].any()
    assert report.norm == pytest.approx(float((live["n"] - start["n"]).norm()))
    back = make_vector(
        ModelState(directory, second), ModelState(directory, first), tmp_path / "back.safetensors"
    )
    assert (back.origin.before, back.origin.after) == (f"{directory}@{second}", f"{directory}@{first}")
    assert torch.equal(load_file(tmp_path / "back.safetensors")["n"], start["n"] + 1 - live["n"])


def test_a_vector_says_where_it_comes_from_and_is_plain_safetensors(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", random_tensors(1, torch.bfloat16))
    second = write_model(tmp_path / "b", random_tensors(2, torch.bfloat16))
    made = make_vector(ModelState(first), ModelState(second), tmp_path / "v.safetensors").origin
    with safe_open(tmp_path / "v.safetensors", "pt") as held:
        metadata = held.metadata()
        assert {held.get_tensor(name).dtype for name in held.keys()} == {torch.float32}  # noqa: SIM118
    assert (metadata["before"], metadata["after"]) == (str(first), str(second))
    with StoredTensors.open(tmp_path / "v.safetensors") as stored:
        assert read_origin(stored) == made
    other = make_vector(ModelState(second), ModelState(first), tmp_path / "w.safetensors").origin
    assert other.architecture == made.architecture
    assert other.base != made.base
    small = make_vector(
        ModelState(first), ModelState(second), tmp_path / "s.safetensors", dtype=torch.bfloat16
    )
    assert load_file(tmp_path / "s.safetensors")["n"].dtype == torch.bfloat16
    assert small.norm == pytest.approx(
        float(
            torch.cat([t.flatten().double() for t in load_file(tmp_path / "v.safetensors").values()]).norm()
        )
    )


def test_a_vector_from_other_weights_is_applied_and_named(tmp_path: Path) -> None:
    models = [write_model(tmp_path / str(n), random_tensors(n)) for n in range(3)]
    make_vector(ModelState(models[0]), ModelState(models[1]), tmp_path / "v.safetensors")
    assert merge(apply_recipe(tmp_path / "v.safetensors", models[0], 1), tmp_path / "x").strangers == ()
    found = merge(apply_recipe(tmp_path / "v.safetensors", models[2], 1), tmp_path / "y")
    assert found.strangers == (tmp_path / "v.safetensors",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("n"), "'n'"),
        (lambda held: held.update(n=torch.ones(7)), "shape"),
        (lambda held: held.update(n=torch.ones(6, dtype=torch.bfloat16)), "bfloat16"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    change: object, message: str, tmp_path: Path
) -> None:
    tensors = random_tensors(2)
    assert callable(change)
    change(tensors)
    first = write_model(tmp_path / "a", random_tensors(1))
    second = write_model(tmp_path / "b", tensors)
    before = files_in(tmp_path)
    with pytest.raises(WeightsMismatch, match=message):
        make_vector(ModelState(first), ModelState(second), tmp_path / "v.safetensors")
    inputs = RecipeInput(first, constant(weight=1)), RecipeInput(second, constant(weight=1))
    with pytest.raises(WeightsMismatch):
        merge(Recipe("linear", (RecipeSlice(inputs),)), tmp_path / "merged")
    assert files_in(tmp_path) == before


def test_a_vector_of_another_model_is_refused(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", random_tensors(1))
    second = write_model(tmp_path / "b", random_tensors(2))
    make_vector(ModelState(first), ModelState(second), tmp_path / "v.safetensors")
    other = write_model(tmp_path / "c", {"n": torch.ones(6)})
    with pytest.raises(WeightsMismatch, match="another model"):
        merge(apply_recipe(tmp_path / "v.safetensors", other, 1), tmp_path / "x")
    renamed = write_model(tmp_path / "d", random_tensors(1))
    (renamed / "config.json").write_text(json.dumps({**CONFIG, "model_type": "llama"}))
    with pytest.raises(WeightsMismatch, match="another model"):
        merge(apply_recipe(tmp_path / "v.safetensors", renamed, 1), tmp_path / "x")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_stop_everything(bad: float, tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", random_tensors(1))
    broken = random_tensors(2)
    broken["n"][3] = bad
    second = write_model(tmp_path / "b", broken)
    before = files_in(tmp_path)
    with pytest.raises(NotFinite, match="n:"):
        make_vector(ModelState(first), ModelState(second), tmp_path / "v.safetensors")
    inputs = RecipeInput(first, constant(weight=1)), RecipeInput(second, constant(weight=1))
    with pytest.raises(NotFinite, match="n:"):
        merge(Recipe("linear", (RecipeSlice(inputs),)), tmp_path / "merged")
    assert files_in(tmp_path) == before


def test_whole_numbers_are_carried_over_and_never_merged(tmp_path: Path) -> None:
    count = torch.tensor([3, 4])
    first = write_model(tmp_path / "a", {**random_tensors(1), "count": count})
    second = write_model(tmp_path / "b", {**random_tensors(2), "count": count})
    make_vector(ModelState(first), ModelState(second), tmp_path / "v.safetensors")
    assert "count" not in load_file(tmp_path / "v.safetensors")
    merge(apply_recipe(tmp_path / "v.safetensors", first, 1), tmp_path / "c")
    assert torch.equal(read_model(tmp_path / "c")["count"], count)
    third = write_model(tmp_path / "d", {**random_tensors(2), "count": count + 1})
    with pytest.raises(WeightsMismatch, match="count"):
        make_vector(ModelState(first), ModelState(third), tmp_path / "w.safetensors")


def test_existing_results_are_never_overwritten(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", random_tensors(1))
    second = write_model(tmp_path / "b", random_tensors(2))
    (tmp_path / "v.safetensors").write_text("mine")
    with pytest.raises(AlreadyThere):
        make_vector(ModelState(first), ModelState(second), tmp_path / "v.safetensors")
    assert (tmp_path / "v.safetensors").read_text() == "mine"
    make_vector(ModelState(first), ModelState(second), tmp_path / "w.safetensors")
    with pytest.raises(AlreadyThere):
        merge(apply_recipe(tmp_path / "w.safetensors", first, 1), second)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "v.pt")
    first = write_model(tmp_path / "a", random_tensors(1))
    with pytest.raises(NotTensors, match="safetensors"):
        merge(apply_recipe(tmp_path / "v.pt", first, 1), tmp_path / "x")
    with pytest.raises(NotTensors, match="task vector"):
        negate_vector(first / "model.safetensors", tmp_path / "y.safetensors")


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_a_damaged_file_is_refused_whatever_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    save_file({"w": torch.ones(3)}, folder / "good.safetensors")
    good = (folder / "good.safetensors").read_bytes()
    for content in (noise, good[: cut % len(good)], len(noise).to_bytes(8, "little") + noise):
        (folder / "bad.safetensors").write_bytes(content)
        with pytest.raises(NotTensors):
            StoredTensors.open(folder / "bad.safetensors")


def test_a_file_changed_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", random_tensors(1))
    with StoredTensors.open(first) as stored:
        stored.check_unchanged()
        with (first / "model.safetensors").open("ab") as file:
            file.write(b"x")
        with pytest.raises(WeightsMismatch, match="written to"):
            stored.check_unchanged()


def test_a_merged_directory_is_one_that_others_read(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", random_tensors(1), shards=2)
    second = write_model(tmp_path / "b", random_tensors(2), shards=2)
    inputs = RecipeInput(first, constant(weight=1)), RecipeInput(second, constant(weight=3))
    merge(Recipe("linear", (RecipeSlice(inputs),), out_dtype=torch.bfloat16), tmp_path / "c")
    assert files_in(tmp_path / "c") == files_in(first)
    index = json.loads((tmp_path / "c" / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "c" / file, "pt") as held:
            tensor = held.get_tensor(name)
            assert held.metadata()["format"] == "pt"
        expected = (read_model(first)[name] + 3 * read_model(second)[name]) / 4
        assert torch.equal(tensor, expected.to(torch.bfloat16)) or torch.allclose(
            tensor.float(), expected, rtol=2**-7
        )
    assert index["metadata"]["total_size"] == 2 * sum(t.numel() for t in read_model(first).values())
    assert json.loads((tmp_path / "c" / "config.json").read_text())["dtype"] == "bfloat16"
