"""`understudy concepts read` and `export`, on a real workspace whose model has a history."""

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from concept_commands import answered, refused, said
from gguf import GGUFReader
from safetensors.torch import load_file

from understudy.concepts import Card, write_card
from understudy.engine import Directions, ReadoutManifest, ReadoutStatistics, load_model, write_miniature
from understudy.lessons import ChatMessage
from understudy.weights import ModelState, WeightHistory, write_state
from understudy.workspace import Rehearsal, Workspace

CONCEPTS = tuple(f"concept_{number}" for number in range(8))
LAYERS = (0, 1, 2)
SENTENCE = "Please put the red cup on the table."
WHEN = "2026-01-02T03:04:05Z"


def write_directions(folder: Path, *, statistics: bool = True, hidden_size: int = 32) -> Directions:
    draw = torch.Generator().manual_seed(0)

    def table() -> list[list[float]]:
        return (torch.rand(len(LAYERS), len(CONCEPTS), generator=draw) + 0.5).tolist()

    held = ReadoutStatistics(mean=table(), deviation=table(), norms=table(), tokens=50)
    manifest = ReadoutManifest(
        concepts=list(CONCEPTS),
        layers=list(LAYERS),
        hidden_size=hidden_size,
        dtype="float32",
        statistics=held if statistics else None,
    )
    vectors = {layer: torch.randn(len(CONCEPTS), hidden_size, generator=draw) for layer in LAYERS}
    made = Directions(manifest, vectors)
    made.save(folder)
    return made


