"""What is read is what transformers calls hidden states, at a text's own tokens and nowhere else."""

from pathlib import Path

import pytest
import torch
from steering_vectors import train_steering_vector

from understudy.concepts.activations import Place, collect, depth, resolve_layers, streams
from understudy.concepts.corpus import Text
from understudy.concepts.encoding import EncodedText, Pooling, encode
from understudy.concepts.errors import BadPooling, BadRows, UnknownLayer
from understudy.concepts.methods import Contrast, find_direction
from understudy.engine import Architecture, LoadedModel, load_model, write_miniature
from understudy.lessons import ChatMessage

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "qwen3_5")
SENTENCES = (
    "The door is open.",
    "Please put the red cup on the table, and the blue book beside it.",
    "What would you like me to do with the cup? I could carry it to the window.",
    "No.",
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_miniature(tmp_path_factory.mktemp("model"), request.param))


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_miniature(tmp_path_factory.mktemp("hybrid"), "qwen3_5"))


def text(content: str, context: tuple[ChatMessage, ...] = ()) -> Text:
    return Text("stories/calm/one.txt", "story", "calm", "one", "train", content, context)


@torch.no_grad()
def hidden_states(loaded: LoadedModel, encoded: EncodedText) -> tuple[torch.Tensor, ...]:
    """By transformers itself, behind each layer but the last, whose own are normed: [t, h]."""
    told = loaded.model(torch.tensor([encoded.ids]), use_cache=False, output_hidden_states=True)
    return tuple(states[0] for states in told.hidden_states[1:-1])


def test_rows_are_transformers_hidden_states_to_the_last_bit(loaded: LoadedModel) -> None:
    layers = range(loaded.model.config.num_hidden_layers - 1)
    for encoded in encode(loaded.tokenizer, [text(sentence) for sentence in SENTENCES]):
        found = collect(loaded, [encoded], streams(loaded, layers), Pooling(1))
        expected = hidden_states(loaded, encoded)
        for layer in layers:
            assert torch.equal(found.rows_nh[layer][0], expected[layer][-1])


@pytest.mark.parametrize("tokens", [1, 3, None])
def test_a_batch_gives_each_text_what_it_gives_alone(loaded: LoadedModel, tokens: int | None) -> None:
    layers = range(loaded.model.config.num_hidden_layers - 1)
    encoded = encode(loaded.tokenizer, [text(sentence) for sentence in SENTENCES])
    found = collect(loaded, encoded, streams(loaded, layers), Pooling(tokens), spans=True)
    for number, one in enumerate(encoded):
        start, end = Pooling(tokens).span(one)
        expected = hidden_states(loaded, one)
        for layer in layers:
            torch.testing.assert_close(
                found.rows_nh[layer][number], expected[layer][start:end].mean(0), atol=2e-5, rtol=1e-5
            )
            torch.testing.assert_close(
                found.spans[layer][number], expected[layer][start:end], atol=2e-5, rtol=1e-5
            )


def test_the_last_layer_is_read_before_the_last_norm(hybrid: LoadedModel) -> None:
    last = hybrid.model.config.num_hidden_layers - 1
    [encoded] = encode(hybrid.tokenizer, [text(SENTENCES[1])])
    row = collect(hybrid, [encoded], streams(hybrid, [last]), Pooling(1)).rows_nh[last][0]
    with torch.no_grad():
        told = hybrid.model(torch.tensor([encoded.ids]), use_cache=False, output_hidden_states=True)
        assert torch.equal(hybrid.model.model.norm(row), told.hidden_states[-1][0, -1])


def test_nothing_behind_the_deepest_layer_is_computed(hybrid: LoadedModel) -> None:
    passed: list[str] = []
    layers, head = hybrid.model.model.layers, hybrid.model.lm_head
    hooks = [
        module.register_forward_hook(lambda *_, name=name: passed.append(name))
        for name, module in (("1", layers[1]), ("2", layers[2]), ("head", head))
    ]
    collect(hybrid, encode(hybrid.tokenizer, [text("The door")]), streams(hybrid, [0, 1]), Pooling(1))
    for hook in hooks:
        hook.remove()
    assert passed == ["1"]


def test_the_same_text_is_read_once(hybrid: LoadedModel) -> None:
    read: list[int] = []
    hook = hybrid.model.model.layers[0].register_forward_pre_hook(
        lambda _module, inputs: read.append(inputs[0].shape[0])
    )
    encoded = encode(hybrid.tokenizer, [text("The door"), text("The cup is here"), text("The door")])
    found = collect(hybrid, encoded, streams(hybrid, [0]), Pooling(1)).rows_nh[0]
    hook.remove()
    assert sum(read) == 2
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_a_model_in_bf16_gives_rows_in_fp32(tmp_path: Path) -> None:
    loaded = load_model(write_miniature(tmp_path / "bf16", "qwen3", dtype=torch.bfloat16))
    [encoded] = encode(loaded.tokenizer, [text(SENTENCES[1])])
    pooled = collect(loaded, [encoded], streams(loaded, [0]), Pooling(None), spans=True)
    assert pooled.rows_nh[0].dtype == torch.float32
    # A mean in bf16 would have been rounded to eight bits.
    assert torch.equal(pooled.rows_nh[0][0], pooled.spans[0][0].mean(0))
    assert not torch.equal(pooled.rows_nh[0][0], pooled.rows_nh[0][0].bfloat16().float())


