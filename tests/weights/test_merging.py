"""Merging: bounded memory, vectors among themselves, laws, refusals."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_vectors import files_in, random_tensors, read_model, write_model

from understudy.weights import (
    METHODS,
    ModelState,
    Recipe,
    RecipeError,
    RecipeInput,
    RecipeSlice,
    apply_recipe,
    constant,
    make_vector,
    merge,
)
from understudy.weights.trimming import Rescale


def recipe(
    method: str,
    inputs: list[Path],
    *,
    base: Path | None = None,
    rescale: Rescale = "density",
    seed: int = 0,
    scale: float = 1.0,
    **more: Any,
) -> Recipe:
    own = {name: more.pop(name) for name in ("weight", "density") if name in more}
    own.setdefault("weight", 1.0)
    given = tuple(RecipeInput(path, constant(**own)) for path in inputs)
    shared = constant(**{"lambda": scale}, **more)
    return Recipe(method, (RecipeSlice(given),), base=base, settings=shared, rescale=rescale, seed=seed)


@pytest.fixture
def family(tmp_path: Path) -> tuple[Path, list[Path], list[Path]]:
    """A base, two models, and the vectors to them."""
    base = write_model(tmp_path / "base", random_tensors(0))
    models, vectors = [], []
    for n in (1, 2):
        models.append(write_model(tmp_path / f"m{n}", random_tensors(n)))
        vectors.append(tmp_path / f"v{n}.safetensors")
        make_vector(ModelState(base), ModelState(models[-1]), vectors[-1])
    return base, models, vectors


SETTINGS: dict[str, dict[str, Any]] = {
    "task_arithmetic": {"scale": 0.5},
    "ties": {"density": 0.4, "normalize": True},
    "dare_linear": {"density": 0.5, "rescale": True},
    "dare_ties": {"density": 0.5, "rescale": True},
    "linear": {"normalize": True},
    "slerp": {"t": 0.25},
}


def test_every_method_is_tested() -> None:
    assert SETTINGS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear", "dare_ties", "linear"])
def test_vectors_merge_as_the_models_they_lead_to(
    method: str, family: tuple[Path, list[Path], list[Path]], tmp_path: Path
) -> None:
    """Merged as models, as vectors on the base, or among themselves and then applied: the same weights."""
    base, models, vectors = family
    more = dict(SETTINGS[method])
    of_models = recipe(method, models, base=base if METHODS[method].of_differences else None, **more)
    merge(of_models, tmp_path / "models")
    merge(recipe(method, vectors, base=base, **more), tmp_path / "vectors")
    report = merge(recipe(method, vectors, **more), tmp_path / "merged.safetensors")
    assert report.vector
    merge(apply_recipe(tmp_path / "merged.safetensors", base, 1.0), tmp_path / "applied")
    expected = read_model(tmp_path / "models")
    for name in ("vectors", "applied"):
        found = read_model(tmp_path / name)
        for tensor in expected:
            assert torch.allclose(found[tensor], expected[tensor], rtol=1e-4, atol=1e-5), (name, tensor)


def test_task_arithmetic_is_its_formula(family: tuple[Path, list[Path], list[Path]], tmp_path: Path) -> None:
    base, _, vectors = family
    merge(recipe("task_arithmetic", vectors, base=base, weight=0.7, scale=2.0), tmp_path / "x")
    start, held = read_model(base), [load_file(vector) for vector in vectors]
    for name, tensor in read_model(tmp_path / "x").items():
        expected = start[name].double() + 2 * 0.7 * (held[0][name].double() + held[1][name].double())
        assert torch.allclose(tensor.double(), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 1.0]))
def test_ties_is_its_definition(tmp_path_factory: pytest.TempPathFactory, seed: int, density: float) -> None:
    """Against the paper's three steps written out entry by entry (arXiv 2306.01708, algorithm 1)."""
    folder = tmp_path_factory.mktemp("ties")
    base = write_model(folder / "base", random_tensors(seed))
    models = [write_model(folder / str(n), random_tensors(seed + n)) for n in (1, 2, 3)]
    merge(recipe("ties", models, base=base, density=density, normalize=True, scale=0.8), folder / "x")
    start = read_model(base)
    ends = [read_model(model) for model in models]
    for name, tensor in read_model(folder / "x").items():
        columns = []
        for end in ends:
            values = (end[name] - start[name]).flatten().tolist()
            kept = sorted(range(len(values)), key=lambda n: -abs(values[n]))[: int(density * len(values))]
            columns.append([value if n in kept else 0.0 for n, value in enumerate(values)])
        for n, (first, found) in enumerate(
            zip(start[name].flatten().tolist(), tensor.flatten().tolist(), strict=True)
        ):
            entries = [column[n] for column in columns]
            sign = 1 if sum(entries) >= 0 else -1
            agreeing = [entry for entry in entries if entry * sign > 0]
            mean = sum(agreeing) / len(agreeing) if agreeing else 0.0
            assert found == pytest.approx(first + 0.8 * mean, rel=1e-4, abs=1e-5)


def test_dare_keeps_what_its_seed_says(family: tuple[Path, list[Path], list[Path]], tmp_path: Path) -> None:
    base, _, vectors = family
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        merge(recipe("dare_linear", vectors, base=base, density=0.5, seed=seed), tmp_path / name)
    one, again, other = (read_model(tmp_path / name) for name in ("one", "again", "other"))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


