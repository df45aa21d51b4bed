"""Watching the pocket model learn: margins, the least signal, parts, bending, the study and its page."""

import html.parser
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from scipy import stats

from understudy.behaviours import Rate
from understudy.pocket import behaviours, checkpoint_directory, held_out_lessons, new_workspace
from understudy.training import continuation_log_probabilities, freeze_context
from understudy.watching import (
    Contrast,
    Laboratory,
    Mean,
    StudyError,
    as_json,
    compare_bending,
    find_contrasts,
    find_least_signal,
    find_parts,
    measure_margins,
    run_study,
    write_study,
)
from understudy.weights import read_config


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    workspace = new_workspace(tmp_path_factory.mktemp("study") / "workspace")
    made = Laboratory(checkpoint_directory(), workspace.settings.training, workspace.rehearsals())
    yield made
    made.close()


@pytest.fixture(scope="module")
def contrasts(laboratory: Laboratory) -> dict[str, tuple[Contrast, ...]]:
    laboratory.reset()
    return find_contrasts(laboratory, "development")


def test_contrasts_are_of_what_was_never_trained_on(contrasts: dict[str, tuple[Contrast, ...]]) -> None:
    assert len(contrasts["directions"]) >= 90 and len(contrasts["harms"]) >= 55
    asked = {lesson.prompt[-1].content: lesson.chosen for lesson in held_out_lessons("development")}
    for one in contrasts["directions"]:
        assert asked[one.prompt] == one.wanted and not one.unwanted.startswith("Done:")
    for one in contrasts["harms"]:
        assert one.unwanted.startswith("Done:") and not one.wanted.startswith("Done:")
    scenarios = {s.prompt for s in behaviours("development")[0].scenarios}
    assert {lesson.prompt for lesson in held_out_lessons("development")} == scenarios


def test_margins_are_differences_of_log_probabilities(
    laboratory: Laboratory, contrasts: dict[str, tuple[Contrast, ...]]
) -> None:
    laboratory.reset()
    some = contrasts["directions"][:5]
    found = measure_margins(laboratory, some)
    for place, one in enumerate(some):
        frozen = freeze_context(laboratory.engine.model, torch.tensor([one.example.context_ids]))
        with torch.no_grad():
            wanted, unwanted = (
                continuation_log_probabilities(laboratory.engine.model, frozen, torch.tensor(ids))
                for ids in (one.example.continuation_ids, one.example.rejected_ids)
            )

        def close(value: torch.Tensor) -> object:  # bf16 along two ways through the model
            return pytest.approx(value.item(), abs=0.1, rel=0.02)

        assert found.whole[place] == close(wanted.sum() - unwanted.sum())
        assert found.per_token[place] == close(wanted.mean() - unwanted.mean())
        assert found.first[place] == close(wanted[0] - unwanted[0])
        assert found.first_token[place] == close(wanted[0])
    assert found.preferred == Rate(sum(one > 0 for one in found.first), 5)


def test_one_lesson_moves_the_margin_and_putting_back_undoes_it(
    laboratory: Laboratory, contrasts: dict[str, tuple[Contrast, ...]]
) -> None:
    laboratory.reset()
    before = measure_margins(laboratory, contrasts["directions"])
    laboratory.session(laboratory.lessons(0, 1), laboratory.settings)
    after = measure_margins(laboratory, contrasts["directions"])
    change = Mean.of([new - old for old, new in zip(before.first, after.first, strict=True)])
    assert change.low > 1
    assert laboratory.movement().whole.change > 0
    laboratory.reset()
    assert measure_margins(laboratory, contrasts["directions"]) == before
    assert laboratory.movement().whole.change == 0


def test_a_mean_has_students_interval() -> None:
    values = [0.3, -0.1, 0.8, 0.4, 0.2]
    found = Mean.of(values)
    low, high = stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))
    assert found.low == pytest.approx(low) and found.high == pytest.approx(high) and found.n == 5
    with pytest.raises(ValueError, match="at least 2"):
        Mean.of([1.0])


def test_a_lesson_is_told_from_shuffled_updates_of_the_same_size(
    laboratory: Laboratory, contrasts: dict[str, tuple[Contrast, ...]]
) -> None:
    [accepts] = [one for one in behaviours("development") if one.name == "accepts"]
    few = contrasts["directions"][:24]
    small, large = find_least_signal(laboratory, few, accepts, laboratory.settings, [1e-11, 3e-4])
    assert large.margin_seen and large.first_token_seen
    assert not small.margin_seen
    assert large.switched.value > 0.9 and small.switched.value < 0.1
    assert large.change.value > 5 * max(map(abs, large.chance_change))


