"""What moved: by matrix, layer and head, held against the model's own arithmetic."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_models import VOCABULARY, small_model

from understudy.weights import (
    HeadPart,
    WeightsMismatch,
    measure_movement,
    pair_delta,
    pair_streams,
    read_config,
)
from understudy.weights.delta import difference
from understudy.weights.heads import HeadLayout

ARCHITECTURES = ("llama", "qwen3", "qwen3_5")


def config_of(model: Any) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    return held


def head_outputs(model: Any, layer: int, kind: str) -> torch.Tensor:
    """What each head of a layer hands to the output projection: (tokens, heads, size of a head)."""
    block = model.model.layers[layer]
    projection = block.self_attn.o_proj if kind == "attention" else block.linear_attn.out_proj
    seen: list[torch.Tensor] = []
    hook = projection.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    with torch.no_grad():
        model(torch.arange(12).unsqueeze(0) % VOCABULARY, use_cache=False)
    hook.remove()
    return seen[0][0].view(12, 4, -1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_rows_of_a_part_are_what_changes_its_heads_and_no_other(architecture: str) -> None:
    model = small_model(architecture, bias=True).double()
    layout = HeadLayout.of(config_of(model))
    assert layout is not None
    parameters = dict(model.named_parameters())
    seen: set[str] = set()
    for name, parameter in parameters.items():
        for piece in layout.slices(name, tuple(parameter.shape)):
            part = piece.part
            if part.part == "o":
                continue
            seen.add(part.part)
            before = head_outputs(model, part.layer, part.kind)
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter[piece.start : piece.stop] += 0.3 * torch.randn_like(
                    parameter[piece.start : piece.stop]
                )
            moved = (head_outputs(model, part.layer, part.kind) - before).abs().amax(dim=(0, 2)) > 1e-9
            with torch.no_grad():
                parameter.copy_(kept)
            if name.endswith(("k_proj.bias",)):
                continue  # the same for all keys but for its place: it may cancel in the softmax
            assert moved.nonzero().flatten().tolist() == list(layout.shared_with(part)), part
    expected = {"q", "k", "v"}
    if architecture == "qwen3_5":
        expected |= {"gate", "z", "a", "b", "A_log", "dt_bias", "conv_q", "conv_k", "conv_v"}
    assert seen == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_columns_of_an_output_part_read_its_head_alone(architecture: str) -> None:
    model = small_model(architecture, bias=True).double()
    layout = HeadLayout.of(config_of(model))
    assert layout is not None
    found = 0
    for name, parameter in model.named_parameters():
        for piece in layout.slices(name, tuple(parameter.shape)):
            if piece.part.part != "o":
                continue
            heads = torch.randn(3, 4, parameter.shape[1] // 4, dtype=torch.float64)
            own = torch.zeros_like(heads)
            own[:, piece.part.head] = heads[:, piece.part.head]
            columns = slice(piece.start, piece.stop)
            expected = own.flatten(1) @ parameter.T
            assert torch.allclose(heads.flatten(1)[:, columns] @ parameter[:, columns].T, expected)
            found += 1
    assert found == 4 * model.config.num_hidden_layers


def moved_pairs(model: Any, seed: int = 1) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    torch.manual_seed(seed)
    return [
        (n, p.detach().clone(), p.detach() + 0.01 * torch.randn_like(p)) for n, p in model.named_parameters()
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sums_agree_at_every_level(architecture: str) -> None:
    model = small_model(architecture, bias=True)
    pairs = moved_pairs(model)
    report = measure_movement(pairs, config_of(model))
    for name, before, after in pairs:
        moved = report.matrices[name]
        assert moved.change == pytest.approx(float((after.double() - before.double()).norm()), rel=1e-9)
        assert moved.norm == pytest.approx(float(before.double().norm()), rel=1e-9)
        assert moved.elements == before.numel()
        assert moved.relative == pytest.approx(moved.change / moved.norm if moved.norm else math.inf)
    everything = torch.cat([(a.double() - b.double()).flatten() for _, b, a in pairs])
    assert report.whole.change == pytest.approx(float(everything.norm()), rel=1e-9)
    for layer, moved in report.layers.items():
        own = [m.change**2 for n, m in report.matrices.items() if f"layers.{layer}." in n]
        assert moved.change == pytest.approx(math.sqrt(sum(own)), rel=1e-9)
    of_heads = re.compile(r"[qkv]_proj\.|o_proj\.weight|in_proj|out_proj|conv1d|A_log|dt_bias")
    headed = [m for n, m in report.matrices.items() if of_heads.search(n)]
    assert sum(m.change**2 for m in report.heads.values()) == pytest.approx(sum(m.change**2 for m in headed))
    assert sum(m.elements for m in report.heads.values()) == sum(m.elements for m in headed)


def test_gates_decay_convolution_and_projections_stand_apart() -> None:
    model = small_model("qwen3_5")
    pairs = []
    for name, parameter in model.named_parameters():
        after = parameter.detach().clone()
        if name.endswith("layers.1.linear_attn.A_log"):
            after[2] += 3
        if name.endswith("layers.1.linear_attn.in_proj_b.weight"):
            after[3] += 1
        pairs.append((name, parameter.detach(), after))
    report = measure_movement(pairs, config_of(model))
    assert report.heads[HeadPart(1, "delta", "A_log", 2)].change == pytest.approx(3, rel=1e-6)
    assert report.heads[HeadPart(1, "delta", "b", 3)].change == pytest.approx(math.sqrt(32), rel=1e-6)
    assert sum(m.change > 0 for m in report.heads.values()) == 2
    groups = report.groups()
    assert groups[1, "delta", "decay"].change == pytest.approx(3, rel=1e-6)
    assert groups[1, "delta", "gates"].change == pytest.approx(math.sqrt(32), rel=1e-6)
    assert groups[1, "delta", "conv"].change == groups[1, "delta", "projections"].change == 0
    heads = report.whole_heads()
    assert heads[1, "delta", 2].change == pytest.approx(3, rel=1e-6)
    assert heads[1, "delta", 3].change == pytest.approx(math.sqrt(32), rel=1e-6)
    assert heads[1, "delta", 0].change == 0


def test_a_key_head_counts_for_every_query_head_of_its_group() -> None:
    model = small_model("qwen3")
    pairs = []
    for name, parameter in model.named_parameters():
        after = parameter.detach().clone()
        if name.endswith("layers.0.self_attn.k_proj.weight"):
            after[8:] += 1  # the second key head: query heads 2 and 3
        pairs.append((name, parameter.detach(), after))
    report = measure_movement(pairs, config_of(model))
    moved = {head for (layer, _, head), m in report.whole_heads().items() if m.change and layer == 0}
    assert moved == {2, 3}
    assert [p for p, m in report.heads.items() if m.change] == [HeadPart(0, "attention", "k", 1)]


def test_an_unknown_architecture_is_reported_by_matrix() -> None:
    model = small_model("llama")
    config = {**config_of(model), "model_type": "something_else"}
    report = measure_movement(moved_pairs(model), config)
    assert not report.heads and not report.whole_heads()
    assert report.matrices.keys() == dict(model.named_parameters()).keys()
    assert measure_movement(moved_pairs(model), None).heads == {}


def test_a_config_of_another_model_is_refused() -> None:
    model = small_model("llama")
    with pytest.raises(WeightsMismatch, match=r"q_proj|k_proj"):
        measure_movement(moved_pairs(model), {**config_of(model), "num_key_value_heads": 4, "head_dim": 16})


def test_a_multimodal_config_is_read_by_its_text_part() -> None:
    config = config_of(small_model("qwen3_5"))
    assert HeadLayout.of({"model_type": "qwen3_5", "text_config": config}) == HeadLayout.of(config)


def test_nothing_moved_and_away_from_zero() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    report = measure_movement(
        [("a", one, one), ("b", zero, one), ("c", torch.empty(0), torch.empty(0))], None
    )
    assert report.matrices["a"].relative == 0
    assert report.matrices["b"].relative == math.inf
    assert report.matrices["c"].elements == 0
    text = json.dumps(report.as_json(), allow_nan=False)
    assert json.loads(text)["matrices"][0]["name"] == "b"


@settings(deadline=None)
@given(st.permutations("abcdef"), st.permutations("abcdef"))
def test_streams_pair_by_name_in_any_order(first: list[str], second: list[str]) -> None:
    def stream(names: list[str], plus: int) -> Iterator[tuple[str, torch.Tensor]]:
        for name in names:
            yield name, torch.tensor([ord(name) + plus])

    pairs = {name: (int(b), int(a)) for name, b, a in pair_streams(stream(first, 0), stream(second, 100))}
    assert pairs == {name: (ord(name), ord(name) + 100) for name in "abcdef"}


def test_streams_of_the_same_order_hold_one_pair() -> None:
    alive: list[int] = []

    def stream(most: list[int]) -> Iterator[tuple[str, torch.Tensor]]:
        for place in range(5):
            alive.append(place)
            yield str(place), torch.zeros(1)
            most.append(place)

    done_left: list[int] = []
    done_right: list[int] = []
    for count, _ in enumerate(pair_streams(stream(done_left), stream(done_right))):
        assert len(done_left) == len(done_right) == count  # nothing was read ahead


def test_a_name_on_one_side_only_is_refused() -> None:
    one = torch.ones(1)
    with pytest.raises(WeightsMismatch, match="'b'"):
        list(pair_streams([("a", one)], [("a", one), ("b", one)]))
    with pytest.raises(WeightsMismatch, match="one shape"):
        measure_movement([("a", one, torch.ones(2))], None)


def test_a_packed_delta_gives_the_same_report() -> None:
    model = small_model("qwen3")
    pairs = moved_pairs(model)
    delta = {name: difference(before, after) for name, before, after in pairs if "mlp" in name}
    told = measure_movement(pair_delta([(n, b) for n, b, _ in pairs], delta), config_of(model))
    expected = measure_movement([(n, b, a if "mlp" in n else b) for n, b, a in pairs], config_of(model))
    assert told == expected


def test_large_rows_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from understudy.weights import movement

    model = small_model("qwen3_5")
    pairs = moved_pairs(model)
    whole = measure_movement(pairs, config_of(model))
    monkeypatch.setattr(movement, "_CHUNK_ELEMENTS", 7)
    pieces = measure_movement(pairs, config_of(model))
    for part, moved in whole.heads.items():
        assert pieces.heads[part].change == pytest.approx(moved.change, rel=1e-12)


def test_read_config(tmp_path: Path) -> None:
    assert read_config(tmp_path) is None
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_config(tmp_path) == {"model_type": "llama"}
