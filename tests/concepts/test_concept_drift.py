"""Readouts at weight commits, against transformers on the model written out at each of them."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from understudy.concepts import (
    BadRows,
    Drift,
    Split,
    Text,
    UnknownConcept,
    UnknownLayer,
    measure_drift,
    narrow,
    read_texts,
    resolve_commits,
)
from understudy.engine import Directions, ReadoutManifest, ReadoutStatistics, load_model, write_miniature
from understudy.lessons import ChatMessage, Role
from understudy.weights import INITIAL, ModelState, UnknownCommit, WeightHistory, tidy, write_state

CONCEPTS = ("calm", "curious", "proud")
LAYERS = (0, 1, 2)  # of four: the last one's hidden states are normed by transformers
SENTENCES = (
    "The door is open.",
    "Please put the red cup on the table, and the blue book beside it.",
    "What would you like me to do with the cup?",
    "No.",
)
SPLIT: Split = "held_out"
TEXTS = tuple(Text(f"text {n}", "story", None, str(n), SPLIT, text) for n, text in enumerate(SENTENCES))
WHEN = "2026-01-02T03:04:05Z"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned twice, behind layers 1 and 3; the files are those of the first commit."""
    directory = write_miniature(tmp_path_factory.mktemp("drift") / "model", "qwen3_5")
    history = WeightHistory.open(directory)
    live = load_file(directory / "model.safetensors")
    draw = torch.Generator().manual_seed(1)
    for layer in (1, 3):
        for name, tensor in live.items():
            if f".layers.{layer}.mlp." in name:
                tensor += 0.05 * torch.randn(tensor.shape, generator=draw)
        history.commit(live, message=f"layer {layer}", author="ada", created=WHEN)
        if layer == 1:
            history.sync()
    return directory


@pytest.fixture(scope="module")
def directions() -> Directions:
    draw = torch.Generator().manual_seed(0)

    def table() -> list[list[float]]:
        return (torch.rand(len(LAYERS), len(CONCEPTS), generator=draw) + 0.5).tolist()

    statistics = ReadoutStatistics(mean=table(), deviation=table(), norms=table(), tokens=50)
    manifest = ReadoutManifest(
        concepts=list(CONCEPTS), layers=list(LAYERS), hidden_size=32, dtype="float32", statistics=statistics
    )
    vectors = {layer: torch.randn(len(CONCEPTS), 32, generator=draw) for layer in LAYERS}
    return Directions(manifest, vectors)


@pytest.fixture(scope="module")
def drift(model: Path, directions: Directions) -> Drift:
    return measure_drift(model, ["all"], directions, TEXTS)


def ids(model: Path) -> tuple[str, str]:
    first, second = WeightHistory.view(model).commits
    return first.id, second.id


def streams_at(model: Path, commit: str, folder: Path) -> npt.NDArray[np.float64]:
    """Each text's mean stream behind each layer by transformers, with weights written out: [n, l, h]."""
    directory = folder / commit
    if not directory.exists():
        write_state(ModelState(model, commit), directory)
    loaded = load_model(directory)
    rows = []
    for text in SENTENCES:
        encoded = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            told = loaded.model(encoded, use_cache=False, output_hidden_states=True)
        rows.append(torch.stack([told.hidden_states[layer + 1][0].mean(0) for layer in LAYERS]))
    return torch.stack(rows).double().numpy()


def readouts_at(model: Path, commit: str, folder: Path, directions: Directions) -> npt.NDArray[np.float64]:
    vectors = torch.stack([directions.vectors_ch[layer] for layer in LAYERS]).double().numpy()
    found: npt.NDArray[np.float64] = np.einsum("nlh,lch->nlc", streams_at(model, commit, folder), vectors)
    return found