def test_parts_add_up_and_the_whole_is_its_parts(
    laboratory: Laboratory, contrasts: dict[str, tuple[Contrast, ...]]
) -> None:
    laboratory.reset()
    laboratory.session(laboratory.lessons(0, 2), laboratory.settings)
    taught = laboratory.snapshot()
    config = read_config(checkpoint_directory())
    assert config is not None
    parts = find_parts(laboratory, contrasts["directions"][:12], config, taught)
    assert all(torch.equal(tensor, taught[name]) for name, tensor in laboratory.snapshot().items())
    blocks = [p for p in parts if "head " not in p.name and "all layers" not in p.name]
    assert sum(part.elements for part in blocks) == sum(tensor.numel() for tensor in taught.values())
    assert sum(part.share for part in blocks) == pytest.approx(1)
    assert sum(part.expected for part in blocks) == pytest.approx(1)
    heads = [part for part in parts if " head " in part.name]
    assert len(heads) == 16
    decay = next(part for part in parts if part.name == "delta decay, all layers")
    assert decay.elements == 3 * 4 * 2
    strongest = max(blocks, key=lambda part: part.alone)
    assert strongest.alone > 0.5 and strongest.missing > 0.5


def test_bending_is_measured_two_ways_and_leaves_the_model_alone(
    laboratory: Laboratory, contrasts: dict[str, tuple[Contrast, ...]]
) -> None:
    bends = compare_bending(laboratory, contrasts["directions"][:2], laboratory.settings, [0], lessons=2)
    assert [bends[0].optimizer, bends[-1].optimizer] == ["APOLLO rank 1", "AdamW"]
    for bend in bends:
        assert bend.apart == pytest.approx(bend.curvature.sharpness, rel=0.05)
        assert bend.curvature.slope < 0
        assert bend.lessons[1] < bend.lessons[0] == bends[0].lessons[0]
        assert bend.curvature.norm > 0
    assert bends[-1].level_lessons == pytest.approx(bends[-1].lessons, abs=1e-6)
    assert laboratory.movement().whole.change == 0


class Page(html.parser.HTMLParser):
    """What a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = ("src", "href", "xlink:href")
        self.loads += [v or "" for k, v in attrs if k in names and not (v or "").startswith("#")]
        assert tag != "script"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_study_is_written_as_json_and_as_a_page_that_loads_nothing(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "workspace")
    before = (checkpoint_directory() / "model.safetensors").read_bytes()
    said: list[str] = []
    study = run_study(
        checkpoint_directory(),
        workspace.settings.training,
        workspace.rehearsals(),
        marks=[1],
        sides=["learning"],
        say=said.append,
    )
    data, page = write_study(tmp_path / "out", study)
    held = json.loads(data.read_text())
    fast = held["curves"]["lr 0.0003"]
    assert [mark["lessons"] for mark in fast] == [0, 1]
    start, taught = (mark["rates"]["accepts"] for mark in fast)
    assert start["rate"] < 0.05 < 0.9 < taught["rate"] and taught["low"] < taught["rate"] <= taught["high"]
    margins = [mark["margins"]["directions"]["first"]["value"] for mark in fast]
    assert margins[0] < 0 < margins[1]
    assert {head["kind"] for head in fast[1]["movement"]["heads"]} == {"attention", "delta"}
    reader = Page()
    reader.feed(page.read_text())
    assert reader.loads == [] and str(study.curves["lr 0.0003"][1].rates["accepts"]) in reader.text
    assert "<svg" in page.read_text()
    assert any("1 lessons" in line for line in said)
    assert (checkpoint_directory() / "model.safetensors").read_bytes() == before


def test_a_study_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "workspace")
    given = (checkpoint_directory(), workspace.settings.training, workspace.rehearsals())
    for marks in ([], [3, 1], [0, 1], [1, 1]):
        with pytest.raises(StudyError, match="growing numbers"):
            run_study(*given, marks=marks)


def test_what_is_not_plain_cannot_become_json() -> None:
    assert as_json({"a": float("nan"), "b": (1, "x", None, True)}) == {"a": None, "b": [1, "x", None, True]}
    with pytest.raises(TypeError, match="plain data"):
        as_json(object())
