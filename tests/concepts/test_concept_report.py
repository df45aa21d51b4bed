"""The report of a real reading of a miniature: what it says, and that texts of a corpus are only text."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from understudy.concepts import page
from understudy.concepts.auroc import Auroc, Average
from understudy.concepts.corpus import load_corpus
from understudy.concepts.drawing import clip
from understudy.concepts.encoding import Pooling
from understudy.concepts.errors import BadRows, UnknownConcept, UnknownLayer
from understudy.concepts.figures import BrokenReport, QualityReport
from understudy.concepts.page import show_report
from understudy.concepts.reading import CorpusReading, Recipe, read_corpus
from understudy.concepts.report import make_report, write_report
from understudy.concepts.validity import ConceptValidity, LayerValidity, Validity
from understudy.engine import Directions, LoadedModel, ReadoutManifest, load_model, write_miniature

MADE = "2026-11-21T00:00:00Z"
RECIPE = Recipe(layers=("all",), pooling=Pooling(None))
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"'><script>alert(2)<",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}$ --> ]]>",
    "& &amp; 喜び \u202e",
    'x id="figure_1" #667085',
    'x id="',
)
SAYINGS = (
    "</td></table><script>alert(3)</script> and then there was tea.",
    '<style>body{display:none}</style><iframe src="http://example.com"></iframe>',
    "]]> --> <!-- <svg onload=alert(4)> ${7*7} {{ config }}",
)


def write_corpus(folder: Path, concepts: tuple[str, ...]) -> Path:
    for scene, saying in enumerate(SAYINGS):
        own = folder / "paired" / f"scene <b>{scene}<"
        own.mkdir(parents=True)
        (own / "baseline.txt").write_text(f"Nothing is felt in scene {scene}.")
        for number, concept in enumerate(concepts):
            (own / f"{concept}.txt").write_text(f"{saying} {'more ' * number} of number {number}.")
    for number, concept in enumerate(concepts):
        (folder / "stories" / concept).mkdir(parents=True)
        (folder / "stories" / concept / "alone.txt").write_text(f"A story of number {number}.")
    manifest = {
        "concepts": {concept: {"words": ["felt"], "family": f"<i>{concept[:3]}"} for concept in concepts},
        "held_out": [f"paired/scene <b>2</{concept}.txt" for concept in concepts],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_miniature(tmp_path_factory.mktemp("models") / "<u>hybrid", "qwen3_5"), "float32")


def make(
    loaded: LoadedModel, folder: Path, *, measured: bool = True, recipe: Recipe = RECIPE
) -> QualityReport:
    corpus = load_corpus(folder)
    reading = read_corpus(loaded, corpus, recipe)
    return make_report(
        loaded,
        corpus,
        reading,
        directions(reading),
        a_validity(reading) if measured else None,
        recipe=recipe,
        made=MADE,
    )


def directions(reading: CorpusReading) -> Directions:
    train = reading.split("train")
    vectors = {layer: train.vectors(layer, "mean_difference") for layer in train.layers}
    manifest = ReadoutManifest(
        concepts=list(reading.concepts), layers=list(reading.layers), hidden_size=32, dtype="float32"
    )
    return Directions(manifest, vectors)


def a_validity(reading: CorpusReading) -> Validity:
    """Layer 1 is the best; the second concept is no better than chance."""

    def concept(number: int, layer: int) -> ConceptValidity:
        area = 0.55 if number == 1 else 0.9 + 0.01 * (layer == 1)
        return ConceptValidity(Auroc(area, 20, 60), Auroc(0.8, 20, 60), None, 0.75)

    def whole(layer: int) -> LayerValidity:
        concepts = {name: concept(number, layer) for number, name in enumerate(reading.concepts)}
        mean = Average(0.8 + 0.0123456789 * (layer == 1), 0.7, 0.9, 80)
        twin = Average(0.66, 0.6, 0.72, 80)
        return LayerValidity(layer, concepts, mean, mean, None, (0.5, 0.41, 0.59), (0.51, 0.4, 0.6), twin)

    return Validity({layer: whole(layer) for layer in reading.layers})


@pytest.fixture(scope="module")
def report(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> QualityReport:
    return make(loaded, write_corpus(tmp_path_factory.mktemp("corpus"), HOSTILE))


# ---------------------------------------------------------------------- quality.json


def test_the_file_holds_the_report(report: QualityReport, tmp_path: Path) -> None:
    data, shown = write_report(report, tmp_path / "new" / "folder")
    read = QualityReport.from_bytes(data.read_bytes())
    assert read.to_bytes() == report.to_bytes()
    assert sorted(file.name for file in data.parent.iterdir()) == ["quality.json", "report.html"]
    assert shown.read_text() == show_report(report)
    assert set(read.concepts) == set(HOSTILE)
    assert (read.texts, read.best_layer, read.model) == ({"train": 24, "held_out": 7}, 1, "<u>hybrid")
    assert [layer.layer for layer in read.layers] == [0, 1, 2, 3]
    first = read.layers[1].concepts[read.concepts[0]]
    assert first.validity is not None and first.validity.auroc.value == 0.91
    assert first.validity.auroc.interval == pytest.approx(Auroc(0.91, 20, 60).interval(), abs=1e-5)
    assert "not_valid" in read.layers[1].concepts[read.concepts[1]].triage
    assert "not_valid" not in first.triage


def test_numbers_are_finite_and_short(report: QualityReport) -> None:
    found = list(numbers(json.loads(report.to_bytes(), parse_constant=pytest.fail)))
    assert len(found) > 500
    assert all(math.isfinite(number) and float(f"{number:.5g}") == number for number in found)
    area = json.loads(report.to_bytes())["layers"][1]["validity"]["auroc"]["value"]
    assert area == 0.81235


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers(one)


def test_a_number_that_is_none_is_not_written(report: QualityReport, tmp_path: Path) -> None:
    data, shown = write_report(report, tmp_path)
    before = data.read_bytes(), shown.read_bytes()
    broken = msgspec.structs.replace(
        report, thresholds={**report.thresholds, "clean": math.nan}, made="later"
    )
    with pytest.raises(BadRows, match=r"got nan at thresholds\.clean"):
        write_report(broken, tmp_path)
    assert (data.read_bytes(), shown.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"version": 2}', "expected a quality report of version 1, got version 2"),
        (b'{"version": 1}', "missing required field"),
        (b"{", "expected a quality report"),
        (b'{"version": 1, "made": "\xff"}', "expected a quality report"),
    ],
)
def test_other_files_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(BrokenReport, match=said):
        QualityReport.from_bytes(data)


def test_the_file_has_a_schema_with_words() -> None:
    described = msgspec.json.schema(QualityReport)["$defs"]
    assert all(one.get("description") for one in described.values())


# ---------------------------------------------------------------------- what it is made of


def test_the_order_of_directions_does_not_matter(loaded: LoadedModel, tmp_path: Path) -> None:
    corpus = load_corpus(write_corpus(tmp_path, ("calm", "proud", "sad")))
    reading = read_corpus(loaded, corpus, RECIPE)
    own = directions(reading)
    manifest = msgspec.structs.replace(own.manifest, concepts=["sad", "calm", "proud"])
    turned = Directions(manifest, {layer: rows[[2, 0, 1]] for layer, rows in own.vectors_ch.items()})
    made = [
        make_report(loaded, corpus, reading, given, None, recipe=RECIPE, made=MADE) for given in (own, turned)
    ]
    assert made[0].to_bytes() == made[1].to_bytes()


def test_held_out_texts_have_no_part_in_it(loaded: LoadedModel, tmp_path: Path) -> None:
    found = make(loaded, write_corpus(tmp_path, ("calm", "proud")))
    for layer in found.layers:
        for concept in layer.concepts.values():
            assert (concept.quality.positives, concept.quality.negatives) == (3, 6)
            assert not any("scene <b>2<" in text.path for text in concept.quality.agreement.texts)


def test_directions_of_something_else_are_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    corpus = load_corpus(write_corpus(tmp_path, ("calm", "proud")))
    reading = read_corpus(loaded, corpus, replace(RECIPE, layers=("1",)))
    own = directions(reading)
    others = Directions(msgspec.structs.replace(own.manifest, concepts=["calm", "sad"]), own.vectors_ch)
    deeper = Directions(msgspec.structs.replace(own.manifest, layers=[2]), {2: own.vectors_ch[1]})
    with pytest.raises(UnknownConcept, match="'proud' is only in one"):
        make_report(loaded, corpus, reading, others, None, recipe=RECIPE, made=MADE)
    with pytest.raises(UnknownLayer, match=r"that were read \(\[1\]\), got one of 2"):
        make_report(loaded, corpus, reading, deeper, None, recipe=RECIPE, made=MADE)


def test_one_concept_alone_has_a_report(loaded: LoadedModel, tmp_path: Path) -> None:
    found = make(loaded, write_corpus(tmp_path, ("calm",)), recipe=replace(RECIPE, layers=("2",)))
    shown = parse(show_report(found))
    assert found.layers[0].cosines[0][0] == pytest.approx(1)
    assert "calm" in shown.texts and len(shown.pictures) == 2


def test_layers_that_cannot_be_taken_apart_say_why(tmp_path: Path) -> None:
    loaded = load_model(write_miniature(tmp_path / "model", "llama"), "float32")
    loaded.model.model.layers[0].post_feedforward_layernorm = torch.nn.Identity()
    loaded.model.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(torch.zeros(32, 64))
    found = make(loaded, write_corpus(tmp_path / "corpus", ("calm", "proud")))
    assert QualityReport.from_bytes(found.to_bytes()) is not None
    assert "Not decomposed: behind self_attn.o_proj stands post_feedforward_layernorm" in " ".join(
        parse(show_report(found)).texts
    )


# ---------------------------------------------------------------------- the page


class Page(HTMLParser):
    """A page's elements, attributes and texts, and whether every element is closed in its turn."""

    void = frozenset(("meta", "br", "img", "link", "input", "hr", "col"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.pictures: list[dict[str, str | None]] = []
        self.headings: list[str] = []
        self.labels: list[str] = []
        self.texts: list[str] = []
        self.tables: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "svg":
            self.pictures.append(dict(attrs))
        if tag == "table":
            self.tables.append([])
        if tag in ("caption", "th"):
            self.tables[-1].append(tag if tag == "caption" else f"th {dict(attrs).get('scope')}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] == "th":
            self.headings.append(data)
        if self.open and self.open[-1] == "text":
            self.labels.append(data)


def parse(text: str) -> Page:
    found = Page()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def test_texts_of_a_corpus_are_text(report: QualityReport) -> None:
    text = show_report(report)
    shown = parse(text)
    assert not shown.tags & {"script", "img", "iframe", "b", "i", "u", "link", "form", "a"}
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    for concept in HOSTILE:
        assert shown.headings.count(concept) >= 2 * len(report.layers)
        assert shown.labels.count(clip(concept)) == 2 * len(report.layers)
    everything = " ".join(shown.texts)
    assert all(saying in everything for saying in SAYINGS[:2])
    assert "scene <b>0</" in everything
    assert "{{ 7 * 7 }}{% raw %}" in everything and "<u>hybrid" in everything


def test_the_page_loads_nothing(report: QualityReport) -> None:
    shown = parse(show_report(report))
    sources = [value for name, value in shown.attributes if name in ("src", "href", "xlink:href", "action")]
    assert sources and all(value.startswith(("#", "data:image/png;base64,")) for value in sources)
    assert not re.search(r"@import|url\((?!#)", show_report(report))
    assert any("default-src 'none'" in value for name, value in shown.attributes if name == "content")


def test_the_page_can_be_read_without_seeing_it(report: QualityReport) -> None:
    shown = parse(show_report(report))
    assert len(shown.pictures) == 1 + len(report.layers)
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in shown.pictures)
    for table in shown.tables:
        assert table[0] == "caption" and "th col" in table
        assert set(table[1:]) <= {"th col", "th row"}
    ids = [value for name, value in shown.attributes if name == "id"]
    assert len([one for one in ids if not re.fullmatch(r"[mp][0-9a-f]{10}|image[0-9a-f]{10}", one)]) == 0


def test_the_page_says_what_was_measured(report: QualityReport) -> None:
    shown = " ".join(" ".join(parse(show_report(report)).texts).split())
    assert (
        "Behind layer 1, the best, the mean area under the ROC curve on held-out texts is 0.81 [0.70, 0.90]"
        in shown
    )
    assert (
        "random directions have 0.50 [0.41, 0.59], directions of shuffled labels 0.51 [0.40, 0.60]" in shown
    )
    assert "an untrained twin of the model 0.66 [0.60, 0.72]" in shown
    low, high = Auroc(0.55, 20, 60).interval()
    assert f"0.55 [{low:.2f}, {high:.2f}]" in shown
    assert "Nothing was measured" not in shown


def test_the_page_says_when_nothing_was_held_out(loaded: LoadedModel, tmp_path: Path) -> None:
    found = make(loaded, write_corpus(tmp_path, ("calm", "proud")), measured=False)
    shown = " ".join(parse(show_report(found)).texts)
    assert "Nothing was measured on held-out texts" in shown
    assert found.best_layer is None and page.foremost_layer(found).layer == 3
    assert all(concept.validity is None for layer in found.layers for concept in layer.concepts.values())


def test_of_many_layers_the_best_is_shown(report: QualityReport, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [layer.layer for layer in page.shown_layers(report)] == [1, 0, 2, 3]
    monkeypatch.setattr(page, "MOST_LAYERS", 3)
    assert [layer.layer for layer in page.shown_layers(report)] == [1]
    shown = parse(show_report(report))
    assert len(shown.pictures) == 2
    assert "Of 4 layers the foremost is shown below" in " ".join(shown.texts)


def test_the_curves_are_of_the_layers(report: QualityReport) -> None:
    for layer in report.layers:
        spectra = [concept.quality.spectrum for concept in layer.concepts.values()]
        shares = [spectrum.first_component_share for spectrum in spectra if spectrum is not None]
        assert len(shares) == len(HOSTILE)
        expected = (sum(shares) / len(shares), min(shares), max(shares))
        assert page.first_shares(layer) == pytest.approx(expected)
    picture = parse(show_report(report)).pictures[0]["aria-label"] or ""
    assert picture.startswith("Over 4 layers: the mean area under the ROC curve with its controls")


def test_concepts_of_one_text_have_no_shares_to_draw(loaded: LoadedModel, tmp_path: Path) -> None:
    for concept in ("calm", "proud"):
        (tmp_path / "direct").mkdir(exist_ok=True)
        (tmp_path / "direct" / f"{concept}.txt").write_text(f"To be {concept}.")
    found = make(loaded, tmp_path, measured=False)
    assert [page.first_shares(layer) for layer in found.layers] == [None] * 4
    assert "fewer than three different texts" in " ".join(parse(show_report(found)).texts)