def describe(folder: Path, *, role: Any = None, best: int = 1) -> None:
    card = Card(
        model="miniature",
        architecture="Qwen3_5ForCausalLM",
        weight_commit=None,
        corpus="0" * 64,
        texts=4,
        method="mean_difference",
        pooled_tokens=1,
        role=role,
        layers=LAYERS,
        depths=(0.25, 0.5, 0.75),
        seed=0,
        made=WHEN,
        understudy="0",
        validity={"best_layer": best, "layers": {}},
    )
    write_card(folder, card)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose model learned twice; its files do not hold the second commit yet."""
    folder = tmp_path_factory.mktemp("reading")
    model = write_miniature(folder / "miniature", "qwen3_5")
    line = Rehearsal((ChatMessage("user", "Hello"), ChatMessage("assistant", "Hi.")))
    settings = "[server]\nport = 0\n\n"
    Workspace.create(folder / "w", model=model, copy_model=True, replay=(line,), settings=settings)
    history = WeightHistory.open(folder / "w" / "model")
    live = load_file(folder / "w" / "model" / "model.safetensors")
    draw = torch.Generator().manual_seed(1)
    for number in range(2):
        for name, tensor in live.items():
            if ".layers.1.mlp." in name:
                tensor += 0.05 * torch.randn(tensor.shape, generator=draw)
        history.commit(live, message=str(number), author="ada", created=WHEN)
        if number == 0:
            history.sync()
    write_directions(folder / "w" / "directions")
    return folder / "w"


@pytest.fixture(scope="module")
def directions(root: Path) -> Directions:
    return Directions.load(root / "directions")


def hidden(root: Path, text: str, tmp_path: Path) -> Any:
    """The streams behind each layer by transformers with the newest weights: [t, l, h]."""
    newest = WeightHistory.view(root / "model").head
    write_state(ModelState(root / "model", newest), tmp_path / "newest")
    loaded = load_model(tmp_path / "newest")
    encoded = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        told = loaded.model(encoded, use_cache=False, output_hidden_states=True)
    return torch.stack([told.hidden_states[layer + 1][0] for layer in LAYERS], dim=1)


def test_a_text_is_read_with_the_newest_weights(root: Path, directions: Directions, tmp_path: Path) -> None:
    words = ("read", SENTENCE, "-w", root, "--directions", root / "directions", "--layer", 1, "--layer", 2)
    told = answered(*words, "--per", "token")
    assert told["weight_commit"] == WeightHistory.view(root / "model").head
    assert told["scale"] == "z"
    [text] = told["texts"]
    assert "".join(token["token"] for token in text["tokens"]) == SENTENCE
    streams_tlh = hidden(root, SENTENCE, tmp_path)
    raw = np.stack([(streams_tlh[:, row] @ directions.vectors_ch[row].T).numpy() for row in LAYERS], axis=1)
    assert directions.statistics is not None
    expected = directions.statistics.standardize(raw)
    for row in (1, 2):
        found = [list(token["readout"][str(row)].values()) for token in text["tokens"]]
        np.testing.assert_allclose(found, expected[:, row], atol=1e-3)
        means = list(text["readout"][str(row)].values())
        np.testing.assert_allclose(means, expected[:, row].mean(0), atol=1e-3)
    scalar = answered(*words, "--raw")
    assert scalar["scale"] == "raw"
    assert "tokens" not in scalar["texts"][0]
    np.testing.assert_allclose(
        list(scalar["texts"][0]["readout"]["1"].values()), raw[:, 1].mean(0), atol=1e-3
    )


def test_concepts_are_listed_strongest_first(root: Path) -> None:
    shown = said("read", SENTENCE, "-w", root, "--directions", root / "directions")
    lines = shown.splitlines()
    assert lines[0].startswith("text 1, ") and lines[0].endswith(" tokens, behind layer 2:")
    rows = [line.split() for line in lines[1:10]]
    assert rows[0] == ["concept", "z"]
    assert {name for name, _ in rows[1:]} == set(CONCEPTS)
    strengths = [abs(float(value)) for _, value in rows[1:]]
    assert strengths == sorted(strengths, reverse=True)
    assert lines[-1].startswith(f"weights {WeightHistory.view(root / 'model').head}, directions ")


def test_tokens_are_shown_with_the_strongest_concepts(root: Path) -> None:
    words = ("read", SENTENCE, "-w", root, "--directions", root / "directions", "--per", "token")
    shown = said(*words)
    assert "the strongest 6 of 8 concepts: --concept names others" in shown
    assert "' the'" in shown
    few = said(*words, "--concept", "concept_3", "--concept", "concept_1")
    assert "the strongest" not in few
    assert set(few.splitlines()[1].split()) == {"token", "concept_3", "concept_1"}


def test_texts_come_from_files_and_from_the_standard_input(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "note.txt").write_text(f"{SENTENCE}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("What now?\n"))
    told = answered(
        "read",
        SENTENCE,
        "--file",
        "-",
        "--file",
        tmp_path / "note.txt",
        "-w",
        root,
        "--directions",
        root / "directions",
    )
    first, second, third = told["texts"]
    assert [one["source"] for one in told["texts"]] == [
        "text 1",
        "standard input",
        str(tmp_path / "note.txt"),
    ]
    assert (first["text"], second["text"]) == (SENTENCE, "What now?")
    assert first["readout"] == third["readout"] != second["readout"]


def test_the_card_says_how_texts_are_read(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "described"
    write_directions(folder)
    describe(folder, role="user", best=1)
    words = ("read", SENTENCE, "-w", root, "--directions")
    [text] = answered(*words, folder)["texts"]
    assert list(text["readout"]) == ["1"]
    named = ("--role", "user", "--layer", 1)
    assert answered(*words, root / "directions", *named)["texts"][0]["readout"] == text["readout"]
    [plain] = answered(*words, folder, "--role", "plain")["texts"]
    assert plain["readout"] != text["readout"]
    assert plain["readout"] == answered(*words, root / "directions", "--layer", 1)["texts"][0]["readout"]


def test_the_workspaces_own_directions_are_read_by(root: Path, tmp_path: Path) -> None:
    own = Workspace.create(tmp_path / "own", model=root / "model", copy_model=True, replay=(), settings="")
    assert "or `readout` under [model]" in refused("read", SENTENCE, "-w", own.root)
    write_directions(own.root / "mine", statistics=False)
    file = own.root / "understudy.toml"
    file.write_text(file.read_text().replace("[model]\n", '[model]\nreadout = "mine"\n'))
    told = answered("read", SENTENCE, "-w", own.root)
    assert (told["directions"], told["scale"]) == (str(own.root / "mine"), "raw")
    assert "no `statistics`" in refused("read", SENTENCE, "-w", own.root, "--z")


def test_a_text_that_begins_like_an_option_stands_behind_two_hyphens(root: Path) -> None:
    words = ("read", "-w", root, "--directions", root / "directions")
    assert "Unknown option" in refused(*words, "--calm")
    assert [one["text"] for one in answered(*words, "--", "--calm")["texts"]] == ["--calm"]


# ---------------------------------------------------------------------- drift


def test_drift_between_commits(root: Path) -> None:
    first, second = (commit.id for commit in WeightHistory.view(root / "model").commits)
    words = ("read", SENTENCE, "The door is open.", "No.", "-w", root, "--directions", root / "directions")
    told = answered(*words, "--commits", f"initial,{first},{second[:8]}", "--layer", 0, "--layer", 1)
    assert [state["commit"] for state in told["commits"]] == ["initial", first, second]
    assert (told["texts"], told["scale"], told["confidence"]) == (3, "z", 0.95)
    came, learned, newest = told["commits"]
    assert "change" not in came
    assert set(newest["change"]["value"]["0"].values()) == {0.0}
    assert all(newest["change"]["value"]["1"].values())
    for name in CONCEPTS:
        low, value, high = (newest["change"][part]["1"][name] for part in ("low", "value", "high"))
        assert low < value < high
        assert value == pytest.approx(newest["mean"]["1"][name] - came["mean"]["1"][name])
    assert newest["cosine"]["0"] == pytest.approx(1)
    assert newest["cosine"]["1"] < learned["cosine"]["1"] < 1
    # The newest commit's means are what the other way of reading says of the newest weights.
    now = answered(*words, "--layer", 1)
    for name in CONCEPTS:
        means = [text["readout"]["1"][name] for text in now["texts"]]
        assert np.mean(means) == pytest.approx(newest["mean"]["1"][name], abs=1e-4)


def test_drift_over_a_corpus_is_shown(root: Path, tmp_path: Path) -> None:
    for scene, text in (("one", SENTENCE), ("two", "The door is open."), ("three", "No.")):
        file = tmp_path / "corpus" / "stories" / "calm" / f"{scene}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    words = ("read", "-w", root, "--directions", root / "directions", "--corpus", tmp_path / "corpus")
    assert "expected held-out texts" in refused(*words, "--commits", "all")
    held_out = ["stories/calm/one.txt", "stories/calm/two.txt"]
    (tmp_path / "corpus" / "manifest.json").write_text(json.dumps({"held_out": held_out}))
    first, second = (commit.id for commit in WeightHistory.view(root / "model").commits)
    shown = said(*words, "--commits", "all", "--concept", "concept_0")
    assert f"initial -> {first}, 2 texts, behind layer 2, mean cosine of the streams 0.9" in shown
    assert f"initial -> {second}, 2 texts" in shown
    assert [line.split()[0] for line in shown.splitlines()].count("concept_0") == 2


# ---------------------------------------------------------------------- what is refused


def test_what_cannot_be_read_is_said_before_the_model_is_loaded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("understudy.engine.loading.load_model")
    monkeypatch.delattr("understudy.engine.embedded.load_model")
    monkeypatch.delattr("understudy.concepts.drift.load_model")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "readout.json").write_text("{}")
    write_directions(tmp_path / "wide", hidden_size=64)
    (tmp_path / "empty.txt").write_text("\n")
    mine = ("--directions", root / "directions")
    for words, expected in (
        ((), "or `readout` under [model]"),
        (("--directions", tmp_path / "nowhere"), "expected a description of the directions"),
        (("--directions", tmp_path / "broken"), "readout.json: Object missing required field"),
        (("--directions", tmp_path / "wide"), "they were made from another model"),
        ((*mine, "--concept", "bold"), "got 'bold'"),
        ((*mine, "--layer", "3"), "(0, 1, 2), got 3"),
        ((*mine, "--raw", "--z"), "expected either --raw or --z"),
        ((*mine, "--file", tmp_path / "no.txt"), "expected a text in UTF-8"),
        ((*mine, "--file", tmp_path / "empty.txt"), "expected a text to read in"),
        ((*mine, "--corpus", tmp_path), "--corpus only with --commits"),
        ((*mine, "--commits", "all", "--per", "token"), "expected --per message with --commits"),
        ((*mine, "--commits", "all", "--corpus", tmp_path), "got both"),
        ((*mine, "--commits", "initial,abc"), "'abc' fits 0"),
        ((*mine, "--commits", "initial"), "two different weight commits"),
        ((*mine, "--commits", "all"), "expected at least two texts"),
    ):
        assert expected in refused("read", SENTENCE, "-w", root, *words), words
    assert "expected texts to read" in refused("read", "-w", root, *mine)
    assert "expected a folder with a corpus" in refused(
        "read", "-w", root, *mine, "--commits", "all", "--corpus", tmp_path / "nowhere"
    )


# ---------------------------------------------------------------------- export


def test_a_concept_is_exported_for_llama_cpp(tmp_path: Path) -> None:
    folder, out = tmp_path / "directions", tmp_path / "calm.gguf"
    made = write_directions(folder)
    describe(folder)
    assert made.statistics is not None
    err = io.StringIO()
    with redirect_stderr(err):
        shown = said("export", folder, "--concept", "concept_1", "--out", out, "--strength", "2x")
    assert "layer 0 was left out" in err.getvalue()
    assert shown.startswith(f"{out}  concept_1 for qwen35, behind layers (length): 1 (")
    reader = GGUFReader(out)
    assert reader.fields["controlvector.model_hint"].contents() == "qwen35"
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.2"]
    for row, tensor in zip((1, 2), reader.tensors, strict=True):
        expected = 2 * made.statistics.norms[row][1] * made.vectors_ch[row][1]
        np.testing.assert_allclose(tensor.data, expected.numpy(), rtol=1e-6)


def test_layers_strength_and_hint_can_be_named(tmp_path: Path) -> None:
    folder, out = tmp_path / "directions", tmp_path / "calm.gguf"
    made = write_directions(folder, statistics=False)
    words = ("export", folder, "--concept", "concept_0", "--out", out)
    assert "expected --model-hint" in refused(*words)
    told = answered(*words, "--model-hint", "llama", "--layers", "2", "--strength", "-3")
    assert told["left_out"] == []
    assert told["lengths"] == {"2": pytest.approx(3 * made.vectors_ch[2][0].norm().item())}
    np.testing.assert_allclose(GGUFReader(out).tensors[0].data, -3 * made.vectors_ch[2][0].numpy())
    assert "already there" in refused(*words, "--model-hint", "llama")


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    folder, out = tmp_path / "directions", tmp_path / "calm.gguf"
    write_directions(folder, statistics=False)
    words = ("export", folder, "--out", out, "--model-hint")
    calm = ("--concept", "concept_0")
    for given, expected in (
        (("llama", "--concept", "bold"), "got 'bold'"),
        (("lama", *calm), "such as llama"),
        (("llama", *calm, "--layers", "0"), "no place for a vector behind the first layer"),
        (("llama", *calm, "--layers", "7"), "(0, 1, 2), got 7"),
        (("llama", *calm, "--strength", "strong"), "expected a number for --strength"),
        (("llama", *calm, "--strength", "2x"), "no `statistics`"),
    ):
        assert expected in refused(*words, *given), given
    assert not out.exists()
    assert "expected a description of the directions" in refused(
        "export", tmp_path / "nowhere", *calm, "--out", out, "--model-hint", "llama"
    )