BOUND_BYTES = 40 << 20
TENSOR_ELEMENTS = 12 << 20
MEMORY_SCRIPT = """
import resource, shutil, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from understudy.weights import METHODS, StoredTensors, merge, parse_recipe
folder, bound = Path(sys.argv[1]), int(sys.argv[2])
base, first, second = (str(folder / name) for name in ("base", "first", "second"))

def recipe(method):
    own = {"linear": {"weight": 1.0}, "slerp": {}}.get(method, {"weight": 0.5, "density": 0.3})
    held = {"merge_method": method, "base_model": first if method == "slerp" else base}
    held["models"] = [{"model": path, "parameters": own} for path in (first, second)]
    held["parameters"] = {"t": 0.4} if method == "slerp" else {}
    if method == "linear":
        del held["base_model"]
    return parse_recipe(held)

recipes = [recipe(method) for method in METHODS]
with open("/proc/self/status") as status:
    data = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + bound, data + bound))
try:
    with StoredTensors.open(folder / "base") as stored:
        whole = stored.read("w")
    print("read whole")
except (MemoryError, RuntimeError):
    print("too large to be read whole")
for held in recipes:
    report = merge(held, folder / "out")
    shutil.rmtree(folder / "out")
    print(held.method, report.elements)
"""


def test_memory_does_not_grow_with_the_tensors(tmp_path: Path) -> None:
    """Each model is one tensor of 48 MiB; each merge of three of them gets 40 MiB beyond the bare process.

    The kernel enforces it (RLIMIT_DATA); that one tensor does not fit is tried first.
    """
    for n, name in enumerate(("base", "first", "second")):
        generator = torch.Generator().manual_seed(n)
        write_model(tmp_path / name, {"w": torch.randn(TENSOR_ELEMENTS, generator=generator)})
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, str(tmp_path), str(BOUND_BYTES)],
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "MALLOC_ARENA_MAX": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "too large to be read whole"
    assert lines[1:] == [f"{method} {TENSOR_ELEMENTS}" for method in METHODS]


def test_a_merge_that_dies_leaves_nothing_behind(
    family: tuple[Path, list[Path], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from understudy.weights.stored import StoredWriter

    base, models, vectors = family
    before = files_in(tmp_path)
    write = StoredWriter.write
    written = 0

    def failing(self: StoredWriter, name: str, start: int, values: torch.Tensor) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        write(self, name, start, values)

    monkeypatch.setattr(StoredWriter, "write", failing)
    for inputs, start in ((models, base), (vectors, None)):
        written = 0
        with pytest.raises(OSError, match="No space"):
            merge(recipe("task_arithmetic", inputs, base=start), tmp_path / "x.safetensors")
        assert files_in(tmp_path) == before


def test_what_a_merge_needs_and_lacks_is_named(
    family: tuple[Path, list[Path], list[Path]], tmp_path: Path
) -> None:
    base, models, vectors = family
    before = files_in(tmp_path)
    for wrong, message in (
        (recipe("ties", models), "base model"),
        (recipe("linear", [models[0], vectors[0]]), "base model"),
        (recipe("slerp", [*models, base], t=0.5), "slerp"),
        (recipe("task_arithmetic", vectors, base=vectors[0]), "model directory as the base"),
        (
            recipe("task_arithmetic", [models[0] / "model.safetensors"], base=base),
            "directory or a task vector",
        ),
        (Recipe("ties", (RecipeSlice((RecipeInput(vectors[0]),)),), base=base), "weight"),
    ):
        with pytest.raises(RecipeError, match=message):
            merge(wrong, tmp_path / "x")
    assert files_in(tmp_path) == before


def test_element_types_may_differ_only_when_one_is_chosen(
    family: tuple[Path, list[Path], list[Path]], tmp_path: Path
) -> None:
    from dataclasses import replace

    from understudy.weights import WeightsMismatch

    _, models, _ = family
    small = write_model(tmp_path / "small", {n: t.bfloat16() for n, t in read_model(models[0]).items()})
    mixed = recipe("linear", [models[1], small])
    with pytest.raises(WeightsMismatch, match="element type"):
        merge(mixed, tmp_path / "x")
    merge(replace(mixed, dtype=torch.float32), tmp_path / "x")
    found, a, b = read_model(tmp_path / "x"), read_model(models[1]), read_model(small)
    assert all(torch.allclose(found[name], (a[name] + b[name].float()) / 2) for name in a)


def test_bfloat16_models_are_merged_in_float32_unless_asked(tmp_path: Path) -> None:
    """A small difference survives the arithmetic; in bfloat16 it would round away before it is added."""
    base = write_model(tmp_path / "base", {"w": torch.full((4,), 1.0, dtype=torch.bfloat16)})
    step = 2.0**-7  # one place of bfloat16 at 1
    moved = write_model(tmp_path / "moved", {"w": torch.full((4,), 1.0 + step, dtype=torch.bfloat16)})
    thrice = recipe("task_arithmetic", [moved, moved, moved], base=base, weight=1 / 3)
    merge(thrice, tmp_path / "x")
    assert torch.equal(read_model(tmp_path / "x")["w"], read_model(moved)["w"])


def test_the_recipe_stands_in_what_it_made(
    family: tuple[Path, list[Path], list[Path]], tmp_path: Path
) -> None:
    from safetensors import safe_open

    base, models, _ = family
    merge(recipe("ties", models, base=base, density=0.3), tmp_path / "x")
    with safe_open(tmp_path / "x" / "model.safetensors", "pt") as held:
        said = json.loads(held.metadata()["merge"])
    assert said["method"] == "ties"
    assert [given["path"] for given in said["slices"][0]["inputs"]] == [str(model) for model in models]


def test_one_file_that_is_no_model_directory_is_refused_as_a_base(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(RecipeError, match="model directory"):
        merge(
            recipe("task_arithmetic", [tmp_path / "w.safetensors"], base=tmp_path / "w.safetensors"),
            tmp_path / "x",
        )