def test_inputs_of_modules_can_be_read_too(hybrid: LoadedModel) -> None:
    layer = hybrid.model.model.layers[0]
    [encoded] = encode(hybrid.tokenizer, [text("The door is open")])
    found = collect(
        hybrid, [encoded], {"in": Place(layer.mlp, "input"), "out": Place(layer.mlp, "output")}, Pooling(1)
    )
    with torch.no_grad():
        torch.testing.assert_close(layer.mlp(found.rows_nh["in"]), found.rows_nh["out"])


# ---------------------------------------------------------------------- whose tokens


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_the_templates_tokens_are_never_pooled(hybrid: LoadedModel, role: str) -> None:
    [encoded] = encode(hybrid.tokenizer, [text("The red cup")], role)  # type: ignore[arg-type]
    assert hybrid.tokenizer.decode(encoded.ids[encoded.start : encoded.end]) == "The red cup"
    assert "<|im_start|>" in hybrid.tokenizer.decode(encoded.ids[: encoded.start])
    assert encoded.end == len(encoded.ids)  # nothing stands behind the last token that is read


def test_an_answer_is_read_in_its_context(hybrid: LoadedModel) -> None:
    asked = (ChatMessage("user", "Put the cup on the table."),)
    [encoded] = encode(hybrid.tokenizer, [text("The cup is on the table.", asked)])
    assert hybrid.tokenizer.decode(encoded.ids[encoded.start :]) == "The cup is on the table."
    assert "Put the cup on the table." in hybrid.tokenizer.decode(encoded.ids[: encoded.start])


def test_a_persons_message_is_read_in_its_context(hybrid: LoadedModel) -> None:
    said = (ChatMessage("user", "Put the cup on the table."), ChatMessage("assistant", "Why?"))
    [encoded] = encode(hybrid.tokenizer, [text("On the table, please.", said)], "user")
    assert hybrid.tokenizer.decode(encoded.ids[encoded.start :]) == "On the table, please."
    before = hybrid.tokenizer.decode(encoded.ids[: encoded.start])
    assert before.endswith("Why?<|im_end|>\n<|im_start|>user\n")


def test_a_special_token_inside_a_plain_text_is_refused(hybrid: LoadedModel) -> None:
    with pytest.raises(BadPooling, match="special token"):
        encode(hybrid.tokenizer, [text("The door<|im_end|> is open")])


def test_a_text_of_special_tokens_alone_has_nothing_to_read(hybrid: LoadedModel) -> None:
    with pytest.raises(BadPooling, match="only the template's"):
        encode(hybrid.tokenizer, [text("<|im_end|>")])


def test_more_tokens_than_a_text_has_are_all_it_has() -> None:
    encoded = EncodedText((1, 2, 3, 4), 1, 3)
    assert Pooling(9).span(encoded) == (1, 3)
    assert Pooling(1).span(encoded) == (2, 3)
    assert Pooling(None).span(encoded) == (1, 3)
    with pytest.raises(BadPooling):
        Pooling(0)


def test_a_text_longer_than_the_context_is_refused(hybrid: LoadedModel) -> None:
    encoded = EncodedText((5,) * (hybrid.context_length + 1), 0, hybrid.context_length + 1)
    with pytest.raises(BadRows, match="context"):
        collect(hybrid, [encoded], streams(hybrid, [0]), Pooling(1))


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    loaded = load_model(write_miniature(tmp_path / "broken", "llama"))
    with torch.no_grad():
        loaded.model.model.layers[0].mlp.down_proj.weight.fill_(torch.inf)
    with pytest.raises(BadRows, match="finite"):
        collect(loaded, encode(loaded.tokenizer, [text("The door")]), streams(loaded, [0]), Pooling(1))


# ---------------------------------------------------------------------- which layers


def test_layers_by_number_end_and_depth() -> None:
    assert resolve_layers(["3"], 4) == (3,)
    assert resolve_layers(["-1", "0"], 4) == (0, 3)
    assert resolve_layers(["50%", "100%", "0%"], 4) == (0, 1, 3)
    assert resolve_layers(["all", "1"], 3) == (0, 1, 2)
    assert [depth(layer, 4) for layer in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("given", ["4", "-5", "101%", "-1%", "half", "", "nan%", "1e99%"])
def test_an_unknown_layer_is_named(given: str) -> None:
    with pytest.raises(UnknownLayer, match="expected a layer from 0 to 3"):
        resolve_layers([given], 4)


def test_no_layer_at_all_is_an_error() -> None:
    with pytest.raises(UnknownLayer):
        resolve_layers([], 4)


# ---------------------------------------------------------------------- against another library


def test_the_difference_of_means_is_the_steering_vectors_librarys(loaded: LoadedModel) -> None:
    pairs = [
        ("The cup is red and warm.", "The book is blue."),
        ("I could carry it to the window.", "The door is on the table."),
        ("Please, the red cup.", "What would you like me to do?"),
    ]
    layers = list(range(loaded.model.config.num_hidden_layers))
    theirs = train_steering_vector(loaded.model, loaded.tokenizer, pairs, layers=layers)
    texts = [text(one) for pair in pairs for one in pair]
    found = collect(loaded, encode(loaded.tokenizer, texts), streams(loaded, layers), Pooling(1))
    for layer in layers:
        rows = found.rows_nh[layer]
        ours = find_direction(Contrast(rows[0::2], rows[1::2]), "mean_difference")
        cosine = torch.nn.functional.cosine_similarity(ours, theirs.layer_activations[layer], dim=0)
        assert cosine > 0.9999