def test_the_figures_are_those_of_transformers_and_scipy(
    model: Path, directions: Directions, drift: Drift, tmp_path: Path
) -> None:
    states = (INITIAL, *ids(model))
    assert tuple(state.commit for state in drift.states) == states
    assert (drift.concepts, drift.layers, drift.texts) == (CONCEPTS, LAYERS, 4)
    found = [readouts_at(model, commit, tmp_path, directions) for commit in states]
    for state, expected in zip(drift.states, found, strict=True):
        np.testing.assert_allclose(state.mean_lc, expected.mean(0), atol=1e-4)
    assert drift.states[0].since is None
    since = drift.states[1].since
    assert since is not None
    test = stats.ttest_rel(found[1][:, 1:], found[0][:, 1:])
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose(since.change.value_lc[1:], (found[1] - found[0]).mean(0)[1:], atol=1e-4)
    np.testing.assert_allclose(since.change.low_lc[1:], interval.low, atol=1e-3)
    np.testing.assert_allclose(since.change.high_lc[1:], interval.high, atol=1e-3)
    rows = [streams_at(model, commit, tmp_path) for commit in states[:2]]
    lengths = np.linalg.norm(rows[0], axis=-1) * np.linalg.norm(rows[1], axis=-1)
    expected_cosines = ((rows[0] * rows[1]).sum(-1) / lengths).mean(0)
    np.testing.assert_allclose(since.cosine_l, expected_cosines, atol=1e-5)
    assert since.cosine_l[1] < 0.9999


def test_what_lies_before_a_change_does_not_drift(drift: Drift) -> None:
    learned, later = (state.since for state in drift.states[1:])
    assert learned is not None
    assert later is not None
    for bound in (learned.change.value_lc, learned.change.low_lc, learned.change.high_lc):
        assert not bound[0].any()  # layer 0 lies before layer 1: not one bit has moved
    assert learned.change.value_lc[1:].all()
    # The second commit changed layer 3 alone: what is read behind earlier layers stays as it was.
    np.testing.assert_array_equal(later.change.value_lc, learned.change.value_lc)
    np.testing.assert_array_equal(drift.states[1].mean_lc, drift.states[2].mean_lc)


def test_z_scores_are_the_raw_ones_in_deviations(model: Path, directions: Directions, drift: Drift) -> None:
    scored = measure_drift(model, ["all"], directions, TEXTS, scale="z")
    held = directions.statistics
    assert held is not None
    for raw, z in zip(drift.states, scored.states, strict=True):
        np.testing.assert_allclose(z.mean_lc, held.standardize(raw.mean_lc))
    raw_since, z_since = drift.states[1].since, scored.states[1].since
    assert raw_since is not None
    assert z_since is not None
    expected = raw_since.change.low_lc / np.array(held.deviation)
    np.testing.assert_allclose(z_since.change.low_lc, expected, atol=1e-9)
    np.testing.assert_array_equal(raw_since.cosine_l, z_since.cosine_l)


def test_nothing_but_this_processs_own_copy_is_touched(model: Path, directions: Directions) -> None:
    def seen() -> dict[str, str]:
        files = [file for file in sorted(model.rglob("*")) if file.is_file()]
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    before = seen()
    measure_drift(model, [ids(model)[1], INITIAL], directions, TEXTS)
    assert seen() == before


def test_commits_are_compared_with_the_one_that_is_named_first(
    model: Path, directions: Directions, drift: Drift
) -> None:
    first = ids(model)[0]
    backwards = measure_drift(model, [first[:6], INITIAL], directions, TEXTS)
    assert [state.commit for state in backwards.states] == [first, INITIAL]
    since, forwards = backwards.states[1].since, drift.states[1].since
    assert since is not None
    assert forwards is not None
    np.testing.assert_array_equal(since.change.value_lc, -forwards.change.value_lc)
    np.testing.assert_array_equal(since.change.high_lc, -forwards.change.low_lc)


