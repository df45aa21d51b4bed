"""A control vector is what llama.cpp reads: names, shapes, numbers and metadata, read back by `gguf`."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader

from understudy.concepts import (
    CannotExport,
    UnknownConcept,
    UnknownLayer,
    model_hint_of,
    write_control_vector,
)
from understudy.engine import Directions, ReadoutManifest, ReadoutStatistics, Steer

CONCEPTS = ("calm", "proud")
LAYERS = (0, 2, 3)
NORMS = [[0.5, 0.6], [1.5, 1.6], [2.5, 2.6]]


@pytest.fixture
def directions() -> Directions:
    return make_directions(LAYERS, statistics=True)


def make_directions(layers: tuple[int, ...], *, statistics: bool) -> Directions:
    draw = torch.Generator().manual_seed(0)
    ones = [[1.0] * len(CONCEPTS) for _ in layers]
    held = ReadoutStatistics(mean=ones, deviation=ones, norms=NORMS[: len(layers)], tokens=9)
    manifest = ReadoutManifest(
        concepts=list(CONCEPTS),
        layers=list(layers),
        hidden_size=8,
        dtype="float32",
        statistics=held if statistics else None,
    )
    rows = {layer: torch.randn(len(CONCEPTS), 8, generator=draw) for layer in layers}
    return Directions(manifest, {layer: row / row.norm(dim=-1, keepdim=True) for layer, row in rows.items()})


def written(file: Path) -> dict[str, npt.NDArray[np.float32]]:
    reader = GGUFReader(file)
    assert all(tensor.tensor_type == GGMLQuantizationType.F32 for tensor in reader.tensors)
    return {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def test_what_is_read_back_is_what_llama_cpp_expects(directions: Directions, tmp_path: Path) -> None:
    file = tmp_path / "proud.gguf"
    told = write_control_vector(directions, "proud", file, model_hint="qwen3", strength=3.0)
    fields = GGUFReader(file).fields
    assert fields["general.architecture"].contents() == "controlvector"
    assert fields["controlvector.model_hint"].contents() == "qwen3"
    assert fields["controlvector.layer_count"].contents() == 2
    tensors = written(file)
    assert list(tensors) == ["direction.2", "direction.3"]
    for layer in (2, 3):
        assert tensors[f"direction.{layer}"].shape == (8,)
        expected = (3.0 * directions.vectors_ch[layer][1]).numpy()
        np.testing.assert_array_equal(tensors[f"direction.{layer}"], expected)
    assert told.left_out == (0,)
    assert told.lengths == pytest.approx({2: 3.0, 3: 3.0})
    assert [one.name for one in tmp_path.iterdir()] == ["proud.gguf"]


def test_without_a_strength_vectors_are_as_long_as_the_difference_of_means(
    directions: Directions, tmp_path: Path
) -> None:
    told = write_control_vector(directions, "proud", tmp_path / "a.gguf", model_hint="llama")
    assert told.lengths == pytest.approx({2: 1.6, 3: 2.6})
    lengths = {name: np.linalg.norm(row) for name, row in written(tmp_path / "a.gguf").items()}
    assert lengths == pytest.approx({"direction.2": 1.6, "direction.3": 2.6})


def test_strengths_in_lengths(directions: Directions, tmp_path: Path) -> None:
    told = write_control_vector(
        directions,
        "calm",
        tmp_path / "a.gguf",
        model_hint="llama",
        strength=-2,
        in_lengths=True,
        layers=(3,),
    )
    assert told.lengths == pytest.approx({3: 5.0})
    expected = -5.0 * directions.vectors_ch[3][0].numpy()
    np.testing.assert_allclose(written(tmp_path / "a.gguf")["direction.3"], expected)


@pytest.mark.parametrize("steer", [Steer("proud", -1.5), Steer("proud", 2.0, in_lengths=True)])
def test_what_is_written_is_what_our_own_steering_adds(
    directions: Directions, tmp_path: Path, steer: Steer
) -> None:
    write_control_vector(
        directions,
        steer.concept,
        tmp_path / "a.gguf",
        model_hint="llama",
        strength=steer.strength,
        in_lengths=steer.in_lengths,
    )
    tensors = written(tmp_path / "a.gguf")
    for layer, [move] in directions.steering([steer]).items():
        if layer > 0:
            np.testing.assert_allclose(tensors[f"direction.{layer}"], move.shift_h.numpy(), rtol=1e-6)


def test_without_statistics_vectors_keep_their_length(tmp_path: Path) -> None:
    plain = make_directions(LAYERS, statistics=False)
    told = write_control_vector(plain, "calm", tmp_path / "a.gguf", model_hint="llama")
    assert told.lengths == pytest.approx({2: 1.0, 3: 1.0})
    with pytest.raises(CannotExport, match="no `statistics`"):
        write_control_vector(
            plain, "calm", tmp_path / "b.gguf", model_hint="llama", strength=2, in_lengths=True
        )


def test_what_cannot_be_written_leaves_nothing_behind(directions: Directions, tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    with pytest.raises(UnknownConcept, match=r"\(calm, proud\), got 'bold'"):
        write_control_vector(directions, "bold", file, model_hint="llama")
    with pytest.raises(UnknownLayer, match=r"\(0, 2, 3\), got 1"):
        write_control_vector(directions, "calm", file, model_hint="llama", layers=(1,))
    with pytest.raises(CannotExport, match=r"got \[0, 2\]: llama.cpp has no place"):
        write_control_vector(directions, "calm", file, model_hint="llama", layers=(0, 2))
    with pytest.raises(CannotExport, match=r"got \[0\]: llama.cpp has no place"):
        write_control_vector(make_directions((0,), statistics=True), "calm", file, model_hint="llama")
    with pytest.raises(CannotExport, match=r"such as qwen35.*, got 'qwen3_5'"):
        write_control_vector(directions, "calm", file, model_hint="qwen3_5")
    for strength in (0.0, float("nan"), float("inf")):
        with pytest.raises(CannotExport, match="finite strength other than 0"):
            write_control_vector(directions, "calm", file, model_hint="llama", strength=strength)
    with pytest.raises(CannotExport, match="fp32 can hold"):
        write_control_vector(directions, "calm", file, model_hint="llama", strength=1e300)
    with pytest.raises(CannotExport, match="there is none"):
        write_control_vector(directions, "calm", tmp_path / "no" / "a.gguf", model_hint="llama")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_kept(directions: Directions, tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"mine")
    with pytest.raises(CannotExport, match="already there"):
        write_control_vector(directions, "calm", file, model_hint="llama")
    assert file.read_bytes() == b"mine"


def test_a_disk_that_fails_leaves_nothing_behind(
    directions: Directions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_control_vector(directions, "calm", tmp_path / "a.gguf", model_hint="llama")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "hint"),
    [
        ("Qwen3_5ForCausalLM", "qwen35"),
        ("qwen3_5_text", "qwen35"),
        ("Qwen3ForCausalLM", "qwen3"),
        ("LlamaForCausalLM", "llama"),
        ("MistralForCausalLM", "llama"),
        ("Gemma3ForConditionalGeneration", "gemma3"),
        ("gpt_oss", "gpt-oss"),
    ],
)
def test_architectures_by_llama_cpps_names(architecture: str, hint: str) -> None:
    assert model_hint_of(architecture) == hint


def test_an_architecture_that_llama_cpp_does_not_run() -> None:
    with pytest.raises(CannotExport, match="got 'WhisperForAudio'"):
        model_hint_of("WhisperForAudio")
