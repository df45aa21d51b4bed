"""Directories that can be served, and clear words for those that cannot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3_5Config, Qwen3_5ForConditionalGeneration

from understudy.config import ModelSettings
from understudy.engine import (
    Architecture,
    BrokenCheckpoint,
    BrokenTemplate,
    EmbeddedEngine,
    ModelNotFound,
    UnknownArchitecture,
    encode_chat,
    load_model,
    locate_model,
    skeleton,
    write_miniature,
)
from understudy.engine.products import widen_products
from understudy.lessons import ChatMessage
from understudy.weights import SharedWeights

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "qwen3_5")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_miniature(tmp_path / "model", "qwen3_5")


def edit_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_logits_equal_those_of_transformers_and_of_a_skeleton_on_shared_weights(
    architecture: Architecture, stored: torch.dtype, tmp_path: Path
) -> None:
    directory = write_miniature(tmp_path / "model", architecture, dtype=stored)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = widen_products(AutoModelForCausalLM.from_pretrained(directory, dtype="auto"))(ids).logits
        with EmbeddedEngine(ModelSettings(), directory) as engine:
            mapped = SharedWeights.attach(engine.shared.manifest)
            bare = skeleton(directory)
            mapped.bind(bare)
            assert expected.dtype == stored
            assert torch.equal(engine.model(ids).logits, expected)
            assert torch.equal(bare(ids).logits, expected)
            next(iter(engine.model.parameters())).mul_(1.5)  # one copy: what one writes, the other reads
            changed = engine.model(ids).logits
            assert not torch.equal(changed, expected)
            assert torch.equal(bare(ids).logits, changed)
    assert not bare.training
    assert not engine.model.training


def test_the_language_model_of_a_multimodal_directory_is_served(directory: Path) -> None:
    text = json.loads((directory / "config.json").read_text())
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=True)
    whole = Qwen3_5ForConditionalGeneration(config).eval()
    whole.save_pretrained(directory)
    ids = torch.arange(3, 40)[None]
    loaded = load_model(directory)
    assert loaded.context_length == 512
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, whole(ids).logits, atol=1e-6)
    names = dict(skeleton(directory).named_parameters()).keys()
    assert names == dict(loaded.model.named_parameters()).keys()


def test_a_skeleton_takes_no_memory_for_its_parameters(tmp_path: Path) -> None:
    # Wide enough for its own pages: 64 MiB that must stay untouched.
    directory = write_miniature(tmp_path / "model", "llama")
    edit_config(directory, vocab_size=2**19)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    bare = skeleton(directory, "float32")
    grown = resident() - before
    assert bare.get_input_embeddings().weight.numel() * 4 == 64 * 2**20
    assert grown < 32 * 2**20


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_element_type_can_be_chosen(dtype: str, expected: torch.dtype, directory: Path) -> None:
    settings = ModelSettings.model_validate({"dtype": dtype})
    assert load_model(directory, settings.dtype).model.dtype == expected
    assert skeleton(directory, settings.dtype).dtype == expected


def test_the_element_type_is_read_from_the_tensors_when_the_config_names_none(tmp_path: Path) -> None:
    directory = write_miniature(tmp_path / "model", "llama", dtype=torch.bfloat16)
    edit_config(directory, dtype=None, torch_dtype=None)
    assert load_model(directory).model.dtype == torch.bfloat16
    assert skeleton(directory).dtype == torch.bfloat16


def test_facts_of_the_directory(directory: Path) -> None:
    loaded = load_model(directory)
    assert loaded.context_length == 512
    assert loaded.eos_ids == {loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")}
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    assert load_model(directory).eos_ids == {0, 2}


def test_a_directory_is_located_as_it_is(directory: Path) -> None:
    assert locate_model(directory) == directory


@pytest.mark.parametrize("path", ["/no/such/place", "nothing-here", "some owner/x"])
def test_nothing_there(path: str) -> None:
    with pytest.raises(ModelNotFound, match=r"expected a model directory at .* found nothing: give"):
        locate_model(path)


def test_a_hub_name_that_cannot_be_had_is_explained() -> None:
    with pytest.raises(ModelNotFound, match=r"'owner/never-was'.*the hub gave none .*check the name"):
        locate_model("owner/never-was")


def test_a_directory_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFound, match=r"expected config\.json in the model directory .*found none: give"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", ["nobody_knows", "vit", None])
def test_an_unknown_architecture_is_named(directory: Path, kind: str | None) -> None:
    edit_config(directory, model_type=kind)
    with pytest.raises(UnknownArchitecture, match=repr(kind)):
        load_model(directory)


def test_code_in_the_directory_is_never_run(directory: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (directory / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\n")
    edit_config(directory, model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(UnknownArchitecture):
        load_model(directory)
    assert not ran.exists()


def test_a_config_that_is_not_json(directory: Path) -> None:
    (directory / "config.json").write_text("{")
    with pytest.raises(BrokenCheckpoint, match=r"expected JSON in .*config\.json"):
        load_model(directory)


def test_pickled_weights_are_refused(directory: Path) -> None:
    torch.save({}, directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(
        BrokenCheckpoint, match=r"only pytorch_model\.bin, which can run code .*save_pretrained"
    ):
        load_model(directory)


def test_no_weights_at_all(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    with pytest.raises(BrokenCheckpoint, match="found no weights at all"):
        load_model(directory)


def test_a_missing_tensor_is_named(directory: Path) -> None:
    edit_tensors(directory, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(BrokenCheckpoint, match=r"missing: model\.norm\.weight"):
        load_model(directory)


def test_an_extra_tensor_is_named(directory: Path) -> None:
    edit_tensors(directory, lambda tensors: tensors.update(stray=torch.zeros(2)))
    with pytest.raises(BrokenCheckpoint, match="not of this architecture: stray"):
        load_model(directory)


def test_a_tensor_of_another_shape_is_named(directory: Path) -> None:
    edit_tensors(directory, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}))
    with pytest.raises(BrokenCheckpoint, match=r"of another shape: .*model\.norm\.weight"):
        load_model(directory)


def test_a_truncated_file(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BrokenCheckpoint, match=r"expected loadable weights in"):
        load_model(directory)


def test_no_tokenizer(directory: Path) -> None:
    for file in directory.glob("*token*"):
        file.unlink()
    with pytest.raises(BrokenCheckpoint, match=r"expected a tokenizer in .*found none of tokenizer\.json"):
        load_model(directory)


def test_a_tokenizer_of_another_model(directory: Path, tmp_path: Path) -> None:
    tokenizer = load_model(directory).tokenizer
    tokenizer.add_tokens([f"<extra{i}>" for i in range(200)])
    tokenizer.save_pretrained(directory)
    with pytest.raises(BrokenCheckpoint, match="tokenizer and weights are of different models"):
        load_model(directory)


def test_no_chat_template(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()
    tokenizer = load_model(directory).tokenizer
    with pytest.raises(BrokenCheckpoint, match=r"expected a chat template .* found none"):
        encode_chat(tokenizer, [ChatMessage("user", "hello")])


def test_no_context_length(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "copy")
    edit_config(tmp_path / "copy", max_position_embeddings=None)
    with pytest.raises(BrokenCheckpoint, match="max_position_embeddings"):
        load_model(tmp_path / "copy")


def test_every_error_is_also_a_standard_one() -> None:
    assert issubclass(ModelNotFound, FileNotFoundError)
    for error in (UnknownArchitecture, BrokenCheckpoint, BrokenTemplate):
        assert issubclass(error, ValueError)