def test_texts_are_read_as_they_are_meant(model: Path, directions: Directions) -> None:
    loaded = load_model(model)
    asked = Text("a", "story", None, "a", SPLIT, SENTENCES[0], (ChatMessage("user", SENTENCES[2]),))
    asks: tuple[tuple[Text, Role | None], ...] = ((TEXTS[0], None), (TEXTS[0], "user"), (asked, None))
    plain, message, answer = (read_texts(loaded, directions, [text], role=role)[0] for text, role in asks)
    for found in (plain, message, answer):
        assert "".join(found.tokens) == SENTENCES[0]
        assert found.values_tlc.shape == (len(found.tokens), len(LAYERS), len(CONCEPTS))
        np.testing.assert_allclose(found.mean_lc, found.values_tlc.mean(0))
    assert not np.allclose(plain.mean_lc, message.mean_lc)
    assert not np.allclose(message.mean_lc, answer.mean_lc)


def test_each_token_is_read_where_it_stands(model: Path, directions: Directions) -> None:
    loaded = load_model(model)
    [found] = read_texts(loaded, directions, [TEXTS[1]], scale="z")
    encoded = loaded.tokenizer(SENTENCES[1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = loaded.model(encoded, use_cache=False, output_hidden_states=True).hidden_states
    raw = torch.stack([hidden[n + 1][0] @ directions.vectors_ch[n].T for n in LAYERS], dim=1)
    assert directions.statistics is not None
    np.testing.assert_allclose(found.values_tlc, directions.statistics.standardize(raw.numpy()), atol=1e-3)


def test_a_narrower_choice_reads_the_same(model: Path, directions: Directions) -> None:
    chosen = narrow(directions, concepts=("proud", "calm"), layers=(2, 1))
    loaded = load_model(model)
    [whole] = read_texts(loaded, directions, [TEXTS[0]], scale="z")
    [part] = read_texts(loaded, chosen, [TEXTS[0]], scale="z")
    assert (chosen.concepts, chosen.layers) == (("proud", "calm"), (1, 2))
    np.testing.assert_allclose(part.values_tlc, whole.values_tlc[:, 1:][:, :, [2, 0]], atol=1e-5)
    with pytest.raises(UnknownConcept, match="got 'bold'"):
        narrow(directions, concepts=("calm", "bold"))
    with pytest.raises(UnknownLayer, match=r"\(0, 1, 2\), got 3"):
        narrow(directions, layers=(1, 3))


def test_what_cannot_be_compared_is_said_before_a_model_is_loaded(
    model: Path, directions: Directions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("understudy.concepts.drift.load_model")
    with pytest.raises(UnknownCommit, match="'abc' fits 0"):
        measure_drift(model, [INITIAL, "abc"], directions, TEXTS)
    with pytest.raises(BadRows, match="two different weight commits"):
        measure_drift(model, [ids(model)[0], ids(model)[0][:5]], directions, TEXTS)
    with pytest.raises(BadRows, match="two different weight commits"):
        measure_drift(model, [INITIAL], directions, TEXTS)
    with pytest.raises(BadRows, match="at least two texts"):
        measure_drift(model, ["all"], directions, TEXTS[:1])
    bare = Directions(
        ReadoutManifest(concepts=list(CONCEPTS), layers=list(LAYERS), hidden_size=32, dtype="float32"),
        directions.vectors_ch,
    )
    with pytest.raises(BadRows, match="no `statistics`"):
        measure_drift(model, ["all"], bare, TEXTS, scale="z")


def test_states_whose_deltas_were_given_up(tmp_path: Path) -> None:
    directory = write_miniature(tmp_path / "model", "qwen3")
    history = WeightHistory.open(directory)
    live = load_file(directory / "model.safetensors")
    for number in range(3):
        live["model.norm.weight"] += 1
        history.commit(live, message=str(number), author="ada", created=WHEN)
    history.sync()
    one, two, three = (commit.id for commit in history.commits)
    assert resolve_commits(directory, ["all"]) == (INITIAL, one, two, three)
    tidy(directory, keep=1)
    assert resolve_commits(directory, ["all"]) == (two, three)
    with pytest.raises(UnknownCommit, match="given up"):
        resolve_commits(directory, [one, three])
