"""`understudy concepts train` and `report`, on real files and a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from concept_commands import refused, said
from planted_corpus import write_texts
from safetensors.torch import load_file

from understudy.concepts import Manifest, load_corpus, read_card, write_manifest
from understudy.engine import Directions, write_miniature
from understudy.lessons import ChatMessage
from understudy.weights import WeightHistory
from understudy.workspace import Rehearsal, Workspace


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature(tmp_path_factory.mktemp("model"), "qwen3_5")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_texts(tmp_path / "corpus")
    return tmp_path / "corpus"


def trained(corpus: Path, model: Path, out: Path, *words: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(said("train", corpus, "--out", out, "--model", model, "--json", *words))
    return told


def test_a_folder_of_directions_with_its_card(corpus: Path, model: Path, tmp_path: Path) -> None:
    told = trained(corpus, model, tmp_path / "out", "--layer", "0", "--layer", "75%", "--twin")
    directions, card = Directions.load(tmp_path / "out"), read_card(tmp_path / "out")
    assert directions.concepts == ("cold", "warm")
    assert directions.layers == (0, 2) == card.layers
    assert directions.statistics is not None
    assert card.depths == (0.25, 0.75)
    assert card.corpus == load_corpus(corpus).digest
    assert card.method == "mean_difference"
    assert card.weight_commit is None
    validity = card.validity
    assert validity is not None
    assert told["card"]["validity"] == validity
    best = validity["layers"][str(validity["best_layer"])]
    assert best["auroc"]["interval"][0] <= best["auroc"]["value"] <= best["auroc"]["interval"][1]
    assert best["untrained_twin"]["texts"] == best["auroc"]["texts"] == 6
    assert set(best["concepts"]) == {"cold", "warm"}


def test_the_table_says_what_directions_are_worth(corpus: Path, model: Path, tmp_path: Path) -> None:
    printed = said("train", corpus, "--out", tmp_path / "out", "--model", model, "--layer", "all")
    assert "AUROC, held out" in printed
    assert "warm" in printed
    assert f"2 concepts behind 4 layers in {tmp_path / 'out'}" in printed


def test_a_report_beside_the_directions(corpus: Path, model: Path, tmp_path: Path) -> None:
    trained(corpus, model, tmp_path / "out", "--layer", "0")
    printed = said("report", tmp_path / "out", corpus, "--model", model)
    assert str(tmp_path / "out" / "report.html") in printed
    assert "filed under" in printed
    assert "fragmented" in printed
    quality = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert [one["layer"] for one in quality["layers"]] == [0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "warm" in page
    assert "cold" in page
    # Written in one go with the directions, the figures are the same.
    trained(corpus, model, tmp_path / "again", "--layer", "0", "--report")
    again = json.loads((tmp_path / "again" / "quality.json").read_text())
    assert again["layers"] == quality["layers"]


def test_the_workspaces_model_with_its_newest_weights(corpus: Path, model: Path, tmp_path: Path) -> None:
    """The newest commit lies in the history alone: the model's files do not have it yet."""
    line = Rehearsal((ChatMessage("user", "Hello"), ChatMessage("assistant", "Hi.")))
    workspace = Workspace.create(
        tmp_path / "work", model=model, copy_model=True, replay=(line,), settings="[server]\nport = 0\n\n"
    )
    words = ("train", corpus, "--workspace", workspace.root, "--layer", "1", "--out")
    said(*words, tmp_path / "before")
    history = WeightHistory.open(workspace.root / "model")
    live = load_file(workspace.root / "model" / "model.safetensors")
    draw = torch.Generator().manual_seed(1)
    for name, tensor in live.items():
        if ".layers.1." in name:
            tensor += 0.1 * torch.randn(tensor.shape, generator=draw)
    history.commit(live, message="moved", author="ada", created="2026-01-02T03:04:05Z")
    said(*words, tmp_path / "after")
    before, after = (read_card(tmp_path / name).weight_commit for name in ("before", "after"))
    assert before != after == WeightHistory.view(workspace.root / "model").head
    first, second = (Directions.load(tmp_path / name).vectors_ch[1] for name in ("before", "after"))
    assert not torch.allclose(first, second, atol=1e-3)


def test_a_report_of_another_corpus_is_refused(corpus: Path, model: Path, tmp_path: Path) -> None:
    trained(corpus, model, tmp_path / "out", "--layer", "0")
    (corpus / "stories" / "warm" / "s1.txt").write_text("The cup is another cup now, a warm cup.\n")
    assert "expected the corpus that" in refused("report", tmp_path / "out", corpus, "--model", model)


def test_a_report_by_another_model_is_refused(corpus: Path, model: Path, tmp_path: Path) -> None:
    trained(corpus, model, tmp_path / "out", "--layer", "3")
    other = write_miniature(tmp_path / "other", "llama")  # of two layers
    assert "layer" in refused("report", tmp_path / "out", corpus, "--model", other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "9"), "expected a layer from 0 to 3"),
        (("--layer", "half"), "expected a layer from 0 to 3"),
        (("--tokens", "few"), "expected a number of tokens or `all`"),
        (("--tokens", "0"), "at least one token"),
    ],
)
def test_what_cannot_be_is_said_before_the_model_is_loaded(
    corpus: Path,
    model: Path,
    tmp_path: Path,
    words: tuple[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("understudy.engine.load_model", lambda *_: pytest.fail("the model was loaded"))
    assert message in refused("train", corpus, "--out", tmp_path / "out", "--model", model, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["one concept", "one text", "empty files", "nothing"])
def test_a_corpus_that_nothing_can_be_learnt_from_is_refused_first(
    broken: str, corpus: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.engine.load_model", lambda *_: pytest.fail("the model was loaded"))
    write_manifest(corpus, Manifest())
    cold = sorted((corpus / "stories" / "cold").iterdir())
    for file in cold[1:] if broken == "one text" else cold:
        if broken == "empty files":
            file.write_text("")
        else:
            file.unlink()
    if broken in ("one concept", "empty files"):
        for file in sorted((corpus / "paired").rglob("*.txt")):
            file.unlink()
    if broken == "nothing":
        corpus = tmp_path / "none"
    assert refused("train", corpus, "--out", tmp_path / "out", "--model", model)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_written_over(corpus: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "new or empty folder" in refused("train", corpus, "--out", tmp_path / "out", "--model", model)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
